"""mDNS table: which peers are on the local network, as their own answers say; answers come in, sightings go out.

An answer proves nothing: any host of the network can send any record. So what each host says of a peer is kept beside
what others say of it, and the addresses of all are reported: they are dialled, and a handshake proves where the peer
is. No host can take away what another one says. But a node may get another address. So when hosts say different
things of a peer, all are asked at once, and the record of one that does not repeat it while another one does is
dropped. Each host has a share of the records and of the messages.

A peer that says goodbye, or whose records were not repeated for their time to live, is lost. A record is repeated
because some node asks: this one asks again when a record is older than half of its time to live. All nodes hear all
answers. A node that starts asks three times, and names what it has heard, so that those peers need not answer again
(RFC 6762, 'Known-Answer Suppression'); later it names none, because a host that lies would silence the peer it lies
about.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import inf

from discovery.mdns_records import ADDRESSES_MAX, TTL_SECONDS, BadRecord, PeerRecord, RecordFault
from protocols.policy.token_bucket import TokenBucket

RECORDS_MAX = 1_024
RECORDS_PER_SENDER_MAX = 64
"""Many nodes of one machine have one sender."""
RECORDS_PER_PEER_MAX = 4
"""Hosts that each say something else of one peer; a further one takes the place of the one that was silent longest."""
SENDERS_MAX = 1_024
"""Senders whose rate is remembered; without a place, the least recent one's is given away."""
MESSAGES_PER_SECOND = 50.0
MESSAGES_BURST = 500.0
REPORT_AGAIN_SECONDS = 30.0
"""How often an unchanged record is reported again."""
FRESH_SECONDS = 30.0
"""A record younger than this is named as known in the first questions."""
FIRST_QUESTIONS_AT = (0.0, 1.0, 3.0)
"""Seconds from the start, or from the last change of interfaces, until the first questions."""
ASK_AGAIN_SECONDS = 120.0
ASK_ALONE_SECONDS = 60.0
"""How often a node asks that has heard of no other one."""
ASK_JITTER_SECONDS = 24.0
"""So that one node asks for all of them."""
ASK_PAUSE_SECONDS = 15.0
"""Between two questions for a record that nobody repeats, and between two series of those for disputed peers."""
ANSWER_SECONDS = 1.5
"""How long the host of a disputed record has to repeat it: a responder that has sent the same one a moment ago waits a
second (RFC 6762, 6)."""


@dataclass(frozen=True, slots=True)
class Found:
    record: PeerRecord


@dataclass(frozen=True, slots=True)
class Gone:
    peer: str


Change = Found | Gone


@dataclass(slots=True, kw_only=True)
class _HeardRecord:
    """What one sender says under one name."""

    said: PeerRecord
    heard_at: float
    asked_at: float = inf
    """When all were asked since it was heard, and other hosts say something else."""


_Key = tuple[str, str]
"""The name and the sender of a record."""


