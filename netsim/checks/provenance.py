"""Promise 7, provenance: answers say where they come from, receipts how durable a write is, and both are true."""

from collections import defaultdict
from collections.abc import Iterator

from netsim.checks.durability import acknowledged
from netsim.checks.versions import VersionGraph
from netsim.checks.violation import Violation
from netsim.history import AnswerRecord, History, Operation, Outcome, ReceiptRecord

AGE_STEP_MS = 11.0
"""Ages are rounded to 10 ms."""
STALE_SLACK_SECONDS = 0.02


def honest(history: History) -> Iterator[Violation]:
    """Promise 7, each answer by itself: nothing is missing from it, and nothing in it contradicts itself."""
    lost = {node for node, _ in history.lost_disks()}
    reissued = {old for state in history.states for old in state.reissued}
    for op in history.operations:
        can_count = not op.excused and not lost and op.digest not in reissued
        faults = [*_of_receipt(op, op.receipt, history, can_count)] if op.receipt else []
        faults += _of_answer(op, op.answer, history) if op.answer else []
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
        yield "its receipt lacks the version or its place in the log"
    if receipt.acknowledged > receipt.wanted:
        yield f"its receipt counts {receipt.acknowledged} acknowledgements of {receipt.wanted} wanted"
    is_replicated = receipt.quorum > 0 and receipt.acknowledged >= receipt.quorum
    if (receipt.backend == "real") != is_replicated:
        yield f"{receipt.acknowledged} of a quorum of {receipt.quorum} do not make it '{receipt.backend}'"
    if (receipt.durability in ("replicated", "at risk")) != is_replicated:
        yield f"{receipt.acknowledged} of a quorum of {receipt.quorum} are called {receipt.durability!r}"
    if receipt.held_by is not None and can_count:
        if op.node not in receipt.held_by:
            yield f"{op.node} did not have it on its disk"
        others = len([node for node in receipt.held_by if node != op.node]) + len(history.parameters.byzantine)
        if receipt.acknowledged > others:
            yield f"its receipt counts {receipt.acknowledged} other nodes, and {others} had it"


def _of_answer(op: Operation, answer: AnswerRecord, history: History) -> Iterator[str]:
    freshness_ms = history.parameters.freshness_seconds * 1000.0
    if answer.source not in ("local", "swarm") or not answer.backend:
        yield "does not say where it came from"
    if answer.heads and answer.backend not in op.backends:
        yield f"names the backend {answer.backend}, and {op.backend} was asked"
    if answer.is_degraded and not answer.reason:
        yield "is degraded for no reason"
    if answer.heads and not answer.heads[0].is_held:
        yield "is a version without its content"
    if answer.siblings != max(0, len(answer.heads) - 1):
        yield f"counts {answer.siblings} siblings beside {len(answer.heads)} heads"
    is_auto = op.backend == "hybrid" and op.how == "auto"
    if is_auto and answer.source == "local" and not answer.is_degraded:
        if answer.age_ms is None:
            yield "does not say how old it is"
        elif answer.age_ms > freshness_ms + AGE_STEP_MS:
            yield f"is {answer.age_ms:.0f} ms old, of {freshness_ms:.0f} allowed, and not called degraded"
    is_unasked = answer.source == "local" or answer.is_degraded
    if op.backend == "hybrid" and op.how != "local" and not answer.heads and is_unasked:
        yield "calls the key absent without an answer of the swarm"


