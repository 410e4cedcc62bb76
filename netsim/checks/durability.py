"""Promises 1 and 2: what was acknowledged survives a kill at once, and no switch, partition or restart loses it."""

from collections import defaultdict
from collections.abc import Iterator

from netsim.checks.versions import VersionGraph
from netsim.checks.violation import Violation
from netsim.history import History, Operation, Outcome


def survives_a_crash(history: History) -> Iterator[Violation]:
    """Promise 1. What a process comes up with holds all that its predecessors on that disk acknowledged or showed."""
    for opened in history.opened:
        found = set(opened.digests)
        for op in history.operations:
            if (op.node, op.disk) != (opened.node, opened.disk) or op.returned > opened.at:
                continue
            shown = [op.receipt.digest] if op.receipt else [head.digest for head in op.sight.heads] if op.sight else []
            for digest in shown:
                if digest not in found:
                    what = "acknowledged" if op.receipt else "showed"
                    yield Violation(
                        check="survives-a-crash",
                        text=f"{op.node} {what} {digest} of {op.key} at {op.returned:.3f} s, and came up without it "
                        f"at {opened.at:.3f} s",
                        key=op.key,
                        nodes=(op.node,),
                        operations=(op.id,),
                        at=opened.at,
                    )


def nothing_lost(history: History) -> Iterator[Violation]:
    """Promise 2. After healing each acknowledged write is readable, or superseded by a newer one, at every node.

    A write is excused whose every copy, when it was acknowledged, was on a disk that is gone since.
    """
    versions = VersionGraph(history)
    backends = {state.node: state.backend for state in history.states}
    final: defaultdict[str, list[tuple[Operation, set[str]]]] = defaultdict(list)
    for read in history.reads:
        if read.is_final and read.sight is not None:
            final[read.key].append((read, versions.covered(head.digest for head in read.sight.heads)))
    for op in _acknowledged(history):
        missing = [
            read
            for read, covered in final[op.key]
            if _is_to_know(read.node, op, backends) and not versions.accounts_for(covered, op.digest)
        ]
        if missing:
            who = "nobody" if len(missing) == len(backends) else "not " + ", ".join(read.node for read in missing)
            yield Violation(
                check="nothing-lost",
                text=f"{op.node} acknowledged {op.digest} of {op.key} at {op.returned:.3f} s; at "
                f"{missing[-1].returned:.3f} s {who} knows it or anything on top of it",
                key=op.key,
                nodes=tuple(dict.fromkeys((op.node, *(read.node for read in missing)))),
                operations=(op.id,),
            )


def replicas(history: History) -> Iterator[Violation]:
    """After healing each acknowledged write is held by every node that should hold its key."""
    versions = VersionGraph(history)
    held = {s.node: {ref.digest for refs in s.versions.values() for ref in refs if ref.is_held} for s in history.states}
    backends = {state.node: state.backend for state in history.states}
    for op in _acknowledged(history):
        wanted = [node for node in history.setting.holders.get(op.key, ()) if _is_to_know(node, op, backends)]
        if backends.get(op.node) == "mock":
            wanted = [op.node]
        lacking = [n for n in wanted if n in held and not any(one in held[n] for one in versions.stands_for(op.digest))]
        if lacking:
            yield Violation(
                check="replicas",
                text=f"{op.node} acknowledged {op.digest} of {op.key} at {op.returned:.3f} s; {len(wanted)} should "
                f"hold it, and {', '.join(lacking)} did not in the end",
                key=op.key,
                nodes=tuple(dict.fromkeys((op.node, *lacking))),
                operations=(op.id,),
            )


def _acknowledged(history: History) -> Iterator[Operation]:
    if not history.states:
        return
    lost = history.lost_disks()
    disks = {state.node: 0 for state in history.states}
    for node, disk in lost:
        disks[node] = max(disks.get(node, 0), disk + 1)
    for op in history.writes:
        if op.outcome is Outcome.OK and op.receipt is not None:
            others = [node for node in op.receipt.held_by or () if node != op.node]
            is_safe = (op.node, op.disk) not in lost or any(not disks.get(node, 0) for node in others)
            if is_safe:
                yield op


def _is_to_know(node: str, op: Operation, backends: dict[str, str]) -> bool:
    """Whether a write must have reached a node in the end: not when one of the two is on its own."""
    return node == op.node or "mock" not in (backends.get(node), backends.get(op.node, "hybrid"))
