"""A swarm of feeding machines without an event loop: each node has a log of versions, and answers others at once."""

from collections.abc import Iterable

from protocols.keys import PrivateKey
from protocols.policy.machine import Tick
from protocols.replication.claims import Claims
from protocols.replication.feeding import Feeding
from protocols.replication.feeding_events import (
    Advanced,
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

PEERS = tuple(PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(12))


def key_of(number: int) -> bytes:
    return b"/ucxl/%043d" % number


def digest_of(number: int) -> bytes:
    return b"%032d" % number


class Node:
    """One node: its log names versions of others by number, and has one version a key."""

    def __init__(self, peer: str, replication: int) -> None:
        self.peer = peer
        self.log: list[int] = []
        self.claims = Claims()
        self.feeding = Feeding(peer, replication=replication)
        self.saved: dict[str, int] = {}

    @property
    def has(self) -> frozenset[int]:
        return frozenset(self.log)


class Feeders:
    """`alive` nodes answer. `asked` and `sent` are (from, to, versions) in order."""

    def __init__(self, count: int, *, replication: int) -> None:
        self.now = 0.0
        self.nodes = {peer: Node(peer, replication) for peer in PEERS[:count]}
        self.alive = list(self.nodes)
        self.asked: list[tuple[str, str, int]] = []
        self.sent: list[tuple[str, str, tuple[int, ...]]] = []

    def put(self, peer: str, versions: Iterable[int]) -> None:
        node = self.nodes[peer]
        node.log += [version for version in versions if version not in node.has]
        self._handle(node, Grown(len(node.log)))

    def live(self, peers: Iterable[str], *, epoch: int = 0) -> None:
        """Each alive node finds that these are the live members."""
        peers = tuple(peers)
        for peer in self.alive:
            self.see(peer, peers, epoch=epoch)

    def see(self, own: str, peers: Iterable[str], *, epoch: int = 0, positions: dict[str, int] | None = None) -> None:
        node = self.nodes[own]
        others = tuple(LiveMember(peer, epoch) for peer in peers if peer != own)
        self._handle(node, Reached(frozenset(self.alive) - {own}))
        self._handle(node, LiveChanged(others, len(node.log), positions or {}))

    def kill(self, peer: str) -> None:
        self.alive.remove(peer)
        for other in self.alive:
            self._handle(self.nodes[other], Reached(frozenset(self.alive) - {other}))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = [(d, p) for p in self.alive if (d := self.nodes[p].feeding.deadline) is not None and d <= end]
            if not due:
                break
            at, peer = min(due)
            assert at > self.now or self.nodes[peer].feeding.deadline == at
            self.now = max(self.now, at)
            self._handle(self.nodes[peer], Tick())
        self.now = end

    def _handle(self, node: Node, event: Event | Tick) -> None:
        events: list[Event | Tick] = [event]
        while events:
            for effect in node.feeding.handle(events.pop(0), self.now):
                if (answer := self._carry_out(node, effect)) is not None:
                    events.append(answer)

    def _carry_out(self, node: Node, effect: Effect) -> Event | None:
        match effect:
            case ReadPage(page, after, until, limit):
                end = min(after + limit, until)
                entries = [Entry(at + 1, digest_of(node.log[at]), key_of(node.log[at])) for at in range(after, end)]
                return PageRead(page, tuple(entries), end)
            case AskMissing(page, peer, digests):
                if peer not in self.alive:
                    return MissingUnanswered(page, peer)
                self.asked.append((node.peer, peer, len(digests)))
                other = self.nodes[peer]
                lacking = [digest for digest in digests if int(digest) not in other.has]
                return MissingAnswered(page, peer, *other.claims.take(node.peer, lacking, self.now))
            case Send(page, peer, digests):
                if peer not in self.alive:
                    return Sent(page, peer, digests)
                versions = tuple(int(digest) for digest in digests)
                self.sent.append((node.peer, peer, versions))
                self.put(peer, versions)
                return Sent(page, peer, ())
            case Advanced(positions):
                node.saved = positions
                return None
