"""What nodes agree on: pure and deterministic. No trio, no socket, no clock, no chance, no logging."""
