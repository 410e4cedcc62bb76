"""One operating-system process that runs one node: start, signals, threads, garbage collection, identity."""
