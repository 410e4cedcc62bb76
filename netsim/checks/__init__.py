"""Checkers: each reads a history and says what of a promise was broken. Pure; `registry.py` has the list."""
