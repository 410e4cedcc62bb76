"""Health: the status of each component, judged from facts that `node/services/observe/health_report.py` collects.

Certain facts (the breaker is open, the store cannot write, no peer is connected) take effect, and end, at once. Mere
observations (a call that failed, a late peer, a probe without an answer) go through `protocols/policy/hysteresis.py`
first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from protocols.policy.breaker import BreakerState

CLOCK_OFF_MS_MAX = 10_000
"""A clock that differs from that of the majority by more than this is degraded."""

AT_RISK_SECONDS = 600.0
"""An address that has had too few replicas for longer is degraded."""

COMMIT_SECONDS_SLOW = 1.0
"""A store whose commit takes longer is degraded."""
NAMES_MAX = 5
"""Nodes that one reason names."""


class Status(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmFacts:
    """Facts about the swarm. An offset says how far the clock of a peer is ahead of this node's."""

    backend: str
    members: int
    reachable: int
    suspects: int
    breaker: BreakerState
    breaker_why: str
    clock_offsets_ms: tuple[float, ...]
    suspect_names: tuple[str, ...] = ()
    """The names of the suspects, and what they missed."""
    calls_failing: str = ""
    """The reason of calls that fail repeatedly, or ''."""
    probe_failing: str = ""
    """The reason of probes that fail repeatedly, or ''."""
    write_quorum: int = 0
    """The number of peers that a write needs."""
    twin: str = ""
    """That another node runs with this node's identity, in words, or ''."""
    is_alone_by_choice: bool = False
    """No member is known, and no source could name one."""
    away: tuple[str, ...] = ()
    """The names of the members that are not connected, and why."""
    apart: tuple[str, ...] = ()
    """The names of the nodes that other members are connected to and this node is not, and why."""
    doubted: tuple[str, ...] = ()
    """The same for nodes of which one member alone says so, without proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """Facts about the store. `failure` is the error of its last write, or ''."""

    failure: str
    pending: int
    refused: int
    probe_failing: str = ""
    """The reason of lookups that fail repeatedly, or ''."""
    committing_seconds: float = 0.0
    """For how long a commit has been under way; 0 without one."""
    deadline_seconds: float = 5.0
    """The longest that a call waits for a commit; after that the store has failed."""
    slow_disk: str = ""
    """That commits repeatedly take too long, with the time of the last one; ''."""
    taken_over: str = ""
    """That it was another node's store until this start, or ''."""
    lacking: str = ""
    """What it lost, or that peers know entries of this node's log which it does not have, or ''."""
    set_aside: int = 0
    """Versions whose content was found damaged and is not fetched again yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFacts:
    """Facts about the replicas of what this node wrote, and of what it feeds to other holders."""

    at_risk: int
    """Addresses with fewer replicas than wanted."""
    oldest_seconds: float
    """For how long the oldest of them has been written; 0 without any."""
    held: str = ""
    """Why no other node takes the place of members that are gone, in words, or ''."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryFacts:
    """Facts about the search for peers, of the sources that are switched on."""

    sources: int
    """The number of configured nodes."""
    faults: tuple[str, ...]
    """Why a configured node, or the search of the local network, finds nothing."""
    members: int
    reachable: int
    searches: tuple[str, ...] = ()
    """The sources that find peers without configured nodes, like `mdns`."""

    @property
    def is_alone_by_choice(self) -> bool:
        return not (self.members or self.sources or self.searches)


def judge_swarm(facts: SwarmFacts) -> tuple[Status, tuple[str, ...]]:
    """The status of the swarm, and the reasons why it is not healthy; also what is no fault, and good to know."""
    reasons = [facts.twin] if facts.twin else []
    remarks: list[str] = []
    if facts.backend != "mock":
        if not facts.members:
            is_real = facts.backend == "real"
            alone = "nothing can be written" if is_real else "what is written is kept on this machine alone"
            said = remarks if facts.is_alone_by_choice else reasons
            said.append(f"no other member of the swarm is known yet: {alone}")
        elif not facts.reachable:
            reasons.append(f"none of the {facts.members} members known can be reached")
        elif facts.backend == "real" and facts.reachable < facts.write_quorum:
            reasons.append(f"{facts.reachable} of the {facts.write_quorum} peers that a write needs can be reached")
        if facts.suspects:
            names = f": {', '.join(facts.suspect_names)}" if facts.suspect_names else ""
            reasons.append(f"{facts.suspects} connected members do not answer{names}")
        if facts.apart:
            reasons.append(f"connected with other members, and not with this node: {_names(facts.apart)}")
        if facts.doubted:
            remarks.append(f"not reached from here, and said by one member to be connected: {_names(facts.doubted)}")
        if facts.away and facts.reachable:
            are = "is" if len(facts.away) == 1 else "are"
            remarks.append(f"{len(facts.away)} of the {facts.members} members known {are} away: {_names(facts.away)}")
        reasons += [why for why in (facts.probe_failing, facts.calls_failing) if why]
        if facts.breaker is not BreakerState.CLOSED:
            reasons.append(f"the breaker is {facts.breaker}: {facts.breaker_why}")
    if clock := judge_clock(facts.clock_offsets_ms):
        reasons.append(clock)
    is_failed = facts.backend == "real" and (not facts.reachable or bool(facts.probe_failing))
    return _status(is_failed, reasons), (*reasons, *remarks)


