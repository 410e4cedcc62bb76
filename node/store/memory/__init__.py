"""The store in memory: for tests, the simulator and nodes that keep nothing."""
