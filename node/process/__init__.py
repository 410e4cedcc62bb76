"""The operating-system process of one node: start, signals, threads, garbage collection, identity."""
