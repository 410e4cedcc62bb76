"""Marks: short texts that a node keeps in its store about its other files, so that a start can tell what these lack."""

from typing import Protocol


class Marks(Protocol):
    """Marks by name."""

    def mark(self, name: str) -> str | None:
        """The text of a mark; None when there is none."""
        ...

    def set_mark(self, name: str, text: str) -> None:
        """Write a mark with one of the next commits; nothing waits for it. If that fails, the old one stays."""
        ...
