"""Merging: what becomes of versions that come to the tables, decided and written in the writer's thread.

Whether a version is known, which heads it ends and who is owed it is decided here, against the tables alone, so that
a batch that fails leaves nothing to be undone elsewhere. A run of merges is decided in Python over what one look-up
found, and then written with one statement a table. The rule of heads is that of `protocols/heads.py`; of an edge
to a parent that is not held (yet), a row in `orphans` reminds.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from node.store.log import IDEMPOTENCY_MS, Incoming, Origin
from node.store.sqlite.prefix_index import PrefixIndexes, start_of_digest, start_of_key
from node.store.sqlite.row_buffer import RowBuffer
from node.store.sqlite.rows import ORIGIN_NUMBERS, SIGN, among, insert, parents_of
from protocols.envelope import Envelope, Notice
from protocols.heads import HeadSet

PRUNE_MS = 60_000


class Merging(NamedTuple):
    """A merge that a caller handed in."""

    batch: Sequence[Incoming]
    now_ms: int


class Placed(NamedTuple):
    """What became of one version in a merge, as far as the caches and the debts need to know."""

    incoming: Incoming
    at_ms: int
    sequence: int
    is_new: bool
    is_head: bool = False
    is_alone: bool = False
    """It is the first version of its key."""
    superseded: tuple[bytes, ...] = ()
    owed: tuple[str, ...] = ()
    """Who is owed it now and was not before."""
    paid: tuple[str, ...] = ()
    """Who has acknowledged it now and had not before."""
    stale: tuple[bytes, ...] = ()
    """Keys whose heads have to be read anew."""


@dataclass(slots=True)
class _Row:
    """A version as the merge needs it."""

    sequence: int
    key_id: int
    version: int
    parents: bytes
    author: str
    is_held: bool
    is_local: bool
    is_reissued: bool


class Merger:
    """The versions' tables. Used by one thread at a time, within a transaction that somebody else makes."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.starts = PrefixIndexes()
        self._rows: dict[bytes, _Row] = {}
        self._key_ids: dict[bytes, int] = {}
        self._orphans: dict[bytes, list[tuple[int, int]]] = {}
        self._stand_ins: dict[bytes, list[tuple[int, str]]] = {}
        self._unwritten = RowBuffer()
        self._pruned_ms = 0
        self.starts.load(db)
        self.load()

    def load(self) -> None:
        """What is kept of the tables between transactions; again after one that was rolled back."""
        db = self._db
        self._forget()
        self.last_sequence: int = db.execute(
            "SELECT max(ifnull((SELECT max(sequence) FROM versions), 0), "
            "ifnull((SELECT max(sequence) FROM learned), 0))"
        ).fetchone()[0]
        self._last_key_id: int = db.execute("SELECT ifnull(max(id), 0) FROM keys").fetchone()[0]
        self._has_orphans = bool(db.execute("SELECT EXISTS (SELECT 1 FROM orphans)").fetchone()[0])
        self._has_reissues = bool(db.execute("SELECT EXISTS (SELECT 1 FROM stand_ins)").fetchone()[0])
        self._holders: dict[str, int] = dict(db.execute("SELECT peer, id FROM holders"))
        self.staged: set[bytes] = {digest for (digest,) in db.execute("SELECT digest FROM staged")}
        self.starts.rolled_back(db)

    def holder(self, peer: str) -> int:
        number = self._holders.get(peer)
        if number is None:
            self._db.execute("INSERT INTO holders (peer) VALUES (?)", (peer,))
            (number,) = self._db.execute("SELECT last_insert_rowid()").fetchone()
            self._holders[peer] = number
        return number

    def merge_all(self, merges: Sequence[Merging]) -> list[list[Placed]]:
        if not merges:
            return []
        self._look_up([incoming.item for merge in merges for incoming in merge.batch])
        placed = [[self._merge_one(each, merge.now_ms) for each in merge.batch] for merge in merges]
        self._write()
        self._forget()
        self.prune(max(merge.now_ms for merge in merges))
        return placed

    def merge(self, incoming: Incoming, now_ms: int) -> Placed:
        """One alone, for operations that merge among other things."""
        return self.merge_all([Merging((incoming,), now_ms)])[0][0]

    def _look_up(self, items: Sequence[Envelope | Notice]) -> None:
        """What the tables know of these versions, their parents, their keys, and of children that came before them."""
        digests = list(dict.fromkeys([digest for item in items for digest in (item.digest, *item.parents)]))
        digests += [old for item in items for old in item.reissues if old not in digests]
        for places, values in among(self.starts.digests.find(self._db, [start_of_digest(d) for d in digests])):
            for digest, *row in self._db.execute(
                "SELECT digest, sequence, key_id, version, parents, author, encoded IS NOT NULL, is_local, "
                f"reissued_as IS NOT NULL FROM versions WHERE sequence IN {places}",
                values,
            ):
                self._rows[digest] = _Row(*row)
        keys = dict.fromkeys([item.key for item in items])
        for places, values in among(self.starts.keys.find(self._db, [start_of_key(key) for key in keys])):
            self._key_ids.update(self._db.execute(f"SELECT key, id FROM keys WHERE id IN {places}", values))
        if self._has_orphans:
            for places, values in among(list(dict.fromkeys([item.digest for item in items]))):
                for parent, key_id, version in self._db.execute(
                    f"SELECT parent, key_id, version FROM orphans WHERE parent IN {places}", values
                ):
                    self._orphans.setdefault(parent, []).append((key_id, version))
        if self._has_reissues:
            for places, values in among(list(dict.fromkeys([item.digest for item in items]))):
                for old, key_id, author in self._db.execute(
                    "SELECT s.old, v.key_id, v.author FROM stand_ins s JOIN versions v ON v.sequence = s.sequence "
                    f"WHERE s.old IN {places}",
                    values,
                ):
                    self._stand_ins.setdefault(old, []).append((key_id, author))

    def _merge_one(self, incoming: Incoming, now_ms: int) -> Placed:
        digest = incoming.item.digest
        row = self._rows.get(digest)
        placed = self._place(incoming, now_ms) if row is None else self._again(row, incoming, now_ms)
        if incoming.origin is Origin.LOCAL and incoming.idempotency_key is not None:
            self._unwritten.idempotency.append((incoming.idempotency_key, digest, now_ms))
        if digest in self.staged and isinstance(incoming.item, Envelope):
            self._unwritten.unstaged.append(digest)
        return placed

    def _place(self, incoming: Incoming, now_ms: int) -> Placed:
        """A new version."""
        item, origin, holders, acknowledged, _ = incoming
        digest, version, rows = item.digest, item.version - SIGN, self._unwritten
        self.last_sequence += 1
        sequence = self.last_sequence
        key_id = self._key_ids.get(item.key)
        is_alone = key_id is None
        if key_id is None:
            key_id = self._new_key(item)
        is_local = origin is Origin.LOCAL
        is_head = not self._is_named_later(digest, key_id, version)
        is_head = is_head and (key_id, item.author) not in self._stand_ins.get(digest, ())
        if is_head:
            rows.heads[key_id, sequence] = None
        superseded = self._name_parents(digest, key_id, version, item.parents)
        superseded += self._stand_in_for(item.reissues, sequence, key_id, item.author)
        parents = b"".join(item.parents)
        content_type, size_bytes, encoded = _content(item)
        rows.versions.append((
            sequence, digest, key_id, version, item.author, item.deleted, ORIGIN_NUMBERS[origin], is_local, now_ms,
            parents, content_type, size_bytes, encoded,
        ))  # fmt: skip
        self.starts.digests.add(start_of_digest(digest), sequence)
        self._rows[digest] = _Row(sequence, key_id, version, parents, item.author, encoded is not None, is_local, False)
        owed: tuple[str, ...] = ()
        paid: tuple[str, ...] = ()
        if is_local and (holders or acknowledged):
            paid = tuple(dict.fromkeys(acknowledged))
            owed = tuple(holder for holder in dict.fromkeys(holders) if holder not in paid)
            rows.hints += [(self.holder(holder), sequence) for holder in owed]
            rows.acknowledged += [(sequence, self.holder(holder)) for holder in paid]
        return Placed(incoming, now_ms, sequence, True, is_head, is_alone, superseded, owed, paid)

    def _new_key(self, item: Envelope | Notice) -> int:
        self._last_key_id += 1
        self._key_ids[item.key] = self._last_key_id
        self.starts.keys.add(start_of_key(item.key), self._last_key_id)
        self._unwritten.keys.append((self._last_key_id, item.key, item.address))
        return self._last_key_id

    def _is_named_later(self, digest: bytes, key_id: int, version: int) -> bool:
        """Whether a later version of the same key came before this one and names it as a parent."""
        if digest not in self._orphans:
            return False
        self._unwritten.found.append(digest)
        return any(key == key_id and child > version for key, child in self._orphans.pop(digest))

    def _stand_in_for(
        self, reissued: Iterable[bytes], sequence: int, key_id: int, author: str
    ) -> tuple[bytes, ...]:  # fmt: skip
        """A version reissues others; answers those that are known, and are no heads after that."""
        ended: list[bytes] = []
        for old in reissued:
            self._has_reissues = True
            self._stand_ins.setdefault(old, []).append((key_id, author))
            self._unwritten.stand_ins.append((old, sequence))
            row = self._rows.get(old)
            if row is not None and (row.key_id, row.author) == (key_id, author):
                self._end(row)
                ended.append(old)
        return tuple(ended)

    def _end(self, row: _Row) -> None:
        """A version is no head any more, or has not been one."""
        rows = self._unwritten
        if (row.key_id, row.sequence) in rows.heads:
            del rows.heads[row.key_id, row.sequence]
        else:
            rows.ended.append((row.key_id, row.sequence))

    def _name_parents(
        self, digest: bytes, key_id: int, version: int, parents: Iterable[bytes]
    ) -> tuple[bytes, ...]:  # fmt: skip
        """A version names its parents; those of them that are no heads after that (whether or not they were)."""
        superseded: list[bytes] = []
        rows = self._unwritten
        for parent in parents:
            row = self._rows.get(parent)
            if row is None:
                rows.orphans.append((parent, digest, key_id, version))
                self._orphans.setdefault(parent, []).append((key_id, version))
            elif row.key_id == key_id and row.version < version:
                self._end(row)
                superseded.append(parent)
        return tuple(superseded)

    def _again(self, row: _Row, incoming: Incoming, now_ms: int) -> Placed:
        """A version that is known: it may tell more of itself, and it may be owed to more."""
        item, origin, holders, acknowledged, _ = incoming
        is_more = not row.is_held and (isinstance(item, Envelope) or bool(item.parents and not row.parents))
        if not is_more and origin is not Origin.LOCAL:
            return Placed(incoming, now_ms, row.sequence, False)
        self._write()
        stale = self._learn(row, item, origin, now_ms) if is_more else ()
        owed: list[str] = []
        paid: list[str] = []
        if origin is Origin.LOCAL:
            if not row.is_local:
                self._db.execute("UPDATE versions SET is_local = 1 WHERE sequence = ?", (row.sequence,))
                row.is_local = True
            if not row.is_reissued:
                paid = [peer for peer in acknowledged if self._pay(row.sequence, peer)]
                owed = [holder for holder in holders if self._owe(row.sequence, holder)]
        (at_ms,) = self._db.execute("SELECT at_ms FROM versions WHERE sequence = ?", (row.sequence,)).fetchone()
        return Placed(incoming, at_ms, row.sequence, is_more, owed=tuple(owed), paid=tuple(paid), stale=stale)

    def _pay(self, sequence: int, peer: str) -> bool:
        row = (sequence, self.holder(peer))
        return self._db.execute("INSERT OR IGNORE INTO acknowledged VALUES (?, ?)", row).rowcount > 0

    def _owe(self, sequence: int, peer: str) -> bool:
        number = self.holder(peer)
        return self._db.execute(
            "INSERT OR IGNORE INTO hints (holder, sequence) SELECT :holder, :sequence "
            "WHERE NOT EXISTS (SELECT 1 FROM acknowledged WHERE sequence = :sequence AND holder = :holder)",
            {"holder": number, "sequence": sequence},
        ).rowcount > 0  # fmt: skip

    def _learn(self, row: _Row, item: Envelope | Notice, origin: Origin, now_ms: int) -> tuple[bytes, ...]:
        """More is known of a version now, possibly other than what its notice said; answers the keys this touches.

        A notice is worth what its sender is worth: a second one adds the parents that were unknown, and nothing else.
        """
        self.last_sequence += 1
        self._db.execute(
            "INSERT INTO learned VALUES (?, ?, ?, ?)",
            (self.last_sequence, row.sequence, ORIGIN_NUMBERS[origin], now_ms),
        )
        old_key_id, old_parents, old_version, old_author = row.key_id, row.parents, row.version, row.author
        row.parents = b"".join(item.parents)
        if isinstance(item, Envelope):
            row.key_id = self._key_ids.get(item.key) or self._new_key(item)
            row.version, row.author, row.is_held = item.version - SIGN, item.author, True
            self._write()
            self._db.execute(
                "UPDATE versions SET key_id = ?, version = ?, author = ?, deleted = ?, parents = ?, content_type = ?, "
                "size_bytes = ?, encoded = ? WHERE sequence = ?",
                (row.key_id, row.version, item.author, item.deleted, row.parents, *_content(item), row.sequence),
            )  # fmt: skip
        else:
            self._db.execute("UPDATE versions SET parents = ? WHERE sequence = ?", (row.parents, row.sequence))
        is_as_said = (row.key_id, row.version, row.author) == (old_key_id, old_version, old_author)
        is_as_said = is_as_said and old_parents in (b"", row.parents)
        if not is_as_said:
            self._db.execute("DELETE FROM orphans WHERE child = ?", (item.digest,))
        self._look_up([item])
        self._name_parents(item.digest, row.key_id, row.version, item.parents)
        self._stand_in_for(item.reissues, row.sequence, row.key_id, row.author)
        self._write()
        if not is_as_said:
            self.rebuild(old_key_id)
            self.rebuild(row.key_id)
        return tuple(
            key for (key,) in self._db.execute("SELECT key FROM keys WHERE id IN (?, ?)", (old_key_id, row.key_id))
        )  # fmt: skip

    def rebuild(self, key_id: int) -> None:
        """The heads of a key from scratch."""
        lineage = HeadSet()
        sequences: dict[bytes, int] = {}
        for digest, sequence, version, parents, author in self._db.execute(
            "SELECT digest, sequence, version, parents, author FROM versions WHERE key_id = ? AND reissued_as IS NULL",
            (key_id,),
        ):
            sequences[digest] = sequence
            lineage.add(digest, version + SIGN, parents_of(parents), author=author)
        for old, author in self._db.execute(
            "SELECT s.old, v.author FROM versions v JOIN stand_ins s ON s.sequence = v.sequence WHERE v.key_id = ?",
            (key_id,),
        ):
            lineage.add_reissues((old,), author)
        self._db.execute("DELETE FROM heads WHERE key_id = ?", (key_id,))
        insert(self._db, "heads (key_id, sequence)", [(key_id, sequences[digest]) for digest in lineage.heads()])

    def _write(self) -> None:
        """Everything that was decided on."""
        rows, self._unwritten = self._unwritten, RowBuffer()
        self._has_orphans = rows.write(self._db) or self._has_orphans
        self.staged.difference_update(rows.unstaged)

    def _forget(self) -> None:
        """What was looked up for a merge is not kept for the next."""
        self._unwritten = RowBuffer()
        self._rows = {}
        self._key_ids = {}
        self._orphans = {}
        self._stand_ins = {}

    def prune(self, now_ms: int) -> None:
        """Once in a while: drop what had its time."""
        if now_ms >= self._pruned_ms + PRUNE_MS:
            self._pruned_ms = now_ms
            self._db.execute("DELETE FROM idempotency WHERE at_ms < ?", (now_ms - IDEMPOTENCY_MS,))
            self._db.execute("DELETE FROM providers WHERE expires_ms <= ?", (now_ms,))
            if self.staged:
                old = (now_ms - IDEMPOTENCY_MS,)
                gone = self._db.execute("DELETE FROM staged WHERE at_ms < ? RETURNING digest", old)
                self.staged.difference_update([digest for (digest,) in gone])


def _content(item: Envelope | Notice) -> tuple[str, int, bytes | None]:
    if isinstance(item, Envelope):
        return item.content_type, len(item.content), item.encoded
    return "", 0, None
