"""Health: a judgement over facts. Pure; `node/services/observe/health.py` brings the facts.

Facts that are certain (the breaker is open, the store cannot write, nobody is connected) count at once, and are over at
once. What is only observed (a call that failed, a peer that was late, a probe without an answer) has gone through
`protocols/policy/hysteresis.py` before it comes here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from protocols.policy.breaker import BreakerState

CLOCK_OFF_MS_MAX = 10_000
"""A clock that differs from the majority's by more than this is degraded (`docs/design.md`)."""


COMMIT_SECONDS_SLOW = 1.0
"""A disk that takes longer to confirm a write is degraded;"""
COMMIT_SECONDS_STALLED = 5.0
"""one that takes longer is taken to stand still, so that nothing can be written."""


class Status(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmFacts:
    """What is known of the swarm. Offsets say how far each peer's clock is ahead of ours."""

    backend: str
    members: int
    reachable: int
    suspects: int
    breaker: BreakerState
    breaker_why: str
    clock_offsets_ms: tuple[float, ...]
    suspect_names: tuple[str, ...] = ()
    """What the suspects are called, and what they missed."""
    calls_failing: str = ""
    """What calls have failed with, again and again; ''."""
    probe_failing: str = ""
    """What became of the probes, again and again; ''."""
    write_quorum: int = 0
    """How many peers a write needs; 0: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What is known of the store. `failure` is what its last write failed with, or ''."""

    failure: str
    pending: int
    oldest_pending_ms: int | None
    refused: int
    probe_failing: str = ""
    """What became of looking something up, again and again; ''."""
    committing_seconds: float = 0.0
    """For how long the disk has owed the commit that is under way; 0: none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryFacts:
    """What is known of the search for peers. `sources` are the configured ones, `faults` those that tell nothing."""

    is_on: bool
    sources: int
    faults: tuple[str, ...]
    members: int
    reachable: int


def judge_swarm(facts: SwarmFacts) -> tuple[Status, tuple[str, ...]]:
    """The swarm's status, and why it is not healthy, in words."""
    reasons: list[str] = []
    if facts.backend != "mock":
        if not facts.members:
            is_real = facts.backend == "real"
            alone = "nothing can be written" if is_real else "what is written is kept on this machine alone"
            reasons.append(f"no other member of the swarm is known yet: {alone}")
        elif not facts.reachable:
            reasons.append(f"none of the {facts.members} members known can be reached")
        elif facts.backend == "real" and facts.reachable < facts.write_quorum:
            reasons.append(f"{facts.reachable} of the {facts.write_quorum} peers that a write needs can be reached")
        if facts.suspects:
            names = f": {', '.join(facts.suspect_names)}" if facts.suspect_names else ""
            reasons.append(f"{facts.suspects} connected members do not answer{names}")
        reasons += [why for why in (facts.probe_failing, facts.calls_failing) if why]
        if facts.breaker is not BreakerState.CLOSED:
            reasons.append(f"the breaker is {facts.breaker}: {facts.breaker_why}")
    if clock := judge_clock(facts.clock_offsets_ms):
        reasons.append(clock)
    is_failed = facts.backend == "real" and (not facts.reachable or bool(facts.probe_failing))
    return _status(is_failed, reasons), tuple(reasons)


def judge_store(facts: StoreFacts) -> tuple[Status, tuple[str, ...]]:
    """The store's status, and why it is not healthy, in words. It fails when nothing can be written."""
    reasons: list[str] = []
    if facts.failure:
        reasons.append(f"the last write failed: {facts.failure}")
    if facts.refused:
        reasons.append(f"{facts.refused} writes were refused by a holder for good; see `bzzz pending --refused`")
    if facts.probe_failing:
        reasons.append(facts.probe_failing)
    if facts.committing_seconds >= COMMIT_SECONDS_SLOW:
        reasons.append(f"the disk has not confirmed a write for {facts.committing_seconds:.1f} s; look after it")
    is_failed = bool(facts.failure) or facts.committing_seconds >= COMMIT_SECONDS_STALLED
    return _status(is_failed, reasons), tuple(reasons)


def judge_discovery(facts: DiscoveryFacts) -> tuple[Status, tuple[str, ...]]:
    """The search's status: it matters while nobody is found. A source that is away while others are here is normal."""
    if not facts.is_on or facts.reachable or not facts.sources:
        return Status.HEALTHY, ()
    if len(facts.faults) >= facts.sources:
        return Status.DEGRADED, facts.faults
    if facts.members:
        return Status.HEALTHY, ()  # they are dialled, and the swarm's own reasons say that they are away
    told = f"none of the {facts.sources} configured bootstrap nodes has been reached yet"
    return Status.DEGRADED, (told, *facts.faults)


def judge_observed(*failing: str) -> tuple[Status, tuple[str, ...]]:
    """The status of a component of which nothing is known but what became of its calls and probes."""
    reasons = tuple(why for why in failing if why)
    return _status(False, reasons), reasons


def judge_clock(offsets_ms: Sequence[float]) -> str:
    """'' when our clock agrees with the peers'; else which side is off, and by how much.

    Ours is the one that is off when most of all clocks, itself among them, are on the same side of it. Of two clocks
    that differ nobody can tell which is right.
    """
    ahead = sorted(offset for offset in offsets_ms if offset > CLOCK_OFF_MS_MAX)
    behind = sorted(offset for offset in offsets_ms if offset < -CLOCK_OFF_MS_MAX)
    for side, word in ((ahead, "behind"), (behind, "ahead of")):
        if 2 * len(side) > len(offsets_ms) + 1:
            by = f"{abs(side[len(side) // 2]) / 1000:.0f} s"
            those = f"{len(side)} of {len(offsets_ms)} members"
            return f"this node's clock is {by} {word} that of {those}; mend the clock of this machine"
    if off := len(ahead) + len(behind):
        seconds = CLOCK_OFF_MS_MAX // 1000
        return f"the clocks of {off} of {len(offsets_ms)} members differ from this node's by over {seconds} s"
    return ""


def worst(statuses: Sequence[Status]) -> Status:
    order = (Status.HEALTHY, Status.DEGRADED, Status.FAILED)
    return max(statuses, key=order.index, default=Status.HEALTHY)


def _status(is_failed: bool, reasons: Sequence[str]) -> Status:
    if is_failed:
        return Status.FAILED
    return Status.DEGRADED if reasons else Status.HEALTHY
