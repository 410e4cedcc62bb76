"""Promise 7: every answer tells where it came from, every write how durable it is, and what they tell is true."""

from collections import defaultdict
from collections.abc import Iterator

from netsim.checks.versions import VersionGraph
from netsim.checks.violation import Violation
from netsim.history import History, Operation, Outcome, ReceiptRecord, Sight

AGE_STEP_MS = 11.0
"""Ages are told to 10 ms."""
STALE_SLACK_SECONDS = 0.02


def honest(history: History) -> Iterator[Violation]:
    """Promise 7, each answer by itself: nothing is missing from it, and nothing in it contradicts itself."""
    lost = {node for node, _ in history.lost_disks()}
    reissued = {old for state in history.states for old in state.reissued}
    for op in history.operations:
        can_count = not op.excused and not lost and op.digest not in reissued
        faults = [*_of_receipt(op, op.receipt, history, can_count)] if op.receipt else []
        faults += _of_sight(op, op.sight, history) if op.sight else []
        for fault in faults:
            yield Violation(
                check="honest",
                text=f"a {op.kind} of {op.key} at {op.node} was answered at {op.returned:.3f} s, and {fault}",
                key=op.key,
                nodes=(op.node,),
                operations=(op.id,),
                at=op.returned,
            )


def _of_receipt(op: Operation, receipt: ReceiptRecord, history: History, can_count: bool) -> Iterator[str]:
    if not (receipt.log_id and receipt.sequence > 0 and receipt.digest and receipt.version):
        yield "its receipt does not say what was written where"
    if receipt.acknowledged > receipt.wanted:
        yield f"{receipt.acknowledged} of {receipt.wanted} are said to have it"
    is_replicated = receipt.quorum > 0 and receipt.acknowledged >= receipt.quorum
    if (receipt.backend == "real") != is_replicated:
        yield f"{receipt.acknowledged} of a quorum of {receipt.quorum} make no '{receipt.backend}'"
    if (receipt.durability in ("replicated", "at risk")) != is_replicated:
        yield f"{receipt.acknowledged} of a quorum of {receipt.quorum} are called {receipt.durability!r}"
    if receipt.held_by is not None and can_count:
        if op.node not in receipt.held_by:
            yield f"{op.node} did not have it on its disk"
        others = len([node for node in receipt.held_by if node != op.node]) + len(history.setting.liars)
        if receipt.acknowledged > others:
            yield f"{receipt.acknowledged} others are said to have it, and {others} had"


def _of_sight(op: Operation, sight: Sight, history: History) -> Iterator[str]:
    if sight.source not in ("local", "swarm") or not sight.backend:
        yield "does not say where it came from"
    if sight.is_degraded and not sight.reason:
        yield "is degraded for no reason"
    if sight.siblings != max(0, len(sight.heads) - 1):
        yield f"speaks of {sight.siblings} siblings beside {len(sight.heads)} heads"
    is_auto = op.backend == "hybrid" and op.how == "auto"
    if is_auto and sight.source == "local" and not sight.is_degraded:
        if sight.age_ms is None:
            yield "does not say how old it is"
        elif sight.age_ms > history.setting.freshness_seconds * 1000.0 + AGE_STEP_MS:
            allowed = history.setting.freshness_seconds * 1000.0
            yield f"is {sight.age_ms:.0f} ms old, of {allowed:.0f} allowed, and not called degraded"
    if (
        op.backend == "hybrid"
        and op.how != "local"
        and not sight.heads
        and (sight.source == "local" or sight.is_degraded)
    ):
        yield "calls absent what it could not ask for"


