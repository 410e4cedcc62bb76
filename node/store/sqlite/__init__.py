"""The durable store: one SQLite file in WAL mode, one writer thread with group commit, one reader thread."""