def judge_store(facts: StoreFacts) -> tuple[Status, tuple[str, ...]]:
    """The status of the store, and the reasons why it is not healthy. It has failed when it cannot write."""
    reasons: list[str] = []
    if facts.failure:
        reasons.append(f"the last write failed: {facts.failure}")
    if facts.refused:
        reasons.append(f"{facts.refused} writes were refused by a holder for good; see `bzzz pending --refused`")
    if facts.taken_over:
        reasons.append(facts.taken_over)
    if facts.lacking:
        reasons.append(facts.lacking)
    if facts.set_aside:
        reasons.append(
            f"{facts.set_aside} versions were damaged on the disk and are set aside until a holder "
            "answers them; check the disk, `bzzz store check` names them"
        )
    if facts.probe_failing:
        reasons.append(facts.probe_failing)
    if facts.slow_disk:
        reasons.append(facts.slow_disk)
    if facts.committing_seconds >= COMMIT_SECONDS_SLOW:
        reasons.append(f"the disk has not confirmed a write for {facts.committing_seconds:.1f} s; check the disk")
    is_failed = bool(facts.failure) or facts.committing_seconds >= facts.deadline_seconds
    return _status(is_failed, reasons), tuple(reasons)


def judge_discovery(facts: DiscoveryFacts) -> tuple[Status, tuple[str, ...]]:
    """The status of the search for peers, and whether this node is alone by choice or by failure. It matters only while
    no peer is connected: with a connected peer, a silent source is normal."""
    if facts.reachable:
        return Status.HEALTHY, ()
    if facts.members:  # they are being dialled, and the reasons of the swarm say that they are away
        is_failing = bool(facts.sources or facts.searches) and len(facts.faults) >= facts.sources + len(facts.searches)
        return (Status.DEGRADED, facts.faults) if is_failing else (Status.HEALTHY, ())
    if facts.is_alone_by_choice:
        return Status.HEALTHY, ("alone by choice: no bootstrap node is configured, and no other source is switched on",)
    if facts.sources:
        unreached = f"alone by failure: none of the {facts.sources} configured bootstrap nodes has been reached yet"
        return Status.DEGRADED, (unreached, *facts.faults)
    if facts.faults:
        return Status.DEGRADED, ("alone by failure: the search for other nodes fails", *facts.faults)
    return Status.HEALTHY, (f"alone so far: no other node was found by {', '.join(facts.searches)}",)


def judge_replicas(facts: ReplicaFacts) -> tuple[Status, tuple[str, ...]]:
    """The status of the replicas. That some are missing for a while is nothing: holders restart, and are replaced."""
    reasons = [facts.held] if facts.held else []
    if facts.oldest_seconds > AT_RISK_SECONDS:
        have = "address has" if facts.at_risk == 1 else "addresses have"
        reasons.append(
            f"{facts.at_risk} {have} fewer replicas than wanted, the oldest for {facts.oldest_seconds / 60:.0f} min: "
            "'bzzz at-risk' shows how many are missing"
        )
    return _status(False, reasons), tuple(reasons)


def judge_observed(*failing: str) -> tuple[Status, tuple[str, ...]]:
    """The status of a component that is known only by the outcomes of its calls and probes."""
    reasons = tuple(why for why in failing if why)
    return _status(False, reasons), reasons


def lost_content(count: int) -> str:
    """That readers asked for so many versions lately whose content no holder had, in words; '' for none."""
    if not count:
        return ""
    return (
        f"no holder has the content of {count} {'version' if count == 1 else 'versions'} that readers asked for: they "
        "are answered with the versions before, and 'bzzz get --json' names those without content"
    )


def judge_clock(offsets_ms: Sequence[float]) -> str:
    """'' when this node's clock agrees with the peers' clocks; else the side that is wrong, and by how much.

    This node's clock is wrong when the majority of all clocks, itself included, are on the same side of it. Of two
    clocks that differ, none can be said to be the wrong one.
    """
    ahead = sorted(offset for offset in offsets_ms if offset > CLOCK_OFF_MS_MAX)
    behind = sorted(offset for offset in offsets_ms if offset < -CLOCK_OFF_MS_MAX)
    for side, word in ((ahead, "behind"), (behind, "ahead of")):
        if 2 * len(side) > len(offsets_ms) + 1:
            by = f"{abs(side[len(side) // 2]) / 1000:.0f} s"
            those = f"{len(side)} of {len(offsets_ms)} members"
            return f"this node's clock is {by} {word} that of {those}; set the clock of this machine"
    if off := len(ahead) + len(behind):
        seconds = CLOCK_OFF_MS_MAX // 1000
        return f"the clocks of {off} of {len(offsets_ms)} members differ from this node's by over {seconds} s"
    return ""


def _names(names: Sequence[str]) -> str:
    left_out = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {left_out} more" if left_out > 0 else "")


def worst(statuses: Sequence[Status]) -> Status:
    order = (Status.HEALTHY, Status.DEGRADED, Status.FAILED)
    return max(statuses, key=order.index, default=Status.HEALTHY)


def _status(is_failed: bool, reasons: Sequence[str]) -> Status:
    if is_failed:
        return Status.FAILED
    return Status.DEGRADED if reasons else Status.HEALTHY
