"""The checks: each reads a history and finds the violations of one promise. Pure; `registry.py` has the list."""