def up_to_date(history: History) -> Iterator[Violation]:
    """Promise 7, held against what others did: an answer of an age has all that was acknowledged before; and
    'absent' is not said of what most of the holders had.

    Only where everybody holds everything and is known to everybody: else nobody can know it all.
    """
    setting = history.setting
    lost = history.lost_disks()
    social = [n for n in setting.nodes if n not in setting.liars and not any(
        "mock" in op.backends for op in history.operations if op.node == n
    )]  # fmt: skip
    if len(setting.nodes) - 1 > setting.replication or setting.late or lost or setting.liars:
        return
    if not setting.is_known_to_all:
        return
    versions = VersionGraph(history)
    writes: defaultdict[str, list[Operation]] = defaultdict(list)
    for op in history.writes:
        if op.outcome is Outcome.OK and op.node in social:
            writes[op.key].append(op)
    for read in history.reads:
        sight = read.sight
        if sight is None or read.node not in social or read.excused:
            continue
        covered = versions.covered(head.digest for head in sight.heads)
        is_dated = sight.source == "local" and not sight.is_degraded and sight.age_ms is not None and read.how == "auto"
        for write in writes[read.key]:
            if versions.accounts_for(covered, write.digest):
                continue
            age = (sight.age_ms or 0.0) / 1000.0
            if is_dated and write.returned < read.called - age - STALE_SLACK_SECONDS:
                yield _late(read, write, f"said to be {age * 1000:.0f} ms old")
            elif (
                not sight.heads
                and sight.source == "swarm"
                and write.returned < read.called
                and _has_most(write, setting.nodes)
            ):
                yield _late(
                    read,
                    write,
                    f"'absent', though {len(write.receipt.held_by or ())} nodes had it" if write.receipt else "",
                )


def _has_most(write: Operation, nodes: tuple[str, ...]) -> bool:
    """Whether most of the others had it, whoever asks."""
    held_by = write.receipt.held_by if write.receipt else None
    return held_by is not None and 2 * (len(held_by) - 1) > len(nodes) - 1


def _late(read: Operation, write: Operation, what: str) -> Violation:
    return Violation(
        check="up-to-date",
        text=f"{read.node} answered {read.key} at {read.returned:.3f} s with what was {what}, without "
        f"{write.digest}, which {write.node} had acknowledged at {write.returned:.3f} s",
        key=read.key,
        nodes=(read.node, write.node),
        operations=(write.id, read.id),
        at=read.returned,
    )


def nothing_made_up(history: History) -> Iterator[Violation]:
    """What is shown or held was written: no version of a write that failed, none that nobody wrote, none unheld."""
    ops = history.by_id()
    honest_nodes = {node for node in history.setting.nodes if node not in history.setting.liars}
    known = VersionGraph(history).refs
    seen: dict[str, tuple[str, str, tuple[int, ...], float | None]] = {}
    for read in history.reads:
        for head in read.sight.heads if read.sight is not None else ():
            seen.setdefault(head.digest, (read.node, read.key, (read.id,), read.returned))
    for state in history.states:
        for key, refs in state.versions.items():
            for ref in refs:
                seen.setdefault(ref.digest, (state.node, key, (), None))
    for digest, (node, key, reads, at) in seen.items():
        author, op_id, is_held = known[digest].author, known[digest].op, known[digest].is_held
        writer = ops.get(op_id)
        if author not in honest_nodes:
            why = "" if author in history.setting.liars else f"its author {author} is nobody here"
        elif not is_held and not op_id:
            why = ""  # a notice of what is held by nobody that is left
        elif writer is None or not writer.is_write or writer.node != author:
            why = f"{author}, whose it is said to be, never wrote it"
        else:
            why = f"{author} said that it had failed ({writer.error})" if writer.outcome is Outcome.FAILED else ""
        if why:
            yield Violation(
                check="nothing-made-up",
                text=f"{node} showed {digest} of {key}, but {why}",
                key=key,
                nodes=tuple(dict.fromkeys((node, author))),
                operations=tuple(one for one in (op_id, *reads) if one in ops),
                at=at,
            )
    for state in history.states:
        for key, heads in state.heads.items():
            held = {ref.digest for ref in state.versions.get(key, ())}
            for digest in heads:
                if digest not in held:
                    yield Violation(
                        check="nothing-made-up",
                        text=f"{state.node} shows {digest} as a head of {key}, and has no such version",
                        key=key,
                        nodes=(state.node,),
                    )
