"""All versions that a history has, and how they descend from each other: the oracle for the answers of nodes.

Written from `docs/protocol.md`, without the product's code for heads: a checker must not share the code that it checks.
"""

from collections import defaultdict
from collections.abc import Iterable

from netsim.history import FinalState, History, ShownVersion


class VersionGraph:
    """The versions of one history, by digest as the history has them."""

    def __init__(self, history: History) -> None:
        self.refs: dict[str, ShownVersion] = {}
        self.reissued: dict[str, str] = {}
        for op in history.operations:
            if op.receipt is not None:
                receipt = op.receipt
                written = (receipt.digest, receipt.version, op.node, op.id, op.kind == "delete", receipt.parents)
                self._add(ShownVersion(*written))
            for head in op.answer.heads if op.answer is not None else ():
                self._add(head)
        for state in history.states:
            self.reissued.update(state.reissued)
            for refs in state.versions.values():
                for ref in refs:
                    self._add(ref)
        self._covers: dict[str, frozenset[str]] = {}

    def _add(self, ref: ShownVersion) -> None:
        known = self.refs.get(ref.digest)
        if known is None or (ref.is_held and not known.is_held) or (ref.parents and not known.parents):
            self.refs[ref.digest] = ref

    def order(self, digest: str) -> tuple[int, str, str]:
        ref = self.refs.get(digest)
        return ref.order if ref is not None else (0, "", digest)

    def reissues(self, digest: str) -> list[str]:
        """A version, the one that reissued it, the one that reissued that, and so on."""
        line = [digest]
        while (after := self.reissued.get(line[-1])) is not None and after not in line:
            line.append(after)
        return line

    def covered(self, heads: Iterable[str]) -> set[str]:
        """What these heads account for: themselves, and all versions that they were written on top of."""
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
        """Whether a version is among those covered: itself, or one that reissued it."""
        return digest in covered or any(one in covered for one in self.reissues(digest))


def heads_of(state: FinalState, key: str) -> set[str]:
    """The heads that follow from the versions a node holds: those that no later one of them names."""
    refs = {ref.digest: ref for ref in state.versions.get(key, ()) if ref.digest not in state.reissued}
    named: defaultdict[str, int] = defaultdict(int)
    for ref in refs.values():
        for parent in ref.parents:
            named[parent] = max(named[parent], ref.version)
    return {digest for digest, ref in refs.items() if named[digest] <= ref.version}
