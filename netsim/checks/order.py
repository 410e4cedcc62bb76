"""Promises 3 and 4: nothing that a node has shown vanishes, and a reader of one node never sees a key go back."""

from collections import defaultdict
from collections.abc import Iterator

from netsim.checks.versions import VersionGraph, heads_of
from netsim.checks.violation import Violation
from netsim.history import History, Operation


def never_back(history: History) -> Iterator[Violation]:
    """Promise 4. A read is answered with nothing earlier than what that node had answered before it was asked."""
    for op, digest, before, versions in _forgotten(history):
        latest = max((versions.order(head.digest) for head in op.sight.heads), default=None) if op.sight else None
        if latest is None or latest < versions.order(digest):
            now = "absent" if latest is None else latest[2]
            yield Violation(
                check="never-back",
                text=f"{op.node} answered {op.key} with {digest} at {before.returned:.3f} s, and with {now}, which is "
                f"older, to a read that began at {op.called:.3f} s",
                key=op.key,
                nodes=(op.node,),
                operations=(before.id, op.id),
                at=op.returned,
            )


def siblings_kept(history: History) -> Iterator[Violation]:
    """Promise 3. A head stays one until a later version names it; and heads are all that nothing held names."""
    for op, digest, before, versions in _forgotten(history):
        latest = max((versions.order(head.digest) for head in op.sight.heads), default=None) if op.sight else None
        if latest is not None and latest >= versions.order(digest):
            yield Violation(
                check="siblings-kept",
                text=f"{op.node} answered {op.key} with {digest} at {before.returned:.3f} s; at {op.returned:.3f} s it "
                "was gone, and nothing had been written on top of it",
                key=op.key,
                nodes=(op.node,),
                operations=(before.id, op.id),
                at=op.returned,
            )
    refs = VersionGraph(history).refs
    for state in history.states:
        for old, new in state.reissued.items():
            if old in refs and new in refs and refs[old].author != refs[new].author:
                yield Violation(
                    check="siblings-kept",
                    text=f"{state.node} takes {old} by {refs[old].author} for reissued as {new}, which is by "
                    f"{refs[new].author}: nobody ends what another wrote",
                    nodes=(state.node,),
                    operations=tuple(ref.op for ref in (refs[old], refs[new]) if ref.op),
                )
        for key in state.versions:
            if missing := sorted(heads_of(state, key) - {*state.heads.get(key, ())}):
                yield Violation(
                    check="siblings-kept",
                    text=f"{state.node} holds {missing[0]} of {key}, which nothing supersedes, and it is no head there",
                    key=key,
                    nodes=(state.node,),
                    operations=tuple(ref.op for ref in state.versions[key] if ref.digest in missing and ref.op),
                )


def _forgotten(history: History) -> Iterator[tuple[Operation, str, Operation, VersionGraph]]:
    """Reads that do not account for a version which the same disk had shown before: (read, version, shown by)."""
    versions = VersionGraph(history)
    groups: defaultdict[tuple[str, int, str], list[Operation]] = defaultdict(list)
    for op in history.operations:
        if op.receipt is not None or op.sight is not None:
            groups[op.node, op.disk, op.key].append(op)
    for ops in groups.values():
        shown = sorted(ops, key=lambda op: op.returned)
        must: dict[str, Operation] = {}
        at = 0
        for read in sorted((op for op in ops if op.sight is not None), key=lambda op: op.called):
            while at < len(shown) and shown[at].returned <= read.called:
                _add(must, shown[at], versions)
                at += 1
            covered = versions.covered(head.digest for head in read.sight.heads) if read.sight else set()
            for digest, before in must.items():
                if before is not read and not versions.accounts_for(covered, digest):
                    yield read, digest, before, versions


def _add(must: dict[str, Operation], op: Operation, versions: VersionGraph) -> None:
    """What is shown from now on: the new heads, and those before that they do not account for."""
    digests = [op.receipt.digest] if op.receipt else [head.digest for head in op.sight.heads] if op.sight else []
    covered = versions.covered(digests)
    for digest in [digest for digest in must if digest in covered]:
        del must[digest]
    must.update(dict.fromkeys(digests, op))
