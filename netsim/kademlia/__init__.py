"""Large swarms of the DHT: thousands of light nodes in one thread, on virtual time, by seed."""