def up_to_date(history: History) -> Iterator[Violation]:
    """Promise 7, compared with what other nodes did: an answer of some age has all writes acknowledged before that, and
    a key that most holders had is not called absent.

    Only where every node holds everything and is known to every other node: else no node can know it all. Writes of
    which all copies are on disks that are lost since are left out.
    """
    parameters = history.parameters
    on_mock = {op.node for op in history.operations if "mock" in op.backends}
    swarm = [node for node in parameters.nodes if node not in parameters.byzantine and node not in on_mock]
    if len(parameters.nodes) - 1 > parameters.replication or not parameters.is_known_to_all:
        return
    if parameters.late or parameters.byzantine:
        return
    versions = VersionGraph(history)
    writes: defaultdict[str, list[Operation]] = defaultdict(list)
    for op in acknowledged(history):
        if op.node in swarm:
            writes[op.key].append(op)
    for read in history.reads:
        answer = read.answer
        if answer is None or read.node not in swarm or read.excused:
            continue
        covered = versions.covered(read.shown)
        is_dated = (
            answer.source == "local" and not answer.is_degraded and answer.age_ms is not None and read.how == "auto"
        )
        is_absent = not answer.heads and answer.source == "swarm"
        age = (answer.age_ms or 0.0) / 1000.0
        for write in writes[read.key]:
            if versions.accounts_for(covered, write.digest):
                continue
            if is_dated and write.returned < read.called - age - STALE_SLACK_SECONDS:
                yield _late(read, write, f"an answer said to be {age * 1000:.0f} ms old")
            elif is_absent and write.returned < read.called and _has_most(write, parameters.nodes):
                holders = len(write.receipt.held_by or ()) if write.receipt else 0
                yield _late(read, write, f"'absent', though {holders} nodes had it")


def _has_most(write: Operation, nodes: tuple[str, ...]) -> bool:
    """Whether most of the other nodes had it, for any node that asks."""
    held_by = write.receipt.held_by if write.receipt else None
    return held_by is not None and 2 * (len(held_by) - 1) > len(nodes) - 1


def _late(read: Operation, write: Operation, what: str) -> Violation:
    return Violation(
        check="up-to-date",
        text=f"{read.node} answered {read.key} at {read.returned:.3f} s with {what}, without "
        f"{write.digest}, which {write.node} had acknowledged at {write.returned:.3f} s",
        key=read.key,
        nodes=(read.node, write.node),
        operations=(write.id, read.id),
        at=read.returned,
    )


def nothing_made_up(history: History) -> Iterator[Violation]:
    """Each version that is shown or held was written by its author, by an operation that did not fail; and each head is
    a version that the node has."""
    yield from _unwritten(history)
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


def _unwritten(history: History) -> Iterator[Violation]:
    ops = history.by_id()
    byzantine = history.parameters.byzantine
    honest_nodes = {node for node in history.parameters.nodes if node not in byzantine}
    known = VersionGraph(history).refs
    for digest, (node, key, reads, at) in _first_shown(history).items():
        author, op_id, is_held = known[digest].author, known[digest].op, known[digest].is_held
        writer = ops.get(op_id)
        if author not in honest_nodes:
            why = "" if author in byzantine else f"its author {author} is no node of this run"
        elif not is_held and not op_id:
            why = ""  # a notice of a version whose content no remaining node holds
        elif writer is None or not writer.is_write or writer.node != author:
            why = f"its author {author} never wrote it"
        else:
            why = f"{author} had answered that it failed ({writer.error})" if writer.outcome is Outcome.FAILED else ""
        if why:
            yield Violation(
                check="nothing-made-up",
                text=f"{node} showed {digest} of {key}, but {why}",
                key=key,
                nodes=tuple(dict.fromkeys((node, author))),
                operations=tuple(one for one in (op_id, *reads) if one in ops),
                at=at,
            )


def _first_shown(history: History) -> dict[str, tuple[str, str, tuple[int, ...], float | None]]:
    """By digest of each version that a node showed or holds: the first such node, the key, the read, and when."""
    seen: dict[str, tuple[str, str, tuple[int, ...], float | None]] = {}
    for read in history.reads:
        for digest in read.shown:
            seen.setdefault(digest, (read.node, read.key, (read.id,), read.returned))
    for state in history.states:
        for key, refs in state.versions.items():
            for ref in refs:
                seen.setdefault(ref.digest, (state.node, key, (), None))
    return seen
