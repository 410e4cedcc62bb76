"""Promises 3 and 4, order: a version that a node has shown does not vanish, and a key never goes back for a reader."""

from collections import defaultdict
from collections.abc import Iterator

from netsim.checks.versions import VersionGraph, heads_of
from netsim.checks.violation import Violation
from netsim.history import History, Operation


def never_back(history: History) -> Iterator[Violation]:
    """Promise 4. A read's answer is not earlier than any answer of that node from before the read began."""
    for read, digest, before, versions in _forgotten(history):
        latest = max((versions.order(head) for head in read.shown), default=None)
        if latest is None or latest < versions.order(digest):
            now = "absent" if latest is None else latest[2]
            yield Violation(
                check="never-back",
                text=f"{read.node} answered {read.key} with {digest} at {before.returned:.3f} s, and with {now}, which "
                f"is older, to a read that began at {read.called:.3f} s",
                key=read.key,
                nodes=(read.node,),
                operations=(before.id, read.id),
                at=read.returned,
            )


def siblings_kept(history: History) -> Iterator[Violation]:
    """Promise 3. A head stays one until a later version names it; and a node's heads are all versions that no later
    version names."""
    for read, digest, before, versions in _forgotten(history):
        latest = max((versions.order(head) for head in read.shown), default=None)
        if latest is not None and latest >= versions.order(digest):
            yield Violation(
                check="siblings-kept",
                text=f"{read.node} answered {read.key} with {digest} at {before.returned:.3f} s; at "
                f"{read.returned:.3f} s it was gone, and nothing had been written on top of it",
                key=read.key,
                nodes=(read.node,),
                operations=(before.id, read.id),
                at=read.returned,
            )
    refs = VersionGraph(history).refs
    for state in history.states:
        for old, new in state.reissued.items():
            if old in refs and new in refs and refs[old].author != refs[new].author:
                yield Violation(
                    check="siblings-kept",
                    text=f"{state.node} has {old} by {refs[old].author} as reissued by {new}, which is by "
                    f"{refs[new].author}: only the author of a version can reissue it",
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
        if op.receipt is not None or op.answer is not None:
            groups[op.node, op.disk, op.key].append(op)
    for ops in groups.values():
        by_return = sorted(ops, key=lambda op: op.returned)
        required: dict[str, Operation] = {}
        at = 0
        for read in sorted((op for op in ops if op.answer is not None), key=lambda op: op.called):
            while at < len(by_return) and by_return[at].returned <= read.called:
                _require(required, by_return[at], versions)
                at += 1
            covered = versions.covered(read.shown)
            for digest, before in required.items():
                if before is not read and not versions.accounts_for(covered, digest):
                    yield read, digest, before, versions


def _require(required: dict[str, Operation], op: Operation, versions: VersionGraph) -> None:
    """What later reads must account for: the heads now shown, and the earlier ones that they do not cover."""
    covered = versions.covered(op.shown)
    for digest in [digest for digest in required if digest in covered]:
        del required[digest]
    required.update(dict.fromkeys(op.shown, op))
