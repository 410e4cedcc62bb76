"""Marks: short texts about itself that a node keeps in its store.

Some are about its other files, so that a start can tell what these lack, others about what it has to do again after a
restart.
"""

from typing import Final, Protocol

LOST_MARK: Final = "lost"
"""It says in words what the store lost;"""
RECONCILED_MARK: Final = "reconciled"
"""and this one has the sequence up to which all keys of the log were asked for at other nodes since; '0': never."""
UNPROVED_MARK: Final = "unproved"
"""Not empty while it is not known whether the store is whole: a run began on it that does not go on where the last one
ended in order, and not every member has said yet that nothing is missing. The store sets it when it is opened, a node
removes it."""


def of_loss(why: str) -> dict[str, str]:
    """The marks of a store that lost entries, and was not compared with other nodes since."""
    return {LOST_MARK: why, RECONCILED_MARK: "0"}


class Marks(Protocol):
    """Marks by name."""

    def mark(self, name: str) -> str | None:
        """The text of a mark; None when there is none."""
        ...

    def set_mark(self, name: str, text: str) -> None:
        """Write a mark with one of the next commits; nothing waits for it. If that fails, the old one stays."""
        ...
