"""The heads of one key: every replica computes the same heads, whatever the order in which versions arrive.

A version is superseded when this node holds a later version that names it as a parent. A head is a held version that is
not superseded. An edge to a parent that is not earlier than its child is void: the child is kept, and supersedes
nothing by that edge. A local write with such an edge is refused (`NotLater`). One from a peer must be kept: a node may
learn only later that the edge is void, and acceptance must not depend on the order of arrival.

A version is also superseded by a reissue of its own author, whichever of the two is later: the author corrected a clock
that ran ahead. A reissue needs the author's signature, so no author can end the head of another. A digest is known only
after its version was made, so neither reissues nor parents form a circle: where there are versions, there is a head.

The whole state is, for each digest, the greatest version it was held with, the greatest version that names it as a
parent, and the set of authors that reissued it. All of these only grow, so merging is commutative, associative and
idempotent by construction (a join-semilattice; Shapiro et al., 'Conflict-free Replicated Data Types', 2011). That holds
under equivocation too: two contents of one author and one version have two digests, so they are two versions.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

TAG_DOMAIN = b"bzzz/heads/1\n"


def heads_tag(digests: Iterable[bytes]) -> bytes:
    """The name of a set of heads: the digest of a single one, else the SHA-256 of all of them in ascending order."""
    heads = sorted(set(digests))
    return heads[0] if len(heads) == 1 else sha256(TAG_DOMAIN + b"".join(heads)).digest()


class AddedVersion(NamedTuple):
    """The effect of adding one version: whether it is new, whether it is a head now, and the heads it superseded."""

    is_new: bool
    is_head: bool
    superseded: tuple[bytes, ...]


class HeadSet:
    """The versions of one key, reduced to what the heads need. A digest has 32 bytes, a version is a clock reading."""

    __slots__ = ("_authors", "_heads", "_named_by", "_reissued_by", "_versions")

    def __init__(self) -> None:
        self._versions: dict[bytes, int] = {}
        self._authors: dict[bytes, str] = {}
        self._named_by: dict[bytes, int] = {}
        self._reissued_by: dict[bytes, set[str]] = {}
        self._heads: dict[bytes, int] = {}

    def add(
        self, digest: bytes, version: int, parents: Iterable[bytes], *, author: str = "", reissues: Iterable[bytes] = ()
    ) -> AddedVersion:
        """Add a version, known or not. Adding a known one again with more parents adds the edges to these.

        `author` (a peer id) matters only for reissues; `reissues` are the versions that this one replaces.
        """
        is_new = digest not in self._versions
        if is_new or version > self._versions[digest]:
            self._versions[digest] = version
            self._authors[digest] = author
            self._update(digest)
        superseded = tuple(parent for parent in parents if self._add_parent(parent, version))
        superseded += self.add_reissues(reissues, author)
        return AddedVersion(is_new, digest in self._heads, superseded)

    def heads(self) -> tuple[bytes, ...]:
        """The digests of the heads, in ascending order of version and digest: the same on every replica."""
        if len(self._heads) < 2:
            return tuple(self._heads)
        return tuple(sorted(self._heads, key=lambda digest: (self._heads[digest], digest)))

    def is_head(self, digest: bytes) -> bool:
        return digest in self._heads

    def _add_parent(self, parent: bytes, version: int) -> bool:
        """Add an edge to a parent. Returns whether that ended a head."""
        if version <= self._named_by.get(parent, -1):
            return False
        self._named_by[parent] = version
        was_head = parent in self._heads
        self._update(parent)
        return was_head and parent not in self._heads

    def add_reissues(self, reissued: Iterable[bytes], author: str) -> tuple[bytes, ...]:
        """An author reissued these versions. Returns the heads that this ended.

        `add` does the same; this method alone is for a reissue that the versions do not name themselves.
        """
        return tuple(digest for digest in reissued if self._reissue(digest, author))

    def _reissue(self, digest: bytes, author: str) -> bool:
        """An author reissued a version. Returns whether that ended a head."""
        self._reissued_by.setdefault(digest, set()).add(author)
        was_head = digest in self._heads
        self._update(digest)
        return was_head and digest not in self._heads

    def _update(self, digest: bytes) -> None:
        """Add a version to the heads, or remove it, by all that is known now."""
        version = self._versions.get(digest)
        if version is None:
            return
        is_reissued = self._authors[digest] in self._reissued_by.get(digest, ())
        if is_reissued or version < self._named_by.get(digest, -1):
            self._heads.pop(digest, None)
        else:
            self._heads[digest] = version
