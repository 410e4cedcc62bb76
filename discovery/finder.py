"""The interface of a finder, which reports the peers that it finds.

All finders report to one address book (`protocols/policy/address_book.py`), which decides which peers to dial, and
when. A report is a `Sighted` with its source. A finder never dials, and does not know which peers are connected.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from protocols.policy.address_book import Sighted

OnSighted = Callable[[Sighted], None]
"""Called for every sighting, on the trio thread: quick, and does not raise. The same peer may come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinderHealth:
    """The health of a finder."""

    sources: int = 0
    """The number of its configured sources."""
    faults: tuple[str, ...] = ()
    """Each source that reports nothing now, with the reason."""
    errors: int = 0
    """The number of failed searches since the start."""
    latency_seconds: float = 0.0
    """The duration of the last search."""
    looked_at: float | None = None
    """The time of the last search, on trio's clock."""


class Finder(Protocol):
    """One way to find peers. The node runs it as a task; an exception that it raises ends the node."""

    def health(self) -> FinderHealth:
        """Its health, at once and without a search."""
        ...

    async def run(self, on_sighted: OnSighted) -> None:
        """Report sightings until cancelled. A finder that will never find another peer may return."""
        ...
