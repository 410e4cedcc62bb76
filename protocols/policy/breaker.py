"""Circuit breaker: decides whether calls go to the swarm. It judges the swarm; `failure_detector.py` judges a peer.

While the breaker is closed, calls go to the swarm. It opens after `threshold` operations in a row that no peer
answered; calls are then answered from this machine at once. When half-open it gives one permit, to a ping of its own,
never to a user's call: after a backoff that doubles at each failure up to a cap, and at once on any sign of life. An
answer closes the breaker.

Each state has a generation, and an outcome names the generation in which its operation began: a late outcome of an
earlier generation changes nothing (the idea is from sony/gobreaker). There are three outcomes: succeeded, failed (no
peer answered; a refusal is an answer) and abandoned (this node was late or cancelled the operation, which says nothing
about the swarm).

An operator may force the breaker open or closed. The force hides the learned state and does not change it: the breaker
goes on counting and probing, and when the force ends, the learned state is in force.
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
    """At least one peer answered an operation of this generation. `evidence` says which peer, and how."""

    generation: int
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """No peer answered an operation of this generation. `evidence` describes it, `asked` names the peers."""

    generation: int
    evidence: str
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Abandoned:
    """This node ended an operation of this generation itself."""

    generation: int


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """A frame came, a dial succeeded or a peer was sighted. `evidence` says which."""

    evidence: str


@dataclass(frozen=True, slots=True)
class Forced:
    """An operator forces a state until `Released`. `why` names the author and the reason."""

    state: BreakerState
    why: str


@dataclass(frozen=True, slots=True)
class Released:
    """The learned state is in force again. `why` says what ended the force."""

    why: str


@dataclass(frozen=True, slots=True)
class Tuned:
    """New limits from now on. The counts stay, and a backoff that runs already keeps its length."""

    threshold: int
    backoff_seconds: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Ping the peers that may answer, and report the outcome under this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class Changed:
    """The state in force changed, and the reason."""

    before: BreakerState
    after: BreakerState
    why: str


ASKED_NAMED_MAX = 8
"""The most peers that a reason names."""

Event = Succeeded | Failed | Abandoned | SignOfLife | Forced | Released | Tuned | Tick
Effect = Probe | Changed


class Breaker:
    """The machine. `chance` draws from [0, 1) for the jitter. `cap_seconds` also bounds the time of a probe."""

    def __init__(
        self, *, threshold: int, backoff_seconds: float, chance: Callable[[], float], cap_seconds: float = 10.0
    ) -> None:
        self.learned = BreakerState.CLOSED
        """The state without a force."""
        self.generation = 0
        self._learned_why = "no operation has failed yet"
        self._forced: Forced | None = None
        self._threshold = threshold
        self._base = backoff_seconds
        self._cap = cap_seconds
        self._chance = chance
        self._failures = 0
        self._first_failure = 0.0
        self._asked: dict[str, None] = {}
        """The peers that were asked without an answer since the first failure."""
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
        """The reason for the state in force, in words."""
        return self._forced.why if self._forced else self._learned_why

    @property
    def is_forced(self) -> bool:
        return self._forced is not None

    @property
    def is_closed(self) -> bool:
        """Whether calls may go to the swarm."""
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
                return self._force(event, event.why)
            case Released(why) if self._forced:
                return self._force(None, f"{why}; before that: {self._learned_why}")
            case Tuned(threshold, backoff_seconds):
                self._threshold, self._base = threshold, backoff_seconds
                return ()
            case _:
                return ()

    def _succeeded(self, evidence: str, now: float) -> Sequence[Effect]:
        self._failures = 0
        if self.learned is BreakerState.CLOSED:
            return ()
        return self._become(BreakerState.CLOSED, evidence or "the swarm answered a ping")

    def _failed(self, event: Failed, now: float) -> Sequence[Effect]:
        if self.learned is BreakerState.HALF_OPEN:
            self._openings += 1
            return self._open(_joined((event.evidence, _named(event.asked))), now)
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
        return self._open(_joined((counted, _named(tuple(self._asked)), event.evidence)), now)

    def _open(self, why: str, now: float) -> Sequence[Effect]:
        wait = backoff(self._openings, base=self._base, cap=self._cap, chance=self._chance())
        effects = self._become(BreakerState.OPEN, why)
        self._deadline = now + wait
        return effects

    def _half_open(self, why: str, now: float) -> Sequence[Effect]:
        effects = self._become(BreakerState.HALF_OPEN, why)
        self._deadline = now + self._cap
        return (*effects, Probe(self.generation))

    def _become(self, state: BreakerState, why: str) -> Sequence[Effect]:
        before, self.learned = self.learned, state
        self.generation += 1
        self._learned_why = why
        self._failures = 0
        self._deadline = None
        if self._forced:
            return ()
        return (Changed(before, state, why),)

    def _force(self, forced: Forced | None, why: str) -> Sequence[Effect]:
        before, self._forced = self.state, forced
        if self.state is before:
            return ()
        return (Changed(before, self.state, why),)


def _named(asked: Sequence[str]) -> str:
    if not asked:
        return ""
    more = f" and {len(asked) - ASKED_NAMED_MAX} more" if len(asked) > ASKED_NAMED_MAX else ""
    return f"asked {', '.join(asked[:ASKED_NAMED_MAX])}{more}"


def _joined(parts: Sequence[str]) -> str:
    return "; ".join(part for part in parts if part)
