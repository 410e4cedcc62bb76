"""Holder search: in a large swarm, finds by lookups in the DHT the holders of a key that are no members yet.

Members are the quick source of a key's holders, and in a large swarm they may be incomplete: announcements are lost,
and no node tells all that it knows. A lookup asks the nodes nearest to a key. Those of this swarm greet and are
greeted, and so are members. The neighbourhood of a key is looked up when a key in it is written here, and before a read
says that nothing is there; each once in `AGAIN_SECONDS`.
"""

from collections.abc import Awaitable, Callable

import trio

from node.swarm.members import Members
from protocols.kademlia.lookup_events import Result
from protocols.placement import place_of_key

AGAIN_SECONDS = 600.0
PAUSE_SECONDS = 1.0
"""The least time between two lookups for writes: they can wait."""
GREET_SECONDS = 2.0
"""How long it is waited until the nodes that a lookup found are members."""
WAITING_MAX = 64
"""Neighbourhoods that wait for their lookup; further ones are looked up at a later write or read."""


class HolderSearch:
    """`find_node` looks a key up, within bounds of its own; `contacts` counts the peers in the routing table."""

    def __init__(
        self, members: Members, find_node: Callable[[bytes], Awaitable[Result]], *, contacts: Callable[[], int]
    ) -> None:
        self._members = members
        self._find_node = find_node
        self._contacts = contacts
        self._searched_at: dict[int, float] = {}
        """By neighbourhood: when its last lookup began."""
        self._under_way: dict[int, trio.Event] = {}
        self._waiting: dict[int, bytes] = {}
        """By neighbourhood, a key of it."""
        self._woken = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.found = 0
        """Members that came by a lookup."""

    def wrote(self, key: bytes) -> None:
        """A key is written here: look for its holders in the background, if that was not done lately."""
        if len(self._waiting) >= WAITING_MAX or not self._is_needed():
            return
        at = self._neighbourhood(key)
        if at not in self._waiting and self._is_due(at):
            self._waiting[at] = key
            self._woken.set()

    async def search(self, key: bytes, deadline: float) -> bool:
        """Look for the holders of a key now, until the deadline (trio's clock); return whether others are wanted than
        before. The lookup goes on after the deadline: a later call has its result."""
        if self._nursery is None or not self._is_needed():
            return False
        at, before = self._neighbourhood(key), self._members.wanted(key)
        if at not in self._under_way:
            if not self._is_due(at):
                return False
            self._nursery.start_soon(self._look_up, at, key)
            self._under_way[at] = trio.Event()
        with trio.move_on_at(deadline):
            await self._under_way[at].wait()
        return self._members.wanted(key) != before

    async def run(self) -> None:
        """Look up what was written, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while True:
                    await self._woken.wait()
                    self._woken = trio.Event()
                    while self._waiting:
                        at = next(iter(self._waiting))
                        await self.search(self._waiting[at], float("inf"))
                        del self._waiting[at]
                        await trio.sleep(PAUSE_SECONDS)
            finally:
                self._nursery = None

    def _is_needed(self) -> bool:
        """Whether this is a large swarm, of which this node may know little."""
        return max(len(self._members), self._contacts()) > self._members.connections_kept

    def _neighbourhood(self, key: bytes) -> int:
        """The leading bits of a key's place: about as many of them differ as there are groups of holders."""
        groups = len(self._members) // self._members.replication
        bits = groups.bit_length()
        return (1 << bits) | (place_of_key(key) >> (256 - bits))

    def _is_due(self, at: int) -> bool:
        searched_at = self._searched_at.get(at)
        return searched_at is None or trio.current_time() - searched_at >= AGAIN_SECONDS

    async def _look_up(self, at: int, key: bytes) -> None:
        now, before = trio.current_time(), len(self._members)
        self._searched_at = {each: since for each, since in self._searched_at.items() if now - since < AGAIN_SECONDS}
        self._searched_at[at] = now
        try:
            result = await self._find_node(key)
            await self._until_members([contact.peer for contact in result.closest])
            self.found += max(0, len(self._members) - before)
        finally:
            self._under_way.pop(at).set()

    async def _until_members(self, peers: list[str]) -> None:
        """Wait until these are members: not all need be, for peers of other programs take part in the DHT, too."""
        with trio.move_on_after(GREET_SECONDS):
            while any(peer != self._members.own and self._members.get(peer) is None for peer in peers):
                await self._members.changed()
