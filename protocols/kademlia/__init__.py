"""Kademlia: the pure parts of the DHT that nodes speak with each other and with other libp2p nodes."""
