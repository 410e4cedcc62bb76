"""Promise 6, latency: no call takes longer than its deadline, and a hybrid node answers under every fault."""

from collections import defaultdict
from collections.abc import Iterator

from netsim.checks.violation import Violation
from netsim.history import History, Operation, Outcome


def in_time(history: History) -> Iterator[Violation]:
    """Promise 6. Every call to a working node ends within its backend's deadline."""
    parameters = history.parameters
    for op in history.operations:
        allowed = max(parameters.deadline_seconds[backend] for backend in op.backends)
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
    bad_disks = _bad_disks(history)
    has: set[tuple[str, int, str]] = set()
    for op in sorted(history.operations, key=lambda op: op.returned):
        place = op.node, op.disk, op.key
        is_working = (
            op.backends[0] == "hybrid"
            and "real" not in op.backends
            and not op.excused
            and not any(begin <= op.returned and op.called <= end for begin, end in bad_disks[op.node])
        )
        is_due = op.is_write or (op.how != "swarm" and place in has)
        if is_working and is_due:
            found.append(op)
        if op.shown:
            has.add(place)
    return found


def _bad_disks(history: History) -> defaultdict[str, list[tuple[float, float]]]:
    """When the disk of each node was slow, stalled or full; and a second more, for calls that were queued then."""
    bad: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    since: dict[str, float] = {}
    for event in history.events:
        if event.kind == "disk":
            since.update({node: event.at for node in event.nodes if node not in since})
        elif event.kind in ("disk-good", "heal"):
            for node in event.nodes:
                if node in since:
                    bad[node].append((since.pop(node), event.at + 1.0))
    for node, begin in since.items():
        bad[node].append((begin, float("inf")))
    return bad
