"""The contract between nodes, pure and deterministic: no trio, socket, clock, randomness or logging."""
