"""Finders: each finds peers in one way, and reports them as sightings."""
