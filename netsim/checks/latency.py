"""Promise 6, latency: no call takes longer than its deadline, and a hybrid node answers under every fault."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from netsim.checks.violation import Violation
from netsim.history import History, Operation, Outcome

QUEUED_SECONDS = 1.0
"""How long a disk that is good again may take for the calls that were queued."""


def in_time(history: History) -> Iterator[Violation]:
    """Promise 6. Every call to a working node ends within its backend's deadline.

    While its disk is bad, it may wait for that too, up to the disk's deadline: for writes of the same key, and for its
    own commit.
    """
    parameters = history.parameters
    bad_disks = _bad_disks(history)
    for op in history.operations:
        allowed = max(parameters.deadline_seconds[backend] for backend in op.backends)
        if op.is_write:
            allowed += parameters.disk_seconds
        if any(disk.overlaps(op) for disk in bad_disks[op.node]):
            allowed += 2.0 * parameters.store_deadline_seconds
        if not op.excused and op.seconds > allowed + parameters.slack_seconds:
            yield Violation(
                check="in-time",
                text=f"a {op.kind} of {op.key} at {op.node} ({op.backend}) took "
                f"{op.seconds * 1000:.1f} ms, and may take {allowed * 1000:.0f}",
                key=op.key,
                nodes=(op.node,),
                operations=(op.id,),
                at=op.returned,
            )


def answers(history: History) -> Iterator[Violation]:
    """A working hybrid node with a working disk takes every write, and answers every read of what it has.

    A slow disk works, and so does one that stands still for less than the disk's deadline.

    Where the parameters allow a share of errors, the check is broken by more than that share, and then by each error.
    """
    if not history.parameters.has_fallback:
        return
    due = calls_due(history)
    unanswered = [op for op in due if op.outcome is not Outcome.OK]
    if len(unanswered) > history.parameters.errors_max * len(due):
        for op in unanswered:
            yield Violation(
                check="answers",
                text=f"a {op.kind} of {op.key} at {op.node} was {op.outcome}, and node and disk work: {op.error}",
                key=op.key,
                nodes=(op.node,),
                operations=(op.id,),
                at=op.returned,
            )


def calls_due(history: History) -> list[Operation]:
    """The calls that a working hybrid node with a working disk must answer: writes, and reads of what it has."""
    found = []
    deadline_seconds = history.parameters.store_deadline_seconds
    bad_disks = _bad_disks(history)
    has: set[tuple[str, int, str]] = set()
    for op in sorted(history.operations, key=lambda op: op.returned):
        place = op.node, op.disk, op.key
        is_working = (
            op.backends[0] == "hybrid"
            and "real" not in op.backends
            and not op.excused
            and not any(disk.overlaps(op) and disk.fails_calls(deadline_seconds) for disk in bad_disks[op.node])
        )
        is_due = op.is_write or (op.how != "swarm" and place in has)
        if is_working and is_due:
            found.append(op)
        if op.shown:
            has.add(place)
    return found


@dataclass(frozen=True, slots=True)
class _BadDisk:
    """A time during which the disk of a node was slow, stalled or full."""

    begin: float
    end: float
    is_full: bool

    def overlaps(self, op: Operation) -> bool:
        """Whether a call met this disk, or what was queued before it when it was good again."""
        return self.begin <= op.returned and op.called <= self.end + QUEUED_SECONDS

    def fails_calls(self, deadline_seconds: float) -> bool:
        return self.is_full or self.end - self.begin >= deadline_seconds


def _bad_disks(history: History) -> defaultdict[str, list[_BadDisk]]:
    """The bad disks of each node."""
    bad: defaultdict[str, list[_BadDisk]] = defaultdict(list)
    since: dict[str, tuple[float, bool]] = {}
    for event in history.events:
        if event.kind == "disk":
            for node in event.nodes:
                begin, was_full = since.get(node, (event.at, False))
                since[node] = begin, was_full or event.text.endswith("full")
        elif event.kind in ("disk-good", "heal"):
            for node in event.nodes:
                if node in since:
                    begin, is_full = since.pop(node)
                    bad[node].append(_BadDisk(begin, event.at, is_full))
    for node, (begin, is_full) in since.items():
        bad[node].append(_BadDisk(begin, float("inf"), is_full))
    return bad
