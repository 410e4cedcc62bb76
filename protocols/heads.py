"""Which versions of one key are its heads: the merge that every replica agrees on, whatever the order of arrival.

A version is superseded once a later version that is held names it as a parent; a head is a held version that is not.
An edge to a parent that is not earlier than its child is void: the child stays, and supersedes nothing by it. The
local door refuses such a write (`NotLater`); from a peer it must be kept, for whether it is void may be known only
after it was accepted, and acceptance must not depend on the order of arrival.

A version is superseded, too, by one of the same author that reissues it, whichever of the two is later: a clock that
ran ahead was mended between them. That takes the author's signature, so nobody ends another's head by it; and a
digest is known only once what it is of was made, so it never goes in circles, alone or with parents: where there are
versions, there is a head.

The whole state is, for each digest, the greatest version it was held with, the greatest version that names it as
a parent, and the set of authors who reissued it. They only ever grow, so merging is commutative, associative and
idempotent by construction (a join-semilattice; Shapiro et al., 'Conflict-free Replicated Data Types', 2011), also
under equivocation: two contents of one author and one version are two digests, hence two versions.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Added(NamedTuple):
    """What became of one version: whether it was unknown, whether it is a head now, and which heads it superseded."""

    is_new: bool
    is_head: bool
    superseded: tuple[bytes, ...]


class HeadSet:
    """The versions of one key, as far as heads need them. Digests are 32 bytes, versions readings of the clock."""

    __slots__ = ("_authors", "_heads", "_named_by", "_reissued_by", "_versions")

    def __init__(self) -> None:
        self._versions: dict[bytes, int] = {}
        self._authors: dict[bytes, str] = {}
        self._named_by: dict[bytes, int] = {}
        self._reissued_by: dict[bytes, set[str]] = {}
        self._heads: dict[bytes, int] = {}

    def add(
        self, digest: bytes, version: int, parents: Iterable[bytes], *, author: str = "", reissues: Iterable[bytes] = ()
    ) -> Added:
        """Take in a version, known or not. Adding a known one with parents that were unknown so far adds its edges.

        `author` (a peer id) matters where something is reissued; `reissues` are those that this one stands in for.
        """
        is_new = digest not in self._versions
        if is_new or version > self._versions[digest]:
            self._versions[digest] = version
            self._authors[digest] = author
            self._place(digest)
        superseded = tuple(parent for parent in parents if self._name(parent, version))
        superseded += self.stand_in(reissues, author)
        return Added(is_new, digest in self._heads, superseded)

    def heads(self) -> tuple[bytes, ...]:
        """The digests of the heads, in ascending order of version and digest: the same on every replica."""
        if len(self._heads) < 2:
            return tuple(self._heads)
        return tuple(sorted(self._heads, key=lambda digest: (self._heads[digest], digest)))

    def is_head(self, digest: bytes) -> bool:
        return digest in self._heads

    def _name(self, parent: bytes, version: int) -> bool:
        """A version names a parent; whether that ended a head."""
        if version <= self._named_by.get(parent, -1):
            return False
        self._named_by[parent] = version
        was_head = parent in self._heads
        self._place(parent)
        return was_head and parent not in self._heads

    def stand_in(self, reissued: Iterable[bytes], author: str) -> tuple[bytes, ...]:
        """An author issued these versions again, whichever version it was that says so; answers which heads it ended.

        What `add` does with them; alone for a version that says so, and counts for nothing else any more.
        """
        return tuple(digest for digest in reissued if self._reissue(digest, author))

    def _reissue(self, digest: bytes, author: str) -> bool:
        """Somebody stands in for a version; whether that ended a head."""
        self._reissued_by.setdefault(digest, set()).add(author)
        was_head = digest in self._heads
        self._place(digest)
        return was_head and digest not in self._heads

    def _place(self, digest: bytes) -> None:
        """Among the heads or not, by what is known now."""
        version = self._versions.get(digest)
        if version is None:
            return
        is_reissued = self._authors[digest] in self._reissued_by.get(digest, ())
        if is_reissued or version < self._named_by.get(digest, -1):
            self._heads.pop(digest, None)
        else:
            self._heads[digest] = version
