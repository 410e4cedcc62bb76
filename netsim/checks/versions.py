"""All versions that a history speaks of, and how they descend from each other: the oracle that answers are held to.

Written anew from `docs/protocol.md`, on purpose: the checker must not share the code that it checks.
"""

from collections import defaultdict
from collections.abc import Iterable

from netsim.history import History, NodeState, Ref


class VersionGraph:
    """The registry over one history. Digests as the history has them."""

    def __init__(self, history: History) -> None:
        self.refs: dict[str, Ref] = {}
        self.reissued: dict[str, str] = {}
        for op in history.operations:
            if op.receipt is not None:
                got = op.receipt
                self._add(Ref(got.digest, got.version, op.node, op.id, op.kind == "delete", got.parents))
            for head in op.sight.heads if op.sight is not None else ():
                self._add(head)
        for state in history.states:
            self.reissued.update(state.reissued)
            for refs in state.versions.values():
                for ref in refs:
                    self._add(ref)
        self._covers: dict[str, frozenset[str]] = {}

    def _add(self, ref: Ref) -> None:
        known = self.refs.get(ref.digest)
        if known is None or (ref.is_held and not known.is_held) or (ref.parents and not known.parents):
            self.refs[ref.digest] = ref

    def order(self, digest: str) -> tuple[int, str, str]:
        ref = self.refs.get(digest)
        return ref.order if ref is not None else (0, "", digest)

    def stands_for(self, digest: str) -> list[str]:
        """A version, what stands in for it since its author's clock was mended, what stands in for that, ..."""
        line = [digest]
        while (after := self.reissued.get(line[-1])) is not None and after not in line:
            line.append(after)
        return line

    def covered(self, heads: Iterable[str]) -> set[str]:
        """What these heads account for: themselves, and all that they were written on top of."""
        covered: set[str] = set()
        for head in heads:
            covered |= self._cover(head)
        return covered

    def _cover(self, digest: str) -> frozenset[str]:
        known = self._covers.get(digest)
        if known is not None:
            return known
        covered: dict[str, None] = {}
        todo = [digest]
        while todo:
            one = todo.pop()
            if one in covered:
                continue
            covered[one] = None
            ref = self.refs.get(one)
            for parent in ref.parents if ref is not None else ():
                edge = self.refs.get(parent)
                if ref is not None and (edge is None or edge.version < ref.version):
                    todo.append(parent)
        answer = self._covers[digest] = frozenset(covered)
        return answer

    def accounts_for(self, covered: set[str], digest: str) -> bool:
        """Whether a version is among what is covered, itself or what stands in for it."""
        return digest in covered or any(one in covered for one in self.stands_for(digest))


def heads_of(state: NodeState, key: str) -> set[str]:
    """The heads that follow from the versions a node holds: those that no later one of them names."""
    refs = {ref.digest: ref for ref in state.versions.get(key, ()) if ref.digest not in state.reissued}
    named: defaultdict[str, int] = defaultdict(int)
    for ref in refs.values():
        for parent in ref.parents:
            named[parent] = max(named[parent], ref.version)
    return {digest for digest, ref in refs.items() if named[digest] <= ref.version}
