"""Health: a judgement over facts. Pure; `node/services/health.py` brings the facts."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from protocols.breaker import State

CLOCK_OFF_MS_MAX = 10_000
"""A clock that differs from the majority's by more than this is degraded (DESIGN, section 4)."""


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
    breaker: State
    breaker_why: str
    clock_offsets_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What is known of the store. `failure` is what its last write failed with, or ''."""

    failure: str
    pending: int
    oldest_pending_ms: int | None
    refused: int


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
        if facts.suspects:
            reasons.append(f"{facts.suspects} connected members do not answer")
        if facts.breaker is not State.CLOSED:
            reasons.append(f"the breaker is {facts.breaker}: {facts.breaker_why}")
    if clock := judge_clock(facts.clock_offsets_ms):
        reasons.append(clock)
    is_failed = facts.backend == "real" and not facts.reachable
    return _status(is_failed, reasons), tuple(reasons)


def judge_store(facts: StoreFacts) -> tuple[Status, tuple[str, ...]]:
    """The store's status, and why it is not healthy, in words. It fails when nothing can be written."""
    reasons: list[str] = []
    if facts.failure:
        reasons.append(f"the last write failed: {facts.failure}")
    if facts.refused:
        reasons.append(f"{facts.refused} writes were refused by a holder for good; see `bzzz pending --refused`")
    return _status(bool(facts.failure), reasons), tuple(reasons)


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
