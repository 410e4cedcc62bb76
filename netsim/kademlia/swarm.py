"""A large swarm of the DHT: light nodes that have a routing table, lookups and values, and nothing else.

The machines are those of a node (`protocols/kademlia/`), the rest is as little as they need. A request and its answer
take a random time each, a dead node never answers, and a peer that was met counts as identified. A node that lies names
the liars that are nearest to what was asked for, or peers that do not exist.
"""

import random
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from functools import partial
from hashlib import sha256
from heapq import nsmallest
from typing import Any

from netsim.kademlia.event_heap import EventHeap, HeapDriver
from protocols.kademlia.contact import Contact
from protocols.kademlia.lookup import Lookup, LookupOptions
from protocols.kademlia.lookup_events import Ended, ReplyReceived, Result, SendRequest
from protocols.kademlia.lookup_purposes import ClosestPeers, Purpose
from protocols.kademlia.messages import CONTACTS_MAX
from protocols.kademlia.routing_events import (
    Answered,
    ContactFailed,
    Effect,
    Event,
    Identified,
    LookedUp,
    PingContact,
    PingFailed,
    Refresh,
)
from protocols.kademlia.routing_table import RoutingOptions, RoutingTable

LATENCY_SECONDS = (0.02, 0.08)
"""One way, from and to."""
PING_SECONDS = 2.0
BITS = 256


class LookupLie(Enum):
    """What a liar answers."""

    ACCOMPLICES = auto()
    """The liars nearest to the place: they exist, and have no value."""
    MADE_UP = auto()
    """Peers nearer to the place than any other, which do not exist."""


class Places(dict[str, int]):
    """The place of each peer by its name: its hash, unless something else was said."""

    def __missing__(self, peer: str) -> int:
        place = self[peer] = int.from_bytes(sha256(peer.encode()).digest(), "big")
        return place


class KadNode:
    """One node. It is dead when it is not in its swarm's `alive`."""

    __slots__ = ("contact", "peer", "routing", "table", "values")

    def __init__(self, peer: str, table: RoutingTable) -> None:
        self.peer = peer
        self.contact = Contact(peer)
        self.table = table
        self.values: dict[int, bytes] = {}
        self.routing: HeapDriver[Event, Effect]


