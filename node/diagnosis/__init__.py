"""Diagnosis: what keeps nodes apart, in words: of a running node, of a machine without one, of the way to a peer."""
