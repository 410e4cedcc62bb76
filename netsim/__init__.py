"""The simulator: scenarios played by whole nodes, in a virtual world or as processes, and checks of every promise."""
