"""What the settings are made of: their table, their file, and text as values. `node/config.py` puts them together."""