class KadSwarm:
    """All nodes, by name. While `is_learning` is false, the routing tables stay as they are, whatever happens."""

    def __init__(self, seed: int, *, options: RoutingOptions | None = None) -> None:
        self.heap = EventHeap()
        self.nodes: dict[str, KadNode] = {}
        self.alive: dict[str, KadNode] = {}
        self.liars: dict[str, LookupLie] = {}
        self.is_learning = True
        self.messages = 0
        self.places = Places()
        self._options = options
        self._rng = random.Random(f"{seed}/kademlia")
        self._liars_by_place: list[tuple[int, Contact]] = []

    # -- nodes ------------------------------------------------------------------------------------------------

    def add(self, bootstrap: KadNode | None = None) -> KadNode:
        """Start a node, which joins by another one."""
        peer = f"n{len(self.nodes)}"
        table = RoutingTable(peer, chance=self._rng.random, place_of=self.places.__getitem__, options=self._options)
        node = self.nodes[peer] = self.alive[peer] = KadNode(peer, table)
        node.routing = HeapDriver(table, partial(self._carry_out, node), self.heap, is_on=partial(self._is_on, peer))
        if bootstrap is not None:
            node.routing.handle(Identified(bootstrap.contact))
        return node

    def fill(self, count: int) -> None:
        """Start nodes with tables as long-lived nodes have them: the nearest peers, and of each farther part of the key
        space as many as a bucket holds, drawn at random. Then no table learns any more."""
        self.is_learning = False
        nodes = [self.add() for _ in range(count)]
        order = sorted(nodes, key=lambda node: self.places[node.peer])
        places = [self.places[node.peer] for node in order]
        for node in nodes:
            own = self.places[node.peer]
            for bit in range(BITS):
                low = (own >> (BITS - bit)) << (BITS - bit)
                first, last = bisect_left(places, low), bisect_left(places, low + (1 << (BITS - bit)))
                if last - first <= 1:
                    break
                known = self._rng.sample(range(first, last), min(last - first, 3 * CONTACTS_MAX))
                for at in known:
                    node.table.handle(Identified(order[at].contact), self.heap.now)

    def kill(self, peers: Iterable[str]) -> None:
        """They answer no more; nobody is told."""
        for peer in peers:
            del self.alive[peer]

    def corrupt(self, peers: Iterable[str], lie: LookupLie) -> None:
        self.liars = dict.fromkeys(peers, lie)
        self._liars_by_place = [(self.places[peer], self.nodes[peer].contact) for peer in self.liars]

    def nearest_alive(self, place: int, n: int) -> list[str]:
        """The honest nodes that are nearest to a place."""
        honest = (peer for peer in self.alive if peer not in self.liars)
        return nsmallest(n, honest, key=lambda peer: self.places[peer] ^ place)

    # -- lookups ----------------------------------------------------------------------------------------------

    def look_up(
        self,
        node: KadNode,
        place: int,
        purpose: Purpose[Any],
        on_end: Callable[[Result], None],
        options: LookupOptions | None = None,
    ) -> None:
        seeds = node.table.closest(place, CONTACTS_MAX)
        machine = Lookup(
            place, seeds, purpose,
            own=node.peer, now=self.heap.now, place_of=self.places.__getitem__, options=options,
        )  # fmt: skip

        def carry_out(effect: SendRequest | Ended) -> None:
            if isinstance(effect, SendRequest):
                self._request(node, effect.contact.peer, place, driver)
            else:
                self._looked_up(node, place, effect.result)
                on_end(effect.result)

        driver = HeapDriver[Any, Any](machine, carry_out, self.heap)

    def _looked_up(self, node: KadNode, place: int, result: Result) -> None:
        if self.is_learning:
            for peer in result.failed:
                node.routing.handle(ContactFailed(peer))
            node.routing.handle(LookedUp(place))

    def _request(self, node: KadNode, peer: str, place: int, driver: HeapDriver[Any, Any]) -> None:
        self.messages += 1
        self._after_latency(self._serve, node, peer, place, driver)

    def _serve(self, asker: KadNode, peer: str, place: int, driver: HeapDriver[Any, Any]) -> None:
        node = self.alive.get(peer)
        if node is None:
            return
        if self.is_learning:
            node.routing.handle(Identified(asker.contact))
        self.messages += 1
        value = None
        if peer in self.liars:
            closer = self._lie(peer, place)
        else:
            closer, value = node.table.closest(place, CONTACTS_MAX), node.values.get(place)
        self._after_latency(self._replied, asker, node, ReplyReceived(peer, closer, value), driver)

    def _replied(self, asker: KadNode, node: KadNode, reply: ReplyReceived[Any], driver: HeapDriver[Any, Any]) -> None:
        if asker.peer in self.alive:
            if self.is_learning:
                asker.routing.handle(Identified(node.contact))
            driver.handle(reply)

    def _lie(self, peer: str, place: int) -> Sequence[Contact]:
        if self.liars[peer] is LookupLie.ACCOMPLICES:
            nearest = nsmallest(CONTACTS_MAX, self._liars_by_place, key=lambda pair: pair[0] ^ place)
            return [contact for _, contact in nearest]
        names = [f"made up {number} by {peer} for {place}" for number in range(CONTACTS_MAX)]
        for number, name in enumerate(names):
            self.places[name] = place ^ (number + 1)
        return [Contact(name) for name in names]

    def _after_latency(self, callback: Callable[..., None], *args: object) -> None:
        low, high = LATENCY_SECONDS
        self.heap.at(self.heap.now + low + (high - low) * self._rng.random(), callback, *args)

    # -- routing tables ---------------------------------------------------------------------------------------

    def _is_on(self, peer: str) -> bool:
        return self.is_learning and peer in self.alive

    def _carry_out(self, node: KadNode, effect: Effect) -> None:
        match effect:
            case PingContact(contact):
                self.messages += 1
                self._after_latency(self._ping, node, contact.peer)
            case Refresh(place):
                self.look_up(node, place, ClosestPeers(), lambda _: None)
            case _:
                pass

    def _ping(self, asker: KadNode, peer: str) -> None:
        if peer in self.alive:
            self.messages += 1
            self.alive[peer].routing.handle(Identified(asker.contact))
            self._after_latency(asker.routing.handle, Answered(peer))
        else:
            self.heap.at(self.heap.now + PING_SECONDS, asker.routing.handle, PingFailed(peer))
