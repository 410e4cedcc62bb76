"""The store finder: reports the members of earlier runs, which the store remembers.

So a node that starts again is back in its swarm within a second, whatever the other finders see.
"""

from collections.abc import Callable

import trio

from discovery.finder import FinderHealth, Sightings
from node.swarm.members import Members
from protocols.policy.sighting import Sighting, Source

SOUGHT_SECONDS = 300.0
"""How long a remembered member is dialled before it may be forgotten, however long ago it was seen."""


class StoreFinder:
    """`forget_seconds` is the horizon after which a member that was not seen is forgotten."""

    def __init__(self, members: Members, *, forget_seconds: float, now_ms: Callable[[], int]) -> None:
        self._members = members
        self._forget_seconds = forget_seconds
        self._now_ms = now_ms
        self._reported = 0

    def health(self) -> FinderHealth:
        """It has no faults. It finds no node that was not met before."""
        return FinderHealth(kind="store", needs_peers=True, counts={"recalled": self._reported})

    async def run(self, sightings: Sightings) -> None:
        now, now_ms = trio.current_time(), self._now_ms()
        for presence in self._members.all():
            member = presence.member
            # A member is dialled before it is forgotten: this node may have been off for long, or its clock be wrong.
            ago = min(max(0.0, (now_ms - member.last_seen_ms) / 1000.0), self._forget_seconds - SOUGHT_SECONDS)
            self._reported += 1
            sightings.saw(
                Sighting(
                    peer=member.peer,
                    addresses=member.addresses,
                    source=Source.STORE,
                    seen_at=now - max(0.0, ago),
                    name=member.name,
                )
            )
