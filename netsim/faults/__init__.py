"""Faults: what a fault is, and each kind of it in one class."""
