"""Promises 1 and 2, durability: an acknowledged write survives a kill at once, and no fault loses it."""

from collections import defaultdict
from collections.abc import Iterator

from netsim.checks.versions import VersionGraph
from netsim.checks.violation import Violation
from netsim.history import History, Operation, Outcome


def survives_a_crash(history: History) -> Iterator[Violation]:
    """Promise 1. A process finds on its disk all that earlier processes on that disk acknowledged or showed."""
    for recovery in history.recoveries:
        found = set(recovery.digests)
        for op in history.operations:
            if (op.node, op.disk) != (recovery.node, recovery.disk) or op.returned > recovery.at:
                continue
            for digest in op.shown:
                if digest not in found:
                    what = "acknowledged" if op.receipt else "showed"
                    yield Violation(
                        check="survives-a-crash",
                        text=f"{op.node} {what} {digest} of {op.key} at {op.returned:.3f} s, and started without it "
                        f"at {recovery.at:.3f} s",
                        key=op.key,
                        nodes=(op.node,),
                        operations=(op.id,),
                        at=recovery.at,
                    )


def nothing_lost(history: History) -> Iterator[Violation]:
    """Promise 2. After healing each acknowledged write is readable, or superseded by a newer one, at every node.

    A write is excused if, when it was acknowledged, all its copies were on disks that are lost since.
    """
    versions = VersionGraph(history)
    backends = {state.node: state.backend for state in history.states}
    final: defaultdict[str, list[tuple[Operation, set[str]]]] = defaultdict(list)
    for read in history.reads:
        if read.is_final:
            final[read.key].append((read, versions.covered(read.shown)))
    for op in acknowledged(history):
        missing = [
            read
            for read, covered in final[op.key]
            if _must_know(read.node, op, backends) and not versions.accounts_for(covered, op.digest)
        ]
        if missing:
            which = "no node" if len(missing) == len(backends) else "not " + ", ".join(read.node for read in missing)
            yield Violation(
                check="nothing-lost",
                text=f"{op.node} acknowledged {op.digest} of {op.key} at {op.returned:.3f} s; at "
                f"{missing[-1].returned:.3f} s {which} knows it or a version on top of it",
                key=op.key,
                nodes=tuple(dict.fromkeys((op.node, *(read.node for read in missing)))),
                operations=(op.id,),
            )


def replicas(history: History) -> Iterator[Violation]:
    """After healing each acknowledged write is held by every node that should hold its key."""
    versions = VersionGraph(history)
    held = {s.node: {ref.digest for refs in s.versions.values() for ref in refs if ref.is_held} for s in history.states}
    backends = {state.node: state.backend for state in history.states}
    for op in acknowledged(history):
        holders = history.parameters.holders.get(op.key, ())
        wanted = [node for node in holders if _must_know(node, op, backends)]
        if backends.get(op.node) == "mock":
            wanted = [op.node]
        in_place = versions.reissues(op.digest)
        lacking = [node for node in wanted if node in held and not any(one in held[node] for one in in_place)]
        if lacking:
            yield Violation(
                check="replicas",
                text=f"{op.node} acknowledged {op.digest} of {op.key} at {op.returned:.3f} s; {len(wanted)} should "
                f"hold it, and {', '.join(lacking)} did not in the end",
                key=op.key,
                nodes=tuple(dict.fromkeys((op.node, *lacking))),
                operations=(op.id,),
            )


def acknowledged(history: History) -> Iterator[Operation]:
    """The acknowledged writes of which a disk that held a copy is still there."""
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


def _must_know(node: str, op: Operation, backends: dict[str, str]) -> bool:
    """Whether a write must have reached a node in the end: not if one of the two nodes has no network."""
    return node == op.node or "mock" not in (backends.get(node), backends.get(op.node, "hybrid"))
