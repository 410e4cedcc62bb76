"""The read path: from an address with its temporal part to a version, with a cache."""
