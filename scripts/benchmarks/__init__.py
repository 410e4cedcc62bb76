"""What `scripts/bench` measures: one bench a file, each a function that answers figures."""
