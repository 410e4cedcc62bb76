"""What a finder is: something that sees peers, and says so.

Many finders, one book: whatever they see goes to `protocols/policy/address_book.py` as a `Sighted`, with its source,
and that decides whom to dial and when. A finder never dials, and never knows who is connected.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from protocols.policy.address_book import Sighted

OnSighted = Callable[[Sighted], None]
"""Told of every sighting, on the trio thread; quick, and does not raise. The same peer may come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinderHealth:
    """How a finder is."""

    sources: int = 0
    """How many sources it was configured with."""
    faults: tuple[str, ...] = ()
    """Each of its sources that tells nothing now, and why."""
    errors: int = 0
    """How often looking failed, since it began."""
    latency_seconds: float = 0.0
    """How long it looked the last time."""
    looked_at: float | None = None
    """When, on trio's clock."""


class Finder(Protocol):
    """One way of seeing peers. Run by the node as a task of its own; what it raises ends the node."""

    def health(self) -> FinderHealth:
        """How it is, at once and without looking."""
        ...

    async def run(self, on_sighted: OnSighted) -> None:
        """Say what is seen, until cancelled; a finder that has said all it will ever see may return."""
        ...
