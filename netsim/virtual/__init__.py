"""The virtual world: whole nodes in memory, on one virtual clock, reproducible from one seed."""
