"""Paths of the API: finds the resource for the path of a request.

A last segment in capitals, as in `/v1/content/CID`, stands for any segment.
"""

from collections.abc import Iterable


class Paths:
    """`known` are the paths of the resources."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = frozenset(known)
        self._open = {path.rpartition("/")[0]: path for path in self._known if path.rpartition("/")[2].isupper()}

    def find(self, path: str) -> str | None:
        """The path of the resource, or None."""
        if path in self._known:
            return path
        folder, _, name = path.rpartition("/")
        return self._open.get(folder) if name else None
