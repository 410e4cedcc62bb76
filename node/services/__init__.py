"""The services of a node, above the backends: writes, reads, membership, control and observation. One noun a file."""
