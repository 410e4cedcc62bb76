"""The node: one process that is a member of the swarm, built around the pure cores in `protocols`."""
