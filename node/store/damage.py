"""Damage: what was found changed in a store's file, or missing, by a failing disk or by another program."""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(slots=True, kw_only=True)
class Damage:
    """`found` counts the faults since the store was opened."""

    is_possible: bool
    """False for a store that has no file."""
    found: int = 0
    lost: str = ""
    """What was found missing when the store was opened, in words."""
    taken_over: str = ""
    """That the store was another node's before it was opened, in words."""
    set_aside: dict[bytes, bytes] = field(default_factory=dict)
    """Versions whose header or content is not the one of their digest any more: their keys by digest. Until they are
    merged again, readers get the notice where the content was damaged, and `Unavailable` where the header was."""


class Checks(Protocol):
    """What is read is checked against its digest; `check` does so for what no caller reads."""

    @property
    def damage(self) -> Damage: ...

    async def check(self, *, after: int) -> int | None:
        """Check some versions after this sequence, and mend or set aside what is damaged.

        Returns the sequence of the last version that was checked; None when there is no further one. Raises
        `StorageFull` or `Unavailable`.
        """
        ...
