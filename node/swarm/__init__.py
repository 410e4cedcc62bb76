"""The libp2p host and what we speak over it. The only place that may import libp2p."""