class MdnsTable:
    """`own` is this node's peer id, `chance` draws from [0, 1). Times in seconds. `faults` counts what was dropped."""

    def __init__(self, own: str, *, chance: Callable[[], float]) -> None:
        self.faults: Counter[RecordFault] = Counter()
        self._own = own
        self._chance = chance
        self._records: dict[_Key, _HeardRecord] = {}
        self._of_peer: dict[str, dict[_Key, None]] = {}
        """By peer, those that name it, in the order in which they came."""
        self._of_sender: Counter[str] = Counter()
        """The number of records of each sender."""
        self._reported: dict[str, tuple[PeerRecord, float]] = {}
        """By peer, what was reported of it last, and when."""
        self._rates: dict[str, TokenBucket] = {}
        """By sender, the least recent one first."""
        self._questions_at: list[float] = []
        self._asked_at = -inf
        self._disputed_at = -inf
        """When a disputed peer was the reason of questions last."""
        self._jitter = chance() * ASK_JITTER_SECONDS

    def __len__(self) -> int:
        return len(self._records)

    # -- answers ------------------------------------------------------------------------------------------------------

    def admit(self, sender: str, now: float) -> bool:
        """Whether one more message of this sender is read."""
        rate = self._rates.pop(sender, None) or TokenBucket(rate=MESSAGES_PER_SECOND, burst=MESSAGES_BURST, now=now)
        self._rates[sender] = rate
        if len(self._rates) > SENDERS_MAX:
            del self._rates[next(iter(self._rates))]
        if rate.take(1.0, now) > 0.0:
            rate.take(-1.0, now)  # what is not read is not charged: a sender that slows down is read again at once
            self.faults[RecordFault.SHARE] += 1
            return False
        return True

    def heard(self, name: str, said: PeerRecord, sender: str, now: float) -> Sequence[Change]:
        """A record was heard. Raises `BadRecord` for one that is dropped."""
        if said.peer == self._own:
            raise BadRecord(RecordFault.OWN_ID)
        key, replaced = (name, sender), self._replaced(name, said, sender)
        if any(key[1] != sender and now - self._records[key].heard_at < TTL_SECONDS / 2 for key in replaced):
            return ()  # the same node by another of its interfaces
        self._check_room(sender, replaced)
        before = [self._records[each].said.peer for each in replaced]
        if replaced == [key] and before == [said.peer]:
            self._records[key] = _HeardRecord(
                said=said, heard_at=now
            )  # in its place, so that the report stays the same
            return self._report(said.peer, now)
        for each in replaced:
            self._remove(each)
        self._records[key] = _HeardRecord(said=said, heard_at=now)
        self._of_peer.setdefault(said.peer, {})[key] = None
        self._of_sender[sender] += 1
        self._bound(said.peer)
        if len(self._of_peer[said.peer]) > 1 and now - self._disputed_at >= ASK_PAUSE_SECONDS:
            self._disputed_at = now
            self.ask_soon(now)
        peers = dict.fromkeys((*before, said.peer))
        return tuple(change for peer in peers for change in self._report(peer, now))

    def _replaced(self, name: str, said: PeerRecord, sender: str) -> list[_Key]:
        """The records that a new one takes the place of."""
        if (name, sender) in self._records:
            return [(name, sender)]
        of_peer = self._of_peer.get(said.peer, ())
        if restarted := [key for key in of_peer if key[1] == sender]:
            return restarted  # the peer has started again, with a new name
        return [key for key in of_peer if key[0] == name and self._records[key].said == said]

    def ended(self, name: str, sender: str, now: float) -> Sequence[Change]:
        """An instance said goodbye. Raises `BadRecord` when another host says it."""
        known = self._records.get((name, sender))
        if known is None:
            if any(key[0] == name for key in self._records):
                raise BadRecord(RecordFault.CLAIMED)
            return ()
        self._remove((name, sender))
        return self._report(known.said.peer, now)

    def expire(self, now: float) -> Sequence[Change]:
        """Drop what was not repeated for its time to live, or when all were asked and another host answered."""
        old = {key: known.said.peer for key, known in self._records.items() if self._is_over(known, now)}
        for key in old:
            self._remove(key)
        return tuple(change for peer in dict.fromkeys(old.values()) for change in self._report(peer, now))

    def _is_over(self, known: _HeardRecord, now: float) -> bool:
        if now - known.asked_at >= ANSWER_SECONDS:
            return any(self._records[key].heard_at > known.asked_at for key in self._of_peer[known.said.peer])
        return now - known.heard_at >= TTL_SECONDS

    def unreported(self, peer: str) -> None:
        """A report was not taken: the next answer of this peer is reported again."""
        self._reported.pop(peer, None)

    def _report(self, peer: str, now: float) -> Sequence[Change]:
        """What is to be reported of a peer, whose records may be others now."""
        keys = self._of_peer.get(peer)
        if not keys:
            self._reported.pop(peer, None)
            return (Gone(peer),)
        merged = PeerRecord(peer=peer, addresses=_merged([self._records[key].said.addresses for key in keys]))
        record, at = self._reported.get(peer, (None, -inf))
        if record == merged and now - at < REPORT_AGAIN_SECONDS:
            return ()
        self._reported[peer] = merged, now
        return (Found(merged),)

    def _check_room(self, sender: str, replaced: Sequence[_Key]) -> None:
        if self._of_sender[sender] - sum(key[1] == sender for key in replaced) >= RECORDS_PER_SENDER_MAX:
            raise BadRecord(RecordFault.SHARE)
        if len(self._records) - len(replaced) >= RECORDS_MAX:
            raise BadRecord(RecordFault.FULL)

    def _bound(self, peer: str) -> None:
        keys = self._of_peer[peer]
        if len(keys) > RECORDS_PER_PEER_MAX:
            self.faults[RecordFault.CLAIMED] += 1
            self._remove(min(keys, key=lambda key: self._records[key].heard_at))

    def _remove(self, key: _Key) -> None:
        peer, sender = self._records.pop(key).said.peer, key[1]
        del self._of_peer[peer][key]
        if not self._of_peer[peer]:
            del self._of_peer[peer]
        self._of_sender[sender] -= 1
        if not self._of_sender[sender]:
            del self._of_sender[sender]

    # -- questions ----------------------------------------------------------------------------------------------------

    def ask_soon(self, now: float) -> None:
        """This node has started, or has another interface: ask at once, and again for what was lost."""
        self._questions_at = [now + after for after in FIRST_QUESTIONS_AT]

    @property
    def is_starting(self) -> bool:
        """Whether the next question is one of the first ones."""
        return bool(self._questions_at)

    def question_due(self) -> float:
        """When the next question is to be sent."""
        if self._questions_at:
            return self._questions_at[0]
        if not self._records:
            return self._asked_at + ASK_ALONE_SECONDS + self._jitter
        oldest = min(known.heard_at for known in self._records.values())
        return max(oldest + ASK_AGAIN_SECONDS + self._jitter, self._asked_at + ASK_PAUSE_SECONDS)

    def asked(self, now: float) -> Sequence[tuple[str, float]]:
        """A question is sent now. Returns (name, seconds left to live) of those that need not answer."""
        named = self._fresh(now) if self._questions_at else []
        for keys in self._of_peer.values():
            for key in keys if len(keys) > 1 else ():
                self._records[key].asked_at = min(self._records[key].asked_at, now)
        self._questions_at = [at for at in self._questions_at if at > now]
        self._asked_at = now
        self._jitter = self._chance() * ASK_JITTER_SECONDS
        return named

    def _fresh(self, now: float) -> list[tuple[str, float]]:
        """The names whose peers were heard a moment ago, but for peers of which several hosts speak."""
        undisputed = [(key[0], self._records[key]) for keys in self._of_peer.values() if len(keys) == 1 for key in keys]
        ages = [(name, now - known.heard_at) for name, known in undisputed]
        return [(name, TTL_SECONDS - age) for name, age in ages if age < FRESH_SECONDS]


def _merged(claims: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The addresses of all claims: the first of each, then the second of each, so that none crowds out another one."""
    rounds = zip_longest(*claims)
    return tuple(dict.fromkeys(address for row in rounds for address in row if address is not None))[:ADDRESSES_MAX]
