"""The HTTP API: plain functions over a `Node`, a guard before them, one file that knows the server."""
