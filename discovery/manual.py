"""The manual finder: reports the bootstrap addresses of the configuration."""

from collections.abc import Sequence

from discovery.finder import FinderHealth, Sightings
from protocols.policy.sighting import Sighting, Source


class ManualFinder:
    """`addresses` are multiaddrs, with or without /p2p/<id> at the end. They are dialled for ever."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(addresses)

    def health(self) -> FinderHealth:
        """It cannot fail: whether a peer answers at an address shows when it is dialled."""
        return FinderHealth(kind="manual", is_on=bool(self._addresses), sources=len(self._addresses))

    async def run(self, sightings: Sightings) -> None:
        for address in self._addresses:
            peer = address.rpartition("/p2p/")[2] if "/p2p/" in address else ""
            sightings.saw(Sighting(peer=peer, addresses=(address,), source=Source.CONFIGURATION))
