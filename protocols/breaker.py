"""The circuit breaker: it judges the swarm, not a peer (that is `liveness.py`).

While it is closed, calls go to the swarm. After `threshold` operations in a row that no peer answered it opens, and
calls are answered from this machine at once. It gives one permit, to a ping of its own, never to a user's call: first
after the backoff, doubled at each failure up to a cap, and at once on any sign of life. An answer closes it.

Each state has a generation, and an outcome names the one its operation began in: what comes late from an earlier
generation changes nothing (the idea is sony/gobreaker's). An outcome is one of three: succeeded, failed (no peer
answered; a refusal is an answer), abandoned (we were late or cancelled ourselves: says nothing of the swarm).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from protocols.machine import Tick
from protocols.retry import backoff


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """An operation of this generation was answered by at least one peer."""

    generation: int


@dataclass(frozen=True, slots=True)
class Failed:
    """An operation of this generation was answered by no peer. `evidence` says who was asked."""

    generation: int
    evidence: str


@dataclass(frozen=True, slots=True)
class Abandoned:
    """An operation of this generation ended by our own doing."""

    generation: int


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """A frame came, a dial succeeded, a peer was sighted. `evidence` says which."""

    evidence: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Ping whoever may answer, and report the outcome under this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class Changed:
    """The state is another now, and this is why."""

    before: State
    after: State
    why: str


Event = Succeeded | Failed | Abandoned | SignOfLife | Tick
Effect = Probe | Changed


class Breaker:
    """The machine. `chance` draws from [0, 1) for the jitter. `cap_seconds` is also the longest a probe may take."""

    def __init__(
        self, *, threshold: int, backoff_seconds: float, chance: Callable[[], float], cap_seconds: float = 10.0
    ) -> None:
        self.state = State.CLOSED
        self.generation = 0
        self.why = "no operation has failed yet"
        self.changed_at: float | None = None
        self._threshold = threshold
        self._base = backoff_seconds
        self._cap = cap_seconds
        self._chance = chance
        self._failures = 0
        self._first_failure = 0.0
        self._openings = 0
        self._deadline: float | None = None

    @property
    def deadline(self) -> float | None:
        return self._deadline

    @property
    def is_closed(self) -> bool:
        """True: calls may go to the swarm."""
        return self.state is State.CLOSED

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Succeeded(generation) if generation == self.generation:
                return self._succeeded(now)
            case Failed(generation, evidence) if generation == self.generation and self.state is not State.OPEN:
                return self._failed(evidence, now)
            case Abandoned(generation) if generation == self.generation and self.state is State.HALF_OPEN:
                return self._open("the probe was abandoned", now)
            case SignOfLife(evidence) if self.state is State.OPEN:
                return self._half_open(f"a sign of life: {evidence}", now)
            case Tick() if self._deadline is not None and now >= self._deadline:
                if self.state is State.HALF_OPEN:
                    return self._open("the probe had no outcome", now)
                return self._half_open("the backoff is over", now)
            case _:
                return ()

    def _succeeded(self, now: float) -> Sequence[Effect]:
        self._failures = 0
        if self.state is State.CLOSED:
            return ()
        return self._become(State.CLOSED, "the swarm answered a ping", now)

    def _failed(self, evidence: str, now: float) -> Sequence[Effect]:
        if self.state is State.HALF_OPEN:
            self._openings += 1
            return self._open(evidence, now)
        if self._failures == 0:
            self._first_failure = now
        self._failures += 1
        if self._failures < self._threshold:
            return ()
        self._openings = 1
        passed = now - self._first_failure
        return self._open(f"{self._failures} operations unanswered in {passed:.1f} s; {evidence}", now)

    def _open(self, why: str, now: float) -> Sequence[Effect]:
        wait = backoff(self._openings, base=self._base, cap=self._cap, chance=self._chance())
        effects = self._become(State.OPEN, why, now)
        self._deadline = now + wait
        return effects

    def _half_open(self, why: str, now: float) -> Sequence[Effect]:
        effects = self._become(State.HALF_OPEN, why, now)
        self._deadline = now + self._cap
        return (*effects, Probe(self.generation))

    def _become(self, state: State, why: str, now: float) -> Sequence[Effect]:
        before, self.state = self.state, state
        self.generation += 1
        self.why = why
        self.changed_at = now
        self._failures = 0
        self._deadline = None
        return (Changed(before, state, why),)
