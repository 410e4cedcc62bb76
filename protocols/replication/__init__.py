"""Replication that lasts: who is gone, who feeds whom, and what a holder that lacks a version is sent; all pure."""
