"""Where versions are found by the start of their digest, and addresses by that of their key.

Both are places at random. An index that takes each of them when it comes has a page written for every one, and these
were three quarters of what a durable put writes. So the newest are in memory alone, and go to the disk in runs: sorted,
a bit with each commit, many to a page. What a crash takes from memory is read again from the tables, which have them in
order; `indexed` says up to where the index on the disk is whole. A start names candidates: who asks compares the whole.

A move goes on where it was after a transaction that failed, and one that a crash cut short is made in one go at the
next opening: were they begun anew, many of either would let memory grow without end.

Source: O'Neil et al., "The log-structured merge-tree" (1996), with two components and a rolling merge.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from node.store.sqlite.rows import among, insert

LATE_MAX: Final = 16_384
"""So many are kept in memory before they begin to move. Twice as many are read when a store is opened, at the most."""
MOVED_MIN: Final = 32
"""How many move with a commit at least."""

_Generation = dict[bytes, dict[bytes, int | tuple[int, ...]]]
"""Row ids by start, and these by their first byte: so that what is large is never sorted at once."""


class PrefixIndex:
    """From starts to row ids. Written in one thread, within its transactions; read in any."""

    def __init__(self, name: str, rows: str) -> None:
        """`name`: its table (start, id). `rows` selects (start, id) of what it is over, of those with an id above ?."""
        self._name = name
        self._rows = rows
        # One after the other: what moves to the disk, and what came since. Replaced at once, for there are readers.
        self._generations: tuple[_Generation, _Generation] = ({}, {})
        self._late_count = 0
        self._last = 0
        """The latest row that is committed."""
        self._until = 0
        """The latest of those that move."""
        self._parts: list[bytes] = []
        """Which parts of what moves have not begun to, the next one last."""
        self._part: list[tuple[bytes, int]] = []
        """What is left of the one that has, the next ones last."""
        # What the transaction did, until it is over.
        self._added: list[tuple[bytes, int]] = []
        self._moved: list[tuple[bytes, int]] = []

    def load(self, db: sqlite3.Connection) -> None:
        """What is not on the disk yet, as the tables have it. Readers find all the while what they found before."""
        (last,) = db.execute("SELECT until FROM indexed WHERE name = ?", (self._name,)).fetchone()
        late: _Generation = {}
        count = 0
        for start, number in db.execute(self._rows, (last,)):
            _put(late, start, number)
            last = max(last, number)
            count += 1
        self._generations = ({}, late)
        self._late_count, self._last = count, last
        self._parts, self._part = [], []
        self._added, self._moved = [], []
        self._begin_if_many()

    @property
    def is_moving(self) -> bool:
        return bool(self._generations[0])

    def add(self, start: bytes, number: int) -> None:
        """A row is being written. It may be found before it is there, and by its id then nothing is."""
        _put(self._generations[1], start, number)
        self._added.append((start, number))

    def late(self, start: bytes) -> list[int]:
        """Candidates among the newest. Look here first, and at the disk after that: never the other way round."""
        found: list[int] = []
        for generation in self._generations:
            here = generation.get(start[:1], {}).get(start)
            if here is not None:
                found += _ids(here)
        return found

    def find(self, db: sqlite3.Connection, starts: Sequence[bytes]) -> list[int]:
        """Candidates for all of these, wherever they are."""
        found = [number for start in starts for number in self.late(start)]
        for places, values in among(starts):
            found += [
                number for (number,) in db.execute(f"SELECT id FROM {self._name} WHERE start IN {places}", values)
            ]
        return list(dict.fromkeys(found))

    def move(self, db: sqlite3.Connection, *, all_of_it: bool = False) -> None:
        """Part of a transaction, the last before its end: a few of those that move, or all, go to the disk."""
        if not self.is_moving:
            return
        count = MOVED_MIN + 2 * len(self._added)  # it is over before as many are late again
        run = self._moved
        while (all_of_it or len(run) < count) and (self._part or self._parts):
            if not self._part:
                part = self._generations[0][self._parts.pop()]
                self._part = sorted(
                    [(start, each) for start, here in part.items() for each in _ids(here)], reverse=True
                )
            run.append(self._part.pop())
        insert(db, f"{self._name} (start, id)", run, verb="INSERT OR IGNORE")
        if not self._part and not self._parts:
            db.execute("UPDATE indexed SET until = ? WHERE name = ?", (self._until, self._name))

    def committed(self) -> None:
        """The transaction is on the disk: what has moved is found there from now on."""
        if self._added:
            self._late_count += len(self._added)
            self._last = self._added[-1][1]
        self._added, self._moved = [], []
        if self.is_moving and not self._part and not self._parts:
            self._generations = ({}, self._generations[1])
        self._begin_if_many()

    def _begin_if_many(self) -> None:
        if not self.is_moving and self._late_count >= LATE_MAX:
            self._generations = moving, _ = self._generations[1], {}
            self._parts = sorted(moving, reverse=True)
            self._until, self._late_count = self._last, 0

    def rolled_back(self, db: sqlite3.Connection) -> None:
        """The transaction left nothing. Should the tables have more than is known here, they are read again."""
        for start, number in self._added:
            _take(self._generations[1], start, number)
        self._part += reversed(self._moved)
        self._added, self._moved = [], []
        if db.execute(self._rows, (self._last,)).fetchone() is not None:
            self.load(db)


def _put(generation: _Generation, start: bytes, number: int) -> None:
    part = generation.setdefault(start[:1], {})
    here = part.get(start)
    if here is None:
        part[start] = number
    else:  # two that begin alike: by chance never, by somebody's hard work perhaps
        part[start] = (*_ids(here), number)


def _take(generation: _Generation, start: bytes, number: int) -> None:
    part = generation[start[:1]]
    left = tuple(each for each in _ids(part[start]) if each != number)
    if left:
        part[start] = left
    else:
        del part[start]
    if not part:
        del generation[start[:1]]


def _ids(here: int | tuple[int, ...]) -> tuple[int, ...]:
    return here if isinstance(here, tuple) else (here,)


class PrefixIndexes:
    """The two of a store, and what a statement has to know of them."""

    def __init__(self) -> None:
        self.digests = PrefixIndex(
            "digest_starts", "SELECT substr(digest, 1, 8), sequence FROM versions WHERE sequence > ?"
        )
        self.keys = PrefixIndex("key_starts", "SELECT substr(key, 7, 11), id FROM keys WHERE id > ?")

        self._both = (self.digests, self.keys)

    def load(self, db: sqlite3.Connection) -> None:
        for index in self._both:
            index.load(db)

    @property
    def are_moving(self) -> bool:
        return any(index.is_moving for index in self._both)

    def move(self, db: sqlite3.Connection, *, all_of_it: bool = False) -> None:
        for index in self._both:
            index.move(db, all_of_it=all_of_it)

    def committed(self) -> None:
        for index in self._both:
            index.committed()

    def rolled_back(self, db: sqlite3.Connection) -> None:
        for index in self._both:
            index.rolled_back(db)

    def digest(self, digest: bytes) -> dict[str, Any]:
        """What `DIGEST_IS` wants to know. In memory and at once: made before the statement that it is for."""
        start = start_of_digest(digest)
        return {"digest": digest, "digest_start": start, "late_digests": str(self.digests.late(start))}

    def key(self, key: bytes) -> dict[str, Any]:
        """What `KEY_IS` wants to know."""
        start = start_of_key(key)
        return {"key": key, "key_start": start, "late_keys": str(self.keys.late(start))}


DIGEST_IS: Final = (
    "v.sequence IN (SELECT id FROM digest_starts WHERE start = :digest_start "
    "UNION ALL SELECT value FROM json_each(:late_digests)) AND v.digest = :digest"
)
KEY_IS: Final = (
    "k.id IN (SELECT id FROM key_starts WHERE start = :key_start "
    "UNION ALL SELECT value FROM json_each(:late_keys)) AND k.key = :key"
)


def start_of_digest(digest: bytes) -> bytes:
    return digest[:8]


def start_of_key(key: bytes) -> bytes:
    """The part after '/ucxl/'; it is text, so eight bytes take eleven."""
    return key[6:17]
