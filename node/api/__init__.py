"""The HTTP API: routes as plain functions over a `Node`, a middleware before them, and the HTTP server."""
