"""The benchmarks of `scripts/bench`: one a file, each a function that returns figures."""
