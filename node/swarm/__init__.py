"""The network of a node: frames to peers, requests and replies over them, and the libp2p host below."""
