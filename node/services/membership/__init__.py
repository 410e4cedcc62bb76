"""Which nodes are members of the swarm, and how this node stays connected to them."""
