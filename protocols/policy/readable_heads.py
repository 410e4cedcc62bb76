"""Readable heads: the heads of a key for readers and writers, where the content of some versions cannot be had.

Any member can sign a version whose content nobody serves, and name the heads as its parents. It is a head as every
other (`protocols/heads.py`), and must not hide what it names: a version whose content is not held ends no head for
readers, unless a version whose content is held was written on top of it.

So a version is covered when a held version descends from it, over any number of versions. A readable head is a held
version that is not covered. Each one is a head, or is reached from a head over versions that are neither held nor
covered, because all of its children are such. Versions are visited the latest first, so that children come before
their parents: an edge to a parent that is not earlier is void.
"""

from collections.abc import Iterable
from typing import Final

VISITS_MAX: Final = 1_000
"""After so many versions the first readable head that is found is the last one."""
PARENTS_MAX: Final = 8_192
"""Parents that are followed: one version may name 256, known or not."""
MISSING_MAX: Final = 1_000
"""Versions without content that are listed."""

_HEAD: Final = 1 << 64
"""Above every version."""


class ReadableWalk:
    """One walk over the versions of a key, from the latest on. `heads` are the digests of its heads.

    The work is bounded: beyond `VISITS_MAX` versions or `PARENTS_MAX` parents the walk looks for the latest held
    version alone, which no held version can supersede.
    """

    __slots__ = ("_covered", "_parents_left", "_pending", "_visits_left", "missing", "readable")

    def __init__(self, heads: Iterable[bytes]) -> None:
        self.readable: list[bytes] = []
        """The readable heads, the latest first."""
        self.missing: list[bytes] = []
        """Versions that are neither held nor covered, the latest first; at most `MISSING_MAX`."""
        self._covered: dict[bytes, int] = {}
        """By parent: the greatest version that covers it."""
        self._pending = dict.fromkeys(heads, _HEAD)
        """The heads, and by parent: the greatest version without content that names it."""
        self._visits_left = VISITS_MAX
        self._parents_left = PARENTS_MAX

    @property
    def is_done(self) -> bool:
        """Whether no further version can be a readable head, or it is not worth the work to look for more."""
        return bool(self.readable) if self._is_cut_short else not self._pending

    @property
    def has_visits_left(self) -> bool:
        """Without, the latest held version before those that were visited is the one that is left to look for."""
        return self._visits_left > 0

    @property
    def _is_cut_short(self) -> bool:
        return self._visits_left <= 0 or self._parents_left <= 0

    def visit(self, digest: bytes, version: int, parents: Iterable[bytes], *, is_held: bool) -> None:
        """Visit the next version that was not reissued: it is earlier in the total order than those before."""
        self._visits_left -= 1
        is_covered = self._covered.pop(digest, 0) > version
        is_pending = self._pending.pop(digest, 0) > version or self._is_cut_short
        if is_covered or (is_held and is_pending):
            if not is_covered:
                self.readable.append(digest)
            self._name(self._covered, parents, version)
        elif is_pending:
            if len(self.missing) < MISSING_MAX:
                self.missing.append(digest)
            self._name(self._pending, parents, version)

    def _name(self, table: dict[bytes, int], parents: Iterable[bytes], version: int) -> None:
        """Note in one of the tables that a version names these parents."""
        if self._is_cut_short:
            return
        for parent in parents:
            self._parents_left -= 1
            if version > table.get(parent, 0):
                table[parent] = version
