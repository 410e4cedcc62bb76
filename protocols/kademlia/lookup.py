"""A lookup: asks peers that are nearer and nearer to a place, until its purpose is met or the nearest have answered.

Sources: Maymounkov and Mazieres, "Kademlia" (2002), section 2.3; the libp2p kad-dht specification; Baumgart and Mies,
"S/Kademlia" (2007), for disjoint paths. `alpha` requests are under way. One that is slow does not hold a place: another
peer is asked, and the slow answer still counts until its deadline. The lookup has settled when the k nearest peers that
have not failed have answered; then the farther ones cannot know better.

Whatever peers answer, a lookup ends: it sends at most `requests_max` requests and takes at most `seconds_max`. An
answer makes at most k candidates. When the first few peers that a peer named have all failed, the others that it alone
named are not asked: a peer that makes up peers costs a few requests. Liars that name each other can only be passed by
on a disjoint path, which has a share of the requests.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from math import inf
from typing import Generic

from protocols.errors import InvalidPayload
from protocols.kademlia.contact import Contact
from protocols.kademlia.lookup_events import (
    Ended,
    Found,
    LookupOutcome,
    ReplyReceived,
    RequestFailed,
    Result,
    SendRequest,
)
from protocols.kademlia.lookup_path import ADDRESSES_NAMED_MAX, Candidate, Path, State
from protocols.kademlia.lookup_purposes import Purpose
from protocols.kademlia.messages import CONTACTS_MAX
from protocols.placement import place_of_peer
from protocols.policy.machine import Tick


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupOptions:
    """Sizes and times (seconds) of a lookup."""

    k: int = CONTACTS_MAX
    alpha: int = 3
    """Requests under way on each path, those that are slow not counted."""
    paths: int = 1
    """Disjoint paths."""
    slow_seconds: float = 0.25
    """After so long another peer is asked as well."""
    request_seconds: float = 2.0
    """After so long a request has failed."""
    seconds_max: float = 10.0
    requests_max: int = 100
    """Requests of all paths, each of which has the same share."""
    candidates_max: int = 200
    """Peers that a path remembers, the nearest ones."""


class Lookup(Generic[Found]):
    """The machine; it waits for its first `Tick`, at once. `seeds` are the contacts that this node knows nearest to the
    place. An answer that comes after its request has failed, or that nobody asked for, is ignored."""

    def __init__(
        self,
        place: int,
        seeds: Iterable[Contact],
        purpose: Purpose[Found],
        *,
        own: str,
        now: float,
        place_of: Callable[[str], int] = place_of_peer,
        options: LookupOptions | None = None,
    ) -> None:
        options = options or LookupOptions()
        self.place = place
        self.purpose = purpose
        self._own = own
        self._place_of = place_of
        self._options = options
        self._began_at = now
        self._deadline: float | None = now
        self._candidates: dict[str, Candidate] = {}
        self._requests = 0
        self._last_answer: Candidate | None = None
        self._paths = [
            Path(
                k=options.k,
                candidates_max=options.candidates_max,
                requests_max=max(1, options.requests_max // options.paths),
            )
            for _ in range(options.paths)
        ]
        own_contacts = [self._candidate(contact, None) for contact in seeds]
        by_distance = sorted((each for each in own_contacts if each), key=lambda each: each.distance)
        for number, candidate in enumerate(by_distance):
            self._paths[number % options.paths].add(candidate)

    @property
    def deadline(self) -> float | None:
        return self._deadline

    def contact(self, peer: str) -> Contact | None:
        """What peers said of a peer, whether it answered or not; None when none named it."""
        candidate = self._candidates.get(peer)
        return None if candidate is None else candidate.contact

    def handle(self, event: ReplyReceived[Found] | RequestFailed | Tick, now: float) -> Sequence[SendRequest | Ended]:
        if self._deadline is None:
            return ()
        match event:
            case ReplyReceived(peer) if path := self._path_of(peer):
                self._replied(path.under_way.pop(peer), path, event)
            case RequestFailed(peer, is_lie) if path := self._path_of(peer):
                self._failed(path.under_way.pop(peer), is_lie=is_lie)
            case Tick() if now >= self._deadline:
                self._pass_time(now)
            case _:
                return ()
        return self._advance(now)

    # -- what peers answer ------------------------------------------------------------------------------------

    def _path_of(self, peer: str) -> Path | None:
        """The path on which a request to this peer is under way."""
        return next((path for path in self._paths if peer in path.under_way), None)

    def _replied(self, candidate: Candidate, path: Path, reply: ReplyReceived[Found]) -> None:
        if not self.purpose.take(reply.peer, reply.found):
            self._failed(candidate, is_lie=True)
            return
        candidate.answered()
        self._last_answer = candidate
        for contact in islice(reply.closer, self._options.k):
            if named := self._candidate(contact, candidate):
                path.add(named)

    def _failed(self, candidate: Candidate, *, is_lie: bool = False) -> None:
        candidate.is_liar = is_lie
        candidate.failed()

    def _candidate(self, contact: Contact, namer: Candidate | None) -> Candidate | None:
        """The candidate of a contact, a new one if need be. None for this node, its namer, and what is no peer id."""
        peer = contact.peer
        if peer == self._own or (namer is not None and peer == namer.contact.peer):
            return None
        if known := self._candidates.get(peer):
            if namer is not None:
                known.named_by(namer, contact)
            return known
        try:
            distance = self._place_of(peer) ^ self.place
        except InvalidPayload:
            return None
        if len(contact.addresses) > ADDRESSES_NAMED_MAX:
            contact = Contact(peer, contact.addresses[:ADDRESSES_NAMED_MAX])
        hop, namers = (1, []) if namer is None else (namer.hop + 1, [namer])
        candidate = self._candidates[peer] = Candidate(contact, distance, hop, namers)
        return candidate

    # -- what is asked ----------------------------------------------------------------------------------------

    def _pass_time(self, now: float) -> None:
        for path in self._paths:
            for peer, candidate in list(path.under_way.items()):
                if now >= candidate.fails_at:
                    self._failed(path.under_way.pop(peer))
                elif now >= candidate.slow_at:
                    candidate.state = State.SLOW

    def _advance(self, now: float) -> Sequence[SendRequest | Ended]:
        if self.purpose.is_met:
            return self._end(LookupOutcome.MET, now)
        options = self._options
        if now >= self._began_at + options.seconds_max:
            return self._end(self._judge(), now)
        effects: list[SendRequest | Ended] = []
        for path in self._paths:
            while candidate := path.next(options.alpha):
                path.ask(candidate, slow_at=now + options.slow_seconds, fails_at=now + options.request_seconds)
                self._requests += 1
                effects.append(SendRequest(candidate.contact))
        if all(path.is_settled() for path in self._paths) or not any(path.under_way for path in self._paths):
            return self._end(self._judge(), now)
        due = min((each.due_at for path in self._paths for each in path.under_way.values()), default=inf)
        self._deadline = min(due, self._began_at + options.seconds_max)
        return effects

    def _judge(self) -> LookupOutcome:
        """Whether a majority of the nearest peers that are known has answered, and each of them was asked."""
        nearest = self._nearest(each for path in self._paths for each in path.nearest())
        answered = sum(each.state is State.ANSWERED for each in nearest)
        if any(each.state is State.UNASKED for each in nearest) or 2 * answered <= len(nearest):
            return LookupOutcome.UNSETTLED
        return LookupOutcome.SETTLED

    def _nearest(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        by_peer = {each.contact.peer: each for each in candidates}
        return nsmallest(self._options.k, by_peer.values(), key=lambda each: each.distance)

    def _end(self, outcome: LookupOutcome, now: float) -> Sequence[Ended]:
        self._deadline = None
        by_distance = sorted(self._candidates.values(), key=lambda each: each.distance)
        answered = [each for each in by_distance if each.state is State.ANSWERED]
        failed = [each for each in by_distance if each.state is State.FAILED]
        closest = answered[: self._options.k]
        led = [self._last_answer] if outcome is LookupOutcome.MET and self._last_answer else closest
        result = Result(
            outcome=outcome,
            closest=tuple(each.contact for each in closest),
            answered=tuple(each.contact.peer for each in answered),
            failed=tuple(each.contact.peer for each in failed if not each.is_liar),
            lied=tuple(each.contact.peer for each in failed if each.is_liar),
            pending=tuple(each.contact.peer for each in by_distance if each.state in (State.ASKED, State.SLOW)),
            requests=self._requests,
            hops=max((each.hop for each in led), default=0),
            seconds=now - self._began_at,
        )
        return (Ended(result),)
