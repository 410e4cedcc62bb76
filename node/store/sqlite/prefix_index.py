"""Indexes from the prefixes of digests and keys to row ids, written in sorted runs (as in an LSM tree).

Digests and keys are random, so an ordinary index has to write one page for each new entry: these pages were three
quarters of what a durable put wrote. Here the newest entries are in memory only, in a memtable. A full memtable is
flushed to the index on the disk in sorted order, some entries with each commit, so that many share a page. After a
crash the memtable is read again from the tables, which have the rows in order; the table `prefixes_until` has the row
up to which the index on the disk is complete. An index finds candidates: the caller compares the whole digest or key.

A flush continues where it was after a failed transaction, and one that a crash cut short is finished at the next
opening. If it started over, many failures or crashes would let memory grow without limit.

Source: O'Neil et al., "The log-structured merge-tree" (1996), with two components and a rolling merge.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from node.store.sqlite.rows import insert, placeholders, selecting

MEMTABLE_ROWS_MAX: Final = 16_384
"""A memtable with so many entries is flushed. At most twice as many rows are read when a store is opened."""
FLUSH_ROWS_MIN: Final = 32
"""How many entries are flushed with a commit, at least."""

Entry = tuple[bytes, int]
"""A prefix, and the id of a row."""
_Memtable = dict[bytes, int | tuple[int, ...]]
"""Row ids by prefix."""


class PrefixIndex:
    """Written in one thread, within its transactions; read in any thread."""

    def __init__(self, table: str, rows_query: str) -> None:
        """`table` has the entries on the disk; `rows_query` selects (prefix, id) of the rows with an id above ?."""
        self._table = table
        self._rows_query = rows_query
        # The memtable that is flushed, and the newest. The pair is replaced at once, because other threads read it.
        self._memtables: tuple[_Memtable, _Memtable] = ({}, {})
        self._newest_count = 0
        self._last_id = 0
        """The last committed row."""
        self._flush_until = 0
        """The last row of the memtable that is flushed."""
        self._parts: list[list[bytes]] = []
        """The prefixes whose flush has not begun, by their first byte, the next part last: so that a flush never sorts
        the whole at once."""
        self._part: list[Entry] = []
        """The remaining entries of the part whose flush has begun, the next one last."""
        # What the current transaction did.
        self._added: list[Entry] = []
        self._flushed: list[Entry] = []

    def load(self, db: sqlite3.Connection) -> None:
        """Read the rows that are not in the index on the disk. Readers find all earlier entries meanwhile."""
        (last_id,) = db.execute("SELECT id FROM prefixes_until WHERE name = ?", (self._table,)).fetchone()
        newest: _Memtable = {}
        count = 0
        for prefix, row_id in db.execute(self._rows_query, (last_id,)):
            _put(newest, prefix, row_id)
            last_id = max(last_id, row_id)
            count += 1
        self._memtables = ({}, newest)
        self._newest_count, self._last_id = count, last_id
        self._parts, self._part = [], []
        self._added, self._flushed = [], []
        self._start_flush_if_full()

    @property
    def is_flushing(self) -> bool:
        return bool(self._memtables[0])

    def add(self, entries: Sequence[Entry]) -> None:
        """Rows are being written. Readers may find their ids before they can see the rows, and then find none."""
        newest, new = self._memtables[1], dict(entries)
        if len(new) == len(entries) and newest.keys().isdisjoint(new):
            newest.update(new)
        else:
            for prefix, row_id in entries:
                _put(newest, prefix, row_id)
        self._added += entries

    def restore(self, db: sqlite3.Connection, prefix: bytes, row_id: int) -> None:
        """Write the entry of a row again that the index on the disk may have lost."""
        if row_id not in self.in_memory(prefix):
            db.execute(f"INSERT OR IGNORE INTO {self._table} (prefix, id) VALUES (?, ?)", (prefix, row_id))

    def in_memory(self, prefix: bytes) -> list[int]:
        """Candidates in the memtables. Look here first and on the disk after that, never the other way round."""
        found: list[int] = []
        for memtable in self._memtables:
            row_ids = memtable.get(prefix)
            if row_ids is not None:
                found += _as_tuple(row_ids)
        return found

    def find(self, db: sqlite3.Connection, prefixes: Sequence[bytes]) -> list[int]:
        """Candidates for all of these prefixes, in memory and on the disk."""
        found: list[int] = []
        flushing, newest = self._memtables
        if not (newest.keys().isdisjoint(prefixes) and flushing.keys().isdisjoint(prefixes)):
            found = [row_id for prefix in prefixes for row_id in self.in_memory(prefix)]
        for places, values in placeholders(prefixes):
            query = selecting("id", self._table, "prefix", places)
            found += [row_id for (row_id,) in db.execute(query, values)]
        return list(dict.fromkeys(found))

    def flush(self, db: sqlite3.Connection, *, everything: bool = False) -> None:
        """Write some entries of the memtable that is flushed, or all of them. The last part of a transaction."""
        if not self.is_flushing:
            return
        count = FLUSH_ROWS_MIN + 2 * len(self._added)  # so that the flush ends before the newest memtable is full
        run = self._flushed
        while (everything or len(run) < count) and (self._part or self._parts):
            if not self._part:
                flushing = self._memtables[0]
                self._part = sorted(
                    [(prefix, each) for prefix in self._parts.pop() for each in _as_tuple(flushing[prefix])],
                    reverse=True,
                )  # fmt: skip
            run.append(self._part.pop())
        insert(db, f"{self._table} (prefix, id)", run, verb="INSERT OR IGNORE")
        if not self._part and not self._parts:
            db.execute("UPDATE prefixes_until SET id = ? WHERE name = ?", (self._flush_until, self._table))

    def committed(self) -> None:
        """The transaction is on the disk: readers find the flushed entries there from now on."""
        if self._added:
            self._newest_count += len(self._added)
            self._last_id = self._added[-1][1]
        self._added, self._flushed = [], []
        if self.is_flushing and not self._part and not self._parts:
            self._memtables = ({}, self._memtables[1])
        self._start_flush_if_full()

    def _start_flush_if_full(self) -> None:
        if not self.is_flushing and self._newest_count >= MEMTABLE_ROWS_MAX:
            self._memtables = flushing, _ = self._memtables[1], {}
            parts: dict[bytes, list[bytes]] = {}
            for prefix in flushing:
                parts.setdefault(prefix[:1], []).append(prefix)
            self._parts = [parts[first] for first in sorted(parts, reverse=True)]
            self._flush_until, self._newest_count = self._last_id, 0

    def rolled_back(self, db: sqlite3.Connection) -> None:
        """The transaction left nothing. If the tables have more rows than this index knows, they are read again."""
        for prefix, row_id in self._added:
            _take(self._memtables[1], prefix, row_id)
        self._part += reversed(self._flushed)
        self._added, self._flushed = [], []
        if db.execute(self._rows_query, (self._last_id,)).fetchone() is not None:
            self.load(db)


def _put(memtable: _Memtable, prefix: bytes, row_id: int) -> None:
    row_ids = memtable.get(prefix)
    if row_ids is None:
        memtable[prefix] = row_id
    else:  # the same prefix twice: not by chance, but an attacker can search for one
        memtable[prefix] = (*_as_tuple(row_ids), row_id)


def _take(memtable: _Memtable, prefix: bytes, row_id: int) -> None:
    left = tuple(each for each in _as_tuple(memtable[prefix]) if each != row_id)
    if left:
        memtable[prefix] = left
    else:
        del memtable[prefix]


def _as_tuple(row_ids: int | tuple[int, ...]) -> tuple[int, ...]:
    return row_ids if isinstance(row_ids, tuple) else (row_ids,)


class PrefixIndexes:
    """The three indexes of a store, and the parameters of the SQL conditions that use them."""

    def __init__(self) -> None:
        self.digests = PrefixIndex(
            "digest_prefixes", "SELECT substr(digest, 1, 8), sequence FROM versions WHERE sequence > ?"
        )
        self.keys = PrefixIndex("key_prefixes", "SELECT substr(key, 7, 11), id FROM keys WHERE id > ?")
        self.contents = PrefixIndex("content_prefixes", "SELECT substr(digest, 1, 8), id FROM contents WHERE id > ?")
        self._all = (self.digests, self.keys, self.contents)

    def load(self, db: sqlite3.Connection) -> None:
        for index in self._all:
            index.load(db)

    @property
    def are_flushing(self) -> bool:
        return any(index.is_flushing for index in self._all)

    def flush(self, db: sqlite3.Connection, *, everything: bool = False) -> None:
        for index in self._all:
            index.flush(db, everything=everything)

    def committed(self) -> None:
        for index in self._all:
            index.committed()

    def rolled_back(self, db: sqlite3.Connection) -> None:
        for index in self._all:
            index.rolled_back(db)

    def digest_parameters(self, digest: bytes) -> dict[str, Any]:
        """The parameters of `DIGEST_IS`. Call it before the statement runs: memory is looked at here, the disk then."""
        prefix = digest_prefix(digest)
        return {
            "digest": digest, "digest_prefix": prefix, "digests_in_memory": str(self.digests.in_memory(prefix)),
        }  # fmt: skip

    def key_parameters(self, key: bytes) -> dict[str, Any]:
        """The parameters of `KEY_IS`; see `digest_parameters`."""
        prefix = key_prefix(key)
        return {"key": key, "key_prefix": prefix, "keys_in_memory": str(self.keys.in_memory(prefix))}

    def content_parameters(self, digest: bytes) -> dict[str, Any]:
        """The parameters of `CONTENT_IS`; see `digest_parameters`."""
        prefix = digest_prefix(digest)
        return {
            "content_digest": digest, "content_prefix": prefix,
            "contents_in_memory": str(self.contents.in_memory(prefix)),
        }  # fmt: skip


DIGEST_IS: Final = (
    "v.sequence IN (SELECT id FROM digest_prefixes WHERE prefix = :digest_prefix "
    "UNION ALL SELECT value FROM json_each(:digests_in_memory)) AND v.digest = :digest"
)
KEY_IS: Final = (
    "k.id IN (SELECT id FROM key_prefixes WHERE prefix = :key_prefix "
    "UNION ALL SELECT value FROM json_each(:keys_in_memory)) AND k.key = :key"
)
CONTENT_IS: Final = (
    "c.id IN (SELECT id FROM content_prefixes WHERE prefix = :content_prefix "
    "UNION ALL SELECT value FROM json_each(:contents_in_memory)) AND c.digest = :content_digest"
)


def digest_prefix(digest: bytes) -> bytes:
    return digest[:8]


def key_prefix(key: bytes) -> bytes:
    """The part after '/ucxl/'. It is base64 text: eleven characters hold eight bytes."""
    return key[6:17]
