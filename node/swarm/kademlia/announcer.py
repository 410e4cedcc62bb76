"""Tells the peers nearest to keys that this node provides them, many keys at once.

A lookup for each key would cost a hundred messages. Keys whose places are near each other have the same nearest peers,
so one lookup serves a whole region of places; and a peer gets its keys one behind another, with one ping at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from node.swarm.kademlia.client import KademliaClient
from node.swarm.kademlia.lookups import STORE_SECONDS, Lookups
from node.swarm.kademlia.routing import Routing
from node.swarm.rpc import Silent, Unreachable
from protocols.kademlia.contact import Contact
from protocols.kademlia.messages import CONTACTS_MAX, AddProvider
from protocols.placement import place_of_key, place_of_peer

REGION_SECONDS = 3600.0
"""How long the peers that a lookup found count as those of their region."""
REGIONS_MAX = 1024
KEYS_AT_ONCE = 32
"""Keys that one peer is told before it must have answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Region:
    """The places that differ from `place` in the last `bits` bits at most, and the peers that are nearest to them."""

    place: int
    bits: int
    contacts: tuple[Contact, ...]
    table_changes: int
    """How many contacts had entered the routing table by then: with another one the peers may be others."""
    found_at: float


class ProviderAnnouncer:
    """`own_for` is this node as a peer can reach it."""

    def __init__(
        self, routing: Routing, lookups: Lookups, client: KademliaClient, *, own_for: Callable[[Contact], Contact]
    ) -> None:
        self._routing = routing
        self._lookups = lookups
        self._client = client
        self._own_for = own_for
        self._regions: list[_Region] = []
        self.lookups = 0
        """Lookups that were made for it."""
        self.taken = 0
        """Keys that at least one peer was told."""
        self.failed = 0

    async def announce(self, keys: Sequence[bytes], *, timeout: float) -> int:
        """Tell the peers nearest to each key that this node provides it; return how many took a key, over all keys, in
        time."""
        takers = dict.fromkeys(keys, 0)
        with trio.move_on_after(timeout):
            by_peer: dict[str, tuple[Contact, list[bytes]]] = {}
            for key in sorted(takers, key=place_of_key):
                for contact in await self._nearest(key):
                    by_peer.setdefault(contact.peer, (contact, []))[1].append(key)
            async with trio.open_nursery() as nursery:
                for contact, its_keys in by_peer.values():
                    nursery.start_soon(self._tell, contact, its_keys, takers)
        taken = sum(map(bool, takers.values()))
        self.taken += taken
        self.failed += len(takers) - taken
        return sum(takers.values())

    async def _tell(self, contact: Contact, keys: Sequence[bytes], takers: dict[bytes, int]) -> None:
        own = (self._own_for(contact),)
        for start in range(0, len(keys), KEYS_AT_ONCE):
            some = keys[start : start + KEYS_AT_ONCE]
            try:
                await self._client.ask(contact, *(AddProvider(key, own) for key in some), timeout=STORE_SECONDS)
            except (Silent, Unreachable):
                self._routing.failed(contact.peer)
                return
            for key in some:
                takers[key] += 1

    async def _nearest(self, key: bytes) -> list[Contact]:
        """The peers nearest to a key, as far as a lookup in its region showed them."""
        place = place_of_key(key)
        region = self._known_region(place) or await self._look_up(key, place)
        return sorted(region.contacts, key=lambda contact: place_of_peer(contact.peer) ^ place)[:CONTACTS_MAX]

    def _known_region(self, place: int) -> _Region | None:
        now, changes = trio.current_time(), self._routing.added
        self._regions = [
            each for each in self._regions if now - each.found_at < REGION_SECONDS and each.table_changes == changes
        ][-REGIONS_MAX:]
        return next((each for each in self._regions if (each.place ^ place).bit_length() <= each.bits), None)

    async def _look_up(self, key: bytes, place: int) -> _Region:
        """Within the distance of the farthest peer that was found all are known, which is at least half the subtree."""
        self.lookups += 1
        result = await self._lookups.find_node(key)
        farthest = max((place_of_peer(each.peer) ^ place for each in result.closest), default=0)
        is_all = len(result.closest) < CONTACTS_MAX
        region = _Region(
            place=place,
            bits=256 if is_all else farthest.bit_length() - 1,
            contacts=result.closest,
            table_changes=self._routing.added,
            found_at=trio.current_time(),
        )
        if result.closest:
            self._regions.append(region)
        return region
