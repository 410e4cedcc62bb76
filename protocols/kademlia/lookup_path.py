"""A path of a lookup: the peers that it may ask, the nearest to the place first.

A lookup has one path or several disjoint ones (Baumgart and Mies, "S/Kademlia", 2007). A peer is asked once in all, and
what it answers is known to the path that asked it, and to no other: so a peer that lies misleads one path.
"""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from math import inf

from protocols.kademlia.contact import Contact
from protocols.kademlia.messages import ADDRESSES_MAX

ADDRESSES_NAMED_MAX = 8
"""Addresses of a candidate that are taken from one peer's answer."""
NAMERS_MAX = 8
"""Peers that named a candidate and are remembered with it."""
DISCREDITED_AFTER = 5
"""A peer is discredited when so many peers that it named have failed, and none has answered."""
ASKED_AGAIN_MAX = 2
"""How often a peer that failed is asked again because another address of it became known."""


class State(Enum):
    UNASKED = auto()
    ASKED = auto()
    SLOW = auto()
    """It was asked, and another one is asked in its place; its answer still counts."""
    ANSWERED = auto()
    FAILED = auto()


@dataclass(slots=True, eq=False)
class Candidate:
    """A peer that a lookup knows. Times in seconds."""

    contact: Contact
    distance: int
    """The XOR of its place and the place that is looked up."""
    hop: int
    """The number of answers that led to it, and one."""
    namers: "list[Candidate]" = field(default_factory=list)
    """Peers that named it; none for an own contact of this node."""
    state: State = State.UNASKED
    slow_at: float = inf
    fails_at: float = inf
    asked_again: int = 0
    is_liar: bool = False
    named_answered: int = 0
    """How many of the peers that it named have answered."""
    named_failed: int = 0

    @property
    def due_at(self) -> float:
        """When time changes its state."""
        return self.slow_at if self.state is State.ASKED else self.fails_at if self.state is State.SLOW else inf

    @property
    def is_discredited(self) -> bool:
        return not self.named_answered and self.named_failed >= DISCREDITED_AFTER

    @property
    def is_doubtful(self) -> bool:
        """Only discredited peers named it, and it has not answered: it may not exist."""
        if not self.namers or self.state is State.ANSWERED:
            return False
        return all(namer.is_discredited for namer in self.namers)

    def answered(self) -> None:
        self.state = State.ANSWERED
        for namer in self.namers:
            namer.named_answered += 1

    def failed(self) -> None:
        """It did not answer, or lied. A liar is there, so that the peer that named it loses no credit."""
        self.state = State.FAILED
        for namer in self.namers:
            namer.named_failed += not self.is_liar

    def named_by(self, namer: "Candidate", contact: Contact) -> None:
        """Another peer names it too. New addresses are a reason to ask it again where it failed."""
        if self.namers and len(self.namers) < NAMERS_MAX:
            self.namers.append(namer)
        known = self.contact.addresses
        new = [address for address in contact.addresses[:ADDRESSES_NAMED_MAX] if address not in known]
        new = new[: max(0, ADDRESSES_MAX - len(known))]
        if new:
            self.contact = Contact(self.contact.peer, (*known, *new))
            if self.state is State.FAILED and not self.is_liar and self.asked_again < ASKED_AGAIN_MAX:
                self.asked_again += 1
                self.state = State.UNASKED


class Path:
    """At most `candidates_max` peers, the farthest of which make room; `k` of them are looked at at one time."""

    def __init__(self, *, k: int, candidates_max: int, requests_max: int) -> None:
        self._k = k
        self._candidates_max = candidates_max
        self._known: list[Candidate] = []
        self._peers: dict[str, None] = {}
        self._requests_left = requests_max
        self.under_way: dict[str, Candidate] = {}
        """Those that this path asked, and that have not answered or failed yet."""

    def add(self, candidate: Candidate) -> None:
        peer = candidate.contact.peer
        if peer not in self._peers:
            self._peers[peer] = None
            insort(self._known, candidate, key=lambda each: each.distance)
            if len(self._known) > self._candidates_max:
                del self._peers[self._known.pop().contact.peer]

    def next(self, alpha: int) -> Candidate | None:
        """The peer to ask now: the nearest one, among the k nearest, that was not asked; None at `alpha` requests."""
        if not self._requests_left or sum(each.state is State.ASKED for each in self.under_way.values()) >= alpha:
            return None
        hopeful = (each for each in self._hopeful() if each.state is not State.SLOW)
        return next((each for each in islice(hopeful, self._k) if each.state is State.UNASKED), None)

    def ask(self, candidate: Candidate, *, slow_at: float, fails_at: float) -> None:
        """The peer is asked now."""
        candidate.state, candidate.slow_at, candidate.fails_at = State.ASKED, slow_at, fails_at
        self.under_way[candidate.contact.peer] = candidate
        self._requests_left -= 1

    def is_settled(self) -> bool:
        """Whether the k nearest peers that may exist and have not failed have all answered."""
        return all(each.state is State.ANSWERED for each in islice(self._hopeful(), self._k))

    def nearest(self) -> list[Candidate]:
        """The k nearest peers that may exist, whatever became of them."""
        return list(islice((each for each in self._known if not each.is_doubtful), self._k))

    def _hopeful(self) -> Iterator[Candidate]:
        return (each for each in self._known if each.state is not State.FAILED and not each.is_doubtful)
