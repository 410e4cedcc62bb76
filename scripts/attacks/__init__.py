"""Attacks on a running node, one layer a file, with a witness that checks after each that no other peer noticed."""
