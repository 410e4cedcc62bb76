"""The libp2p host: TCP, noise, yamux and GossipSub. The only package that imports libp2p."""
