"""Checkers: each reads a history and says what of a promise was broken. Pure; `judge.py` has the list."""
