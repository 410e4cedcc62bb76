"""Finders: thin shells that see peers, and say so."""
