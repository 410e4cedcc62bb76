"""Observation of a node: the health report, and the probes behind it."""
