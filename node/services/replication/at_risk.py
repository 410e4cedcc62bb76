"""At risk: the addresses that fewer nodes hold than should, as far as this node knows.

It knows of its own writes, by their hints, and of what others wrote and this node feeds to other holders
(`replicator.py`). A member that is replaced is not waited for: those that hold in its place are.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import trio

from node.store.base import Store
from node.store.log import Origin
from node.swarm.members import Members
from protocols.errors import BzzzError
from protocols.replication.feeding import Feeding

PAGE, PAGE_FED = 500, 50
"""Entries that are read at once. The holders of each entry of others are found anew, which may take a millisecond."""
ENTRIES_MAX = 20_000
"""Entries of each kind that one look goes through at most: a second's work, a little at a time."""
LOOK_SECONDS = 10.0
"""How often it is looked for health and metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtRisk:
    """The addresses at risk. Times are Unix milliseconds."""

    by_missing: dict[int, int]
    """How many addresses lack so many replicas."""
    oldest_at_ms: int | None = None
    """When the oldest write came that has too few replicas; None without any."""
    oldest_address: str = ""
    is_complete: bool = True
    """False: there was more to look at, and these are only the first ones."""

    @property
    def addresses(self) -> int:
        return sum(self.by_missing.values())


NONE = AtRisk(by_missing={})


class _Missing(NamedTuple):
    """An entry that some holders lack."""

    address: str
    at_ms: int
    holders: int


class RiskMonitor:
    """Of one node. Without a swarm there is no `feeding`."""

    def __init__(
        self, store: Store, members: Members, *, feeding: Feeding | None, held: Callable[[], str] = lambda: ""
    ) -> None:
        """`held` says why no member is replaced though some are gone, or ''."""
        self._store = store
        self._members = members
        self._feeding = feeding
        self._held = held
        self.last = NONE
        """What was at risk at the last look of `run`;"""
        self.looked_at: float | None = None
        """and when that was, on trio's clock."""

    @property
    def held(self) -> str:
        """Why no member is replaced though some are gone, in words, or ''."""
        return self._held()

    async def run(self) -> None:
        """Look from time to time until cancelled."""
        while True:
            with suppress(BzzzError):  # a store that cannot be read says so itself
                self.last = await self.look()
                self.looked_at = trio.current_time()
            await trio.sleep(LOOK_SECONDS)

    async def look(self) -> AtRisk:
        """What is at risk now. Raises `Unavailable` when the store cannot be read."""
        owed, all_owed = await self._owed()
        unfed, all_unfed = await self._unfed()
        missing: dict[str, int] = {}
        for entry in (*owed, *unfed):
            missing[entry.address] = max(entry.holders, missing.get(entry.address, 0))
        oldest = min((*owed, *unfed), key=lambda entry: entry.at_ms, default=None)
        return AtRisk(
            by_missing=dict(sorted(Counter(missing.values()).items())),
            oldest_at_ms=oldest.at_ms if oldest else None,
            oldest_address=oldest.address if oldest else "",
            is_complete=all_owed and all_unfed,
        )

    async def _owed(self) -> tuple[list[_Missing], bool]:
        """The own writes that holders lack; and whether these are all."""
        found: list[_Missing] = []
        after = 0
        for _ in range(0, ENTRIES_MAX, PAGE):
            writes = await self._store.owed_writes(after=after, limit=PAGE)
            for write in writes:
                if count := sum(holder not in self._members.replaced for holder in write.holders):
                    found.append(_Missing(write.address, write.at_ms, count))
            if not writes:
                return found, True
            after = writes[-1].sequence
        return found, False

    async def _unfed(self) -> tuple[list[_Missing], bool]:
        """The versions of others that this node does not know to be at the holders it feeds; and whether these are all.

        Old ones are what counts: the last entries of the log are the work of their authors' hints for a moment.
        """
        found: list[_Missing] = []
        if (feeding := self._feeding) is None:
            return found, True
        after = feeding.oldest
        for _ in range(0, ENTRIES_MAX, PAGE_FED):
            if after >= feeding.until:
                return found, True
            for change in await self._store.log(after=after, limit=PAGE_FED):
                after = change.sequence
                if change.origin is not Origin.LOCAL and (lacking := feeding.lacking(change.sequence, change.key)):
                    found.append(_Missing(change.address, change.at_ms, len(lacking)))
            await trio.lowlevel.checkpoint()
        return found, False
