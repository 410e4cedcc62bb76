"""What a finder under test reports."""

import trio

from discovery.finder import Sightings
from protocols.policy.sighting import Sighting, Source


class Seen:
    """The `Sightings` of a test: keeps what it is told."""

    def __init__(self) -> None:
        self.sightings: list[Sighting] = []
        self.left: list[tuple[str, Source]] = []
        self._first = trio.Event()

    def saw(self, sighting: Sighting) -> None:
        self.sightings.append(sighting)
        self._first.set()

    def lost(self, peer: str, source: Source) -> None:
        self.left.append((peer, source))

    async def first(self) -> Sighting:
        """The first sighting, once there is one."""
        await self._first.wait()
        return self.sightings[0]


def _checked_by_mypy(seen: Seen) -> Sightings:
    return seen
