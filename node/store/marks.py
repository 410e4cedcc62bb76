"""Marks: short texts that a node keeps in its store: about its other files, so that a start can tell what these lack,
and about what it has to do again after a restart."""

from typing import Protocol

UNPROVED_MARK = "unproved"
"""Not empty while it is not known whether the store is whole: a run began on it that does not go on where the last one
ended in order, and not every member has said yet that nothing is missing. The store sets it when it is opened, a node
removes it."""


class Marks(Protocol):
    """Marks by name."""

    def mark(self, name: str) -> str | None:
        """The text of a mark; None when there is none."""
        ...

    def set_mark(self, name: str, text: str) -> None:
        """Write a mark with one of the next commits; nothing waits for it. If that fails, the old one stays."""
        ...
