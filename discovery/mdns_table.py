"""mDNS table: which peers are on the local network, as their own answers say; answers come in, sightings go out.

An answer proves nothing: any host of the network can send any record. So a record belongs to the host that sent it
first, and while that host repeats it no other one can change it, take its peer, or end it. But a node may get another
address. So when another host says something else, all are asked at once, and when the first host does not answer, the
record passes on. Each host has a share of the records and of the messages. Who a peer is, its handshake proves.

A peer that says goodbye, or whose record was not repeated for its time to live, is lost. A record is repeated because
some node asks: this one asks again when a record is older than half of its time to live, and names those that are
fresh, so that their peers need not answer (RFC 6762, 'Known-Answer Suppression'). All nodes hear all answers.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from discovery.mdns_records import TTL_SECONDS, BadRecord, Fault, PeerRecord
from protocols.policy.token_bucket import TokenBucket

INSTANCES_MAX = 1_024
INSTANCES_PER_SENDER_MAX = 64
"""Many nodes of one machine have one sender."""
SENDERS_MAX = 1_024
"""Senders whose rate is remembered; without a place, the least recent one's is given away."""
MESSAGES_PER_SECOND = 50.0
MESSAGES_BURST = 500.0
REPORT_AGAIN_SECONDS = 30.0
"""How often an unchanged record is reported again."""
FRESH_SECONDS = 30.0
"""A record younger than this is named as known in a question."""
FIRST_QUESTIONS_AT = (0.0, 1.0, 3.0)
"""Seconds from the start, or from the last change of interfaces, until the first questions."""
ASK_AGAIN_SECONDS = 60.0
ASK_JITTER_SECONDS = 18.0
"""So that one node asks for all of them."""
ASK_PAUSE_SECONDS = 15.0
"""Between two questions for a record that nobody repeats, and between two series of those for contested records."""
ANSWER_SECONDS = 1.5
"""How long the host of a contested record has to repeat it: a responder that has sent the same one a moment ago waits a
second (RFC 6762, 6)."""


@dataclass(frozen=True, slots=True)
class Found:
    record: PeerRecord


@dataclass(frozen=True, slots=True)
class Gone:
    peer: str


Change = Found | Gone


@dataclass(slots=True, kw_only=True)
class _Instance:
    record: PeerRecord
    sender: str
    heard_at: float
    reported_at: float = -inf
    is_contested: bool = False
    """Another host says something else, and this one has not repeated it since."""
    asked_at: float = inf
    """When all were asked since it is contested."""


