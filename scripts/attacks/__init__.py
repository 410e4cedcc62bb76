"""Attacks on a running node, one layer a file, and the witnesses who look after each whether anybody else noticed."""
