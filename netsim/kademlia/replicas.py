"""A swarm that keeps its replicas alive under churn: light nodes that hold keys and feed each other, and nothing else.

The machine is that of a node (`protocols/replication/feeding.py`); the bytes are those of its messages. A node that
leaves takes its copies along, and one that joins has none. All nodes know of each other, as members do; a node that
left is gone for the others after the grace.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256

from netsim.kademlia.event_heap import EventHeap, HeapDriver
from protocols.keys import PrivateKey
from protocols.message_codec import encode_reply, encode_request
from protocols.messages import GetMissing, MergeReply, MissingReply
from protocols.placement import nearest
from protocols.replication.claims import Claims
from protocols.replication.feeding import Feeding
from protocols.replication.feeding_events import (
    AskMissing,
    Effect,
    Entry,
    Event,
    Grown,
    LiveChanged,
    LiveMember,
    MissingAnswered,
    MissingUnanswered,
    PageRead,
    Reached,
    ReadPage,
    Send,
    Sent,
)

LATENCY_SECONDS = (0.02, 0.08)
"""One way, from and to."""
GRACE_SECONDS = 300.0
LOOK_SECONDS = 60.0
"""How often the nodes look who is live: each look goes through all that they hold."""
ANSWER_SECONDS = 5.0
"""After this a question to a dead node has failed."""


@dataclass(slots=True)
class ReplicaTraffic:
    """What all nodes sent, in bytes and numbers."""

    question_bytes: int = 0
    content_bytes: int = 0
    questions: int = 0
    copies: int = 0


@dataclass(slots=True)
class _Holder:
    peer: str
    driver: HeapDriver[Event, Effect]
    claims: Claims = field(default_factory=Claims)
    log: list[bytes] = field(default_factory=list)
    """The versions that it has, by digest, in the order in which they came."""
    held: dict[bytes, None] = field(default_factory=dict)


class ReplicaSwarm:
    """So many nodes, each of which has what it should hold of so many keys with one version each."""

    def __init__(self, seed: int, nodes: int, *, keys: int, version_bytes: int, replication: int = 20) -> None:
        self.heap = EventHeap()
        self.traffic = ReplicaTraffic()
        self._rng = random.Random(f"{seed}/replicas")
        self._seed = seed
        self.replication = replication
        self._version_bytes = version_bytes
        self._alive: dict[str, _Holder] = {}
        self._gone_at: dict[str, float] = {}
        """Those that left and are live for the others still."""
        self._live: tuple[str, ...] = ()
        self._made = 0
        self._keys = {sha256(b"%d" % number).digest(): b"/ucxl/%043d" % number for number in range(keys)}
        """By digest of the one version."""
        for _ in range(nodes):
            self._add()
        for digest, key in self._keys.items():
            for peer in nearest(key, self._alive, replication):
                self._keep(self._alive[peer], (digest,))
        self._look()
        self.run(10 * LOOK_SECONDS)

    # -- what is measured -------------------------------------------------------------------------------------

    def missing(self) -> tuple[int, int]:
        """How many replicas are missing now at the nodes that live, and how many keys no node has."""
        missing = lost = 0
        for digest, key in self._keys.items():
            holders = nearest(key, self._alive, self.replication)
            missing += sum(digest not in self._alive[peer].held for peer in holders)
            lost += not any(digest in node.held for node in self._alive.values())
        return missing, lost

    def churn(self, minutes: int, *, session_minutes: float) -> None:
        """Nodes leave without a word after a session of this mean length, and as many new ones join."""
        for _ in range(minutes):
            leaving = [peer for peer in self._alive if self._rng.random() < 1.0 / session_minutes]
            for peer in leaving:
                del self._alive[peer]
                self._gone_at[peer] = self.heap.now + GRACE_SECONDS
            for _ in leaving:
                self._add()
            self.run(LOOK_SECONDS)

    def run(self, seconds: float) -> None:
        end = self.heap.now + seconds
        while self.heap.now < end:
            self.heap.run_until(min(end, self.heap.now + LOOK_SECONDS))
            self._look()

    # -- nodes ------------------------------------------------------------------------------------------------

    def _add(self) -> None:
        self._made += 1
        peer = PrivateKey.from_seed(sha256(b"%d/%d" % (self._seed, self._made)).digest()).peer_id
        feeding = Feeding(peer, replication=self.replication)
        driver = HeapDriver[Event, Effect](
            feeding, partial(self._carry_out, peer), self.heap, is_on=lambda: peer in self._alive
        )
        self._alive[peer] = _Holder(peer, driver)

    def _look(self) -> None:
        """All nodes see who is live."""
        for peer in [peer for peer, at in self._gone_at.items() if at <= self.heap.now]:
            del self._gone_at[peer]
        before, self._live = self._live, (*self._alive, *self._gone_at)
        reached = frozenset(self._alive)
        for node in list(self._alive.values()):
            node.driver.handle(Reached(reached - {node.peer}))
            if self._live != before:
                others = tuple(LiveMember(peer, 0) for peer in self._live if peer != node.peer)
                node.driver.handle(LiveChanged(others, len(node.log), {}))
            else:
                node.driver.handle(Grown(len(node.log)))

    def _keep(self, node: _Holder, digests: Iterable[bytes]) -> None:
        new = [digest for digest in digests if digest not in node.held]
        node.log += new
        node.held |= dict.fromkeys(new)

    def _carry_out(self, peer: str, effect: Effect) -> None:
        node = self._alive.get(peer)
        if node is None:
            return
        match effect:
            case ReadPage(page, after, until, limit):
                end = min(after + limit, until)
                entries = [Entry(at + 1, node.log[at], self._keys[node.log[at]]) for at in range(after, end)]
                self._later(0.0, node, PageRead(page, tuple(entries), end))
            case AskMissing():
                self.traffic.questions += len(effect.digests)
                self.traffic.question_bytes += len(encode_request(1, GetMissing(effect.digests)))
                self.heap.at(self.heap.now + self._latency(), self._answer, node, effect)
            case Send():
                self.heap.at(self.heap.now + self._latency(), self._receive, node, effect)
            case _:
                pass

    def _answer(self, asker: _Holder, ask: AskMissing) -> None:
        other = self._alive.get(ask.peer)
        if other is None:
            self._later(ANSWER_SECONDS, asker, MissingUnanswered(ask.page, ask.peer))
            return
        lacking = [digest for digest in ask.digests if digest not in other.held]
        reply = MissingReply(*other.claims.take(asker.peer, lacking, self.heap.now))
        self.traffic.question_bytes += len(encode_reply(1, reply))
        self._later(self._latency(), asker, MissingAnswered(ask.page, ask.peer, reply.missing, reply.claimed))

    def _receive(self, sender: _Holder, send: Send) -> None:
        count = len(send.digests)
        self.traffic.copies += count
        self.traffic.content_bytes += count * self._version_bytes + len(encode_reply(1, MergeReply(count, ())))
        other = self._alive.get(send.peer)
        if other is not None:
            self._keep(other, send.digests)
        unsent = send.digests if other is None else ()
        self._later(self._latency(), sender, Sent(send.page, send.peer, unsent))

    def _later(self, seconds: float, node: _Holder, event: Event) -> None:
        self.heap.at(self.heap.now + seconds, self._handle, node, event)

    def _handle(self, node: _Holder, event: Event) -> None:
        if node.peer in self._alive:
            node.driver.handle(event)

    def _latency(self) -> float:
        low, high = LATENCY_SECONDS
        return low + (high - low) * self._rng.random()
