"""The circuit breaker: it judges the swarm, not a peer (that is `failure_detector.py`).

While it is closed, calls go to the swarm. After `threshold` operations in a row that no peer answered it opens, and
calls are answered from this machine at once. It gives one permit, to a ping of its own, never to a user's call: first
after the backoff, doubled at each failure up to a cap, and at once on any sign of life. An answer closes it.

Each state has a generation, and an outcome names the one its operation began in: what comes late from an earlier
generation changes nothing (the idea is sony/gobreaker's). An outcome is one of three: succeeded, failed (no peer
answered; a refusal is an answer), abandoned (we were late or cancelled ourselves: says nothing of the swarm).

A person may force it open or closed. That lies over what it has learned, and changes nothing of it: beneath, it goes on
counting and probing, and when the force ends it is what it would have been.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from protocols.policy.backoff import backoff
from protocols.policy.machine import Tick


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """An operation of this generation was answered by at least one peer. `evidence` says who answered what."""

    generation: int
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """An operation of this generation was answered by no peer. `evidence` says what it was, `asked` names the peers."""

    generation: int
    evidence: str
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Abandoned:
    """An operation of this generation ended by our own doing."""

    generation: int


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """A frame came, a dial succeeded, a peer was sighted. `evidence` says which."""

    evidence: str


@dataclass(frozen=True, slots=True)
class Forced:
    """Somebody wants it open or closed, whatever it has learned, until `Released`. `why` names who and why."""

    state: BreakerState
    why: str


@dataclass(frozen=True, slots=True)
class Released:
    """It is to go by what it has learned again. `why` says what ended the force."""

    why: str


@dataclass(frozen=True, slots=True)
class Tuned:
    """Other limits from now on; what was counted stays. An opening that waits already waits as long as it was to."""

    threshold: int
    backoff_seconds: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Ping whoever may answer, and report the outcome under this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class Changed:
    """The state is another now, and this is why."""

    before: BreakerState
    after: BreakerState
    why: str


ASKED_NAMED_MAX = 8
"""So many of those who were asked in vain are named."""

Event = Succeeded | Failed | Abandoned | SignOfLife | Forced | Released | Tuned | Tick
Effect = Probe | Changed


class Breaker:
    """The machine. `chance` draws from [0, 1) for the jitter. `cap_seconds` is also the longest a probe may take."""

    def __init__(
        self, *, threshold: int, backoff_seconds: float, chance: Callable[[], float], cap_seconds: float = 10.0
    ) -> None:
        self.learned = BreakerState.CLOSED
        """What it is beneath a force."""
        self.generation = 0
        self.changed_at: float | None = None
        self._learned_why = "no operation has failed yet"
        self._forced: Forced | None = None
        self._threshold = threshold
        self._base = backoff_seconds
        self._cap = cap_seconds
        self._chance = chance
        self._failures = 0
        self._first_failure = 0.0
        self._asked: dict[str, None] = {}
        """Who was asked in vain since then."""
        self._openings = 0
        self._deadline: float | None = None

    @property
    def deadline(self) -> float | None:
        return self._deadline

    @property
    def state(self) -> BreakerState:
        return self._forced.state if self._forced else self.learned

    @property
    def why(self) -> str:
        """The evidence for its state, in words."""
        return self._forced.why if self._forced else self._learned_why

    @property
    def is_forced(self) -> bool:
        return self._forced is not None

    @property
    def is_closed(self) -> bool:
        """True: calls may go to the swarm."""
        return self.state is BreakerState.CLOSED

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Succeeded(generation, evidence) if generation == self.generation:
                return self._succeeded(evidence, now)
            case Failed(generation) if generation == self.generation and self.learned is not BreakerState.OPEN:
                return self._failed(event, now)
            case Abandoned(generation) if generation == self.generation and self.learned is BreakerState.HALF_OPEN:
                return self._open("the probe was abandoned", now)
            case SignOfLife(evidence) if self.learned is BreakerState.OPEN:
                return self._half_open(f"a sign of life: {evidence}", now)
            case Tick() if self._deadline is not None and now >= self._deadline:
                if self.learned is BreakerState.HALF_OPEN:
                    return self._open("the probe had no outcome", now)
                return self._half_open("the backoff is over", now)
            case Forced():
                return self._force(event, event.why, now)
            case Released(why) if self._forced:
                return self._force(None, f"{why}; before that: {self._learned_why}", now)
            case Tuned(threshold, backoff_seconds):
                self._threshold, self._base = threshold, backoff_seconds
                return ()
            case _:
                return ()

    def _succeeded(self, evidence: str, now: float) -> Sequence[Effect]:
        self._failures = 0
        if self.learned is BreakerState.CLOSED:
            return ()
        return self._become(BreakerState.CLOSED, evidence or "the swarm answered a ping", now)

    def _failed(self, event: Failed, now: float) -> Sequence[Effect]:
        if self.learned is BreakerState.HALF_OPEN:
            self._openings += 1
            return self._open(_told((event.evidence, _named(event.asked))), now)
        if self._failures == 0:
            self._first_failure = now
            self._asked.clear()
        self._failures += 1
        self._asked.update(dict.fromkeys(event.asked))
        if self._failures < self._threshold:
            return ()
        self._openings = 1
        passed = now - self._first_failure
        counted = f"{self._failures} operations unanswered in {passed:.1f} s"
        return self._open(_told((counted, _named(tuple(self._asked)), event.evidence)), now)

    def _open(self, why: str, now: float) -> Sequence[Effect]:
        wait = backoff(self._openings, base=self._base, cap=self._cap, chance=self._chance())
        effects = self._become(BreakerState.OPEN, why, now)
        self._deadline = now + wait
        return effects

    def _half_open(self, why: str, now: float) -> Sequence[Effect]:
        effects = self._become(BreakerState.HALF_OPEN, why, now)
        self._deadline = now + self._cap
        return (*effects, Probe(self.generation))

    def _become(self, state: BreakerState, why: str, now: float) -> Sequence[Effect]:
        before, self.learned = self.learned, state
        self.generation += 1
        self._learned_why = why
        self._failures = 0
        self._deadline = None
        if self._forced:
            return ()
        self.changed_at = now
        return (Changed(before, state, why),)

    def _force(self, forced: Forced | None, why: str, now: float) -> Sequence[Effect]:
        before, self._forced = self.state, forced
        if self.state is before:
            return ()
        self.changed_at = now
        return (Changed(before, self.state, why),)


def _named(asked: Sequence[str]) -> str:
    if not asked:
        return ""
    more = f" and {len(asked) - ASKED_NAMED_MAX} more" if len(asked) > ASKED_NAMED_MAX else ""
    return f"asked {', '.join(asked[:ASKED_NAMED_MAX])}{more}"


def _told(parts: Sequence[str]) -> str:
    return "; ".join(part for part in parts if part)