class MdnsTable:
    """`own` is this node's peer id, `chance` draws from [0, 1). Times in seconds. `faults` counts what was dropped."""

    def __init__(self, own: str, *, chance: Callable[[], float]) -> None:
        self.faults: Counter[Fault] = Counter()
        self._own = own
        self._chance = chance
        self._instances: dict[str, _Instance] = {}
        self._instance_of: dict[str, str] = {}
        """By peer."""
        self._instances_of: Counter[str] = Counter()
        """The number of instances of each sender."""
        self._rates: dict[str, TokenBucket] = {}
        """By sender, the least recent one first."""
        self._questions_at: list[float] = []
        self._asked_at = -inf
        self._contest_at = -inf
        """When a contested record was the reason of questions last."""
        self._jitter = chance() * ASK_JITTER_SECONDS

    def __len__(self) -> int:
        return len(self._instances)

    # -- answers ------------------------------------------------------------------------------------------------------

    def admit(self, sender: str, now: float) -> bool:
        """Whether one more message of this sender is read."""
        rate = self._rates.pop(sender, None) or TokenBucket(rate=MESSAGES_PER_SECOND, burst=MESSAGES_BURST, now=now)
        self._rates[sender] = rate
        if len(self._rates) > SENDERS_MAX:
            del self._rates[next(iter(self._rates))]
        if rate.take(1.0, now) > 0.0:
            rate.take(-1.0, now)  # what is not read is not charged: a sender that slows down is read again at once
            self.faults[Fault.SHARE] += 1
            return False
        return True

    def heard(self, name: str, record: PeerRecord, sender: str, now: float) -> Sequence[Change]:
        """An instance was heard. Raises `BadRecord` for one that is dropped."""
        known = self._instances.get(name)
        if record.peer == self._own:
            raise BadRecord(Fault.OWN_ID)
        if known is not None and known.sender != sender:
            if record != known.record:
                self._contest(known, now)
            elif now - known.heard_at < TTL_SECONDS / 2:
                return ()  # the same node by another of its interfaces
        other = self._instance_of.get(record.peer, name)
        if other != name and self._instances[other].sender != sender:
            self._contest(self._instances[other], now)
        if other == name and (known is None or known.sender != sender):
            self._check_room(sender, is_new=known is None)
        if other != name:
            self._remove(other)  # the peer has started again, with a new name
        if known is not None:
            self._remove(name)
        self._add(name, _Instance(record=record, sender=sender, heard_at=now))
        is_same = known is not None and known.record == record
        if known is not None and is_same and now - known.reported_at < REPORT_AGAIN_SECONDS:
            self._instances[name].reported_at = known.reported_at
            return ()
        self._instances[name].reported_at = now
        lost = (Gone(known.record.peer),) if known is not None and known.record.peer != record.peer else ()
        return (*lost, Found(record))

    def ended(self, name: str, sender: str) -> Sequence[Change]:
        """An instance said goodbye. Raises `BadRecord` when another host says it."""
        known = self._instances.get(name)
        if known is None:
            return ()
        if known.sender != sender:
            raise BadRecord(Fault.CLAIMED)
        return self._remove(name)

    def expire(self, now: float) -> Sequence[Change]:
        """Drop what was not repeated for its time to live."""
        old = [name for name, known in self._instances.items() if now - known.heard_at >= TTL_SECONDS]
        return [change for name in old for change in self._remove(name)]

    def unreported(self, peer: str) -> None:
        """A report was not taken: the next answer of this peer is reported again."""
        if name := self._instance_of.get(peer):
            self._instances[name].reported_at = -inf

    def _contest(self, known: _Instance, now: float) -> None:
        """Another host says something else. Raises `BadRecord` until the host of the record had time to repeat it."""
        if now - known.asked_at >= ANSWER_SECONDS:
            return
        known.is_contested = True
        if now - self._contest_at >= ASK_PAUSE_SECONDS:
            self._contest_at = now
            self.ask_soon(now)
        raise BadRecord(Fault.CLAIMED)

    def _check_room(self, sender: str, *, is_new: bool) -> None:
        if self._instances_of[sender] >= INSTANCES_PER_SENDER_MAX:
            raise BadRecord(Fault.SHARE)
        if is_new and len(self._instances) >= INSTANCES_MAX:
            raise BadRecord(Fault.FULL)

    def _add(self, name: str, instance: _Instance) -> None:
        self._instances[name] = instance
        self._instance_of[instance.record.peer] = name
        self._instances_of[instance.sender] += 1

    def _remove(self, name: str) -> Sequence[Change]:
        known = self._instances.pop(name)
        self._instance_of.pop(known.record.peer, None)
        self._instances_of[known.sender] -= 1
        if not self._instances_of[known.sender]:
            del self._instances_of[known.sender]
        return (Gone(known.record.peer),)

    # -- questions ----------------------------------------------------------------------------------------------------

    def ask_soon(self, now: float) -> None:
        """This node has started, or has another interface: ask at once, and again for what was lost."""
        self._questions_at = [now + after for after in FIRST_QUESTIONS_AT]

    def must_ask(self, now: float) -> bool:
        """Whether a question has to be sent now, and not as one of the usual ones."""
        return bool(self._questions_at) and self._questions_at[0] <= now

    @property
    def is_starting(self) -> bool:
        """Whether the next question is one of the first ones."""
        return bool(self._questions_at)

    def question_due(self) -> float:
        """When the next question is to be sent."""
        if self._questions_at:
            return self._questions_at[0]
        oldest = min((known.heard_at for known in self._instances.values()), default=self._asked_at)
        return max(oldest + ASK_AGAIN_SECONDS + self._jitter, self._asked_at + ASK_PAUSE_SECONDS)

    def asked(self, now: float) -> Sequence[tuple[str, float]]:
        """A question is sent now. Returns (name, seconds left to live) of those that need not answer."""
        self._questions_at = [at for at in self._questions_at if at > now]
        self._asked_at = now
        self._jitter = self._chance() * ASK_JITTER_SECONDS
        for known in self._instances.values():
            if known.is_contested:
                known.asked_at = min(known.asked_at, now)
        ages = [(name, now - known.heard_at) for name, known in self._instances.items() if not known.is_contested]
        return [(name, TTL_SECONDS - age) for name, age in ages if age < FRESH_SECONDS]
