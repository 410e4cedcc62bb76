"""What lookups cost and whether they succeed, in large swarms: measured by seed, on virtual time."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from netsim.durations import percentile
from netsim.kademlia.swarm import KadNode, KadSwarm, LookupLie
from protocols.kademlia.lookup import LookupOptions
from protocols.kademlia.lookup_events import Result
from protocols.kademlia.lookup_purposes import ClosestPeers, FirstValue

VALUE = b"value"


@dataclass(slots=True)
class MeasuredLookups:
    """Some lookups, and how many of them found what there was."""

    results: list[Result] = field(default_factory=list)
    successes: int = 0

    @property
    def success_percent(self) -> float:
        return 100.0 * self.successes / max(1, len(self.results))

    def hops(self, share: float) -> float:
        return percentile([result.hops for result in self.results], share)

    def requests(self, share: float) -> float:
        return percentile([result.requests for result in self.results], share)

    def seconds(self, share: float) -> float:
        return percentile([result.seconds for result in self.results], share)


class Measurement:
    """A swarm of so many nodes that hold `keys` values, each put at the nearest peers that a lookup found."""

    def __init__(self, seed: int, nodes: int, *, keys: int, joined: bool = False) -> None:
        self.swarm = KadSwarm(seed)
        self._rng = random.Random(f"{seed}/measure")
        if joined:
            self._join(nodes)
        else:
            self.swarm.fill(nodes)
        self._keys = [int.from_bytes(sha256(b"key %d" % number).digest(), "big") for number in range(keys)]
        for place in self._keys:
            result = MeasuredLookups()
            self._look_up(result, place, ClosestPeers(), None)
            for contact in result.results[0].closest:
                self.swarm.nodes[contact.peer].values[place] = VALUE

    def freeze(self) -> None:
        """From now on no routing table learns anything."""
        self.swarm.is_learning = False

    def _join(self, nodes: int) -> None:
        """Each node joins by one that is there, and looks up what its table asks for."""
        for _ in range(nodes):
            self.swarm.add(self._any_node() if self.swarm.alive else None)
            self._pass(0.5)
        self._pass(120.0)

    def kill(self, share: float) -> None:
        """So many nodes die at once; no table learns of it."""
        self.freeze()
        peers = list(self.swarm.alive)
        self.swarm.kill(self._rng.sample(peers, int(share * len(peers))))

    def corrupt(self, share: float, lie: LookupLie) -> None:
        """So many nodes begin to lie; no table learns of it."""
        self.freeze()
        peers = list(self.swarm.alive)
        self.swarm.corrupt(self._rng.sample(peers, int(share * len(peers))), lie)

    def get(self, count: int, options: LookupOptions | None = None) -> MeasuredLookups:
        """Look up values, by any nodes. Success: the value was found."""
        found = MeasuredLookups()
        for number in range(count):
            place = self._keys[number % len(self._keys)]
            purpose = FirstValue(lambda value: value == VALUE)
            self._look_up(found, place, purpose, options)
            found.successes += purpose.value is not None
        return found

    def find_nearest(self, count: int, options: LookupOptions | None = None) -> MeasuredLookups:
        """Look up random places. Success: the nearest of all others that are alive and honest was found."""
        found = MeasuredLookups()
        for _ in range(count):
            place = self._rng.getrandbits(256)
            node = self._look_up(found, place, ClosestPeers(), options)
            found.successes += self._nearest(place, node) in found.results[-1].answered
        return found

    def churn(self, minutes: int, *, session_minutes: float, lookups: int) -> MeasuredLookups:
        """Nodes leave without a word after a session of this mean length, and as many new ones join; meanwhile so many
        lookups a minute, judged as in `find_nearest`."""
        found = MeasuredLookups()
        for _ in range(minutes):
            leaving = [peer for peer in self.swarm.alive if self._rng.random() < 1.0 / session_minutes]
            self.swarm.kill(leaving)
            for _ in leaving:
                self.swarm.add(self._any_node())
            for _ in range(lookups):
                place = self._rng.getrandbits(256)
                node = self._look_up(found, place, ClosestPeers(), None)
                found.successes += self._nearest(place, node) in found.results[-1].answered
            self._pass(max(0.0, 60.0 - self.swarm.heap.now % 60.0))
        return found

    @property
    def messages(self) -> int:
        """Requests, answers and pings so far."""
        return self.swarm.messages

    @property
    def now(self) -> float:
        return self.swarm.heap.now

    def table_sizes(self) -> Sequence[int]:
        return [len(node.table) for node in self.swarm.alive.values()]

    def _look_up(self, found: MeasuredLookups, place: int, purpose: Any, options: LookupOptions | None) -> KadNode:
        """Look up a place to the end; returns the node that did."""
        node, before = self._honest_node(place), len(found.results)
        self.swarm.look_up(node, place, purpose, found.results.append, options)
        while len(found.results) == before:
            self._pass(0.5)
        return node

    def _nearest(self, place: int, node: KadNode) -> str:
        return next(peer for peer in self.swarm.nearest_alive(place, 2) if peer != node.peer)

    def _any_node(self) -> KadNode:
        return self.swarm.alive[self._rng.choice(list(self.swarm.alive))]

    def _honest_node(self, place: int) -> KadNode:
        """A node that lies not, and does not hold the value itself."""
        while True:
            node = self._any_node()
            if node.peer not in self.swarm.liars and place not in node.values:
                return node

    def _pass(self, seconds: float) -> None:
        self.swarm.heap.run_until(self.swarm.heap.now + seconds)
