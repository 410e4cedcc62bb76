"""One process that lives in the swarm: the shells round the cores in `protocols`."""
