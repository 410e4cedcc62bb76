"""The DHT among peers of any kind: its server, its client, its routing table and its lookups."""
