"""Scenarios: the data model, its TOML form, its validation, and the plan that a seed makes of it."""
