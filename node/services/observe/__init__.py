"""How the node is: the health report and the probes behind it."""
