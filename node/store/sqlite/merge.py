"""Merging versions into the tables: decided and written in the writer's thread.

Whether a version is known, which heads it ends and which holders get a hint is decided here, from the tables alone, so
that a failed batch leaves nothing to undo elsewhere. A run of merges is decided in Python over one look-up, and then
written with one statement a table. The rule of heads is that of `protocols/heads.py`; a row in `orphans` stands for an
edge to a parent that is not held (yet).
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from node.store.log import IDEMPOTENCY_MS, Incoming, Origin
from node.store.sqlite.history_blocks import Count, CountChange, HistoryBlocks
from node.store.sqlite.holder_ids import HolderIds
from node.store.sqlite.merge_lookup import KnownContent, KnownVersion, MergeLookup
from node.store.sqlite.meta import last_sequence
from node.store.sqlite.prefix_index import PrefixIndexes, digest_prefix, key_prefix
from node.store.sqlite.row_buffer import RowBuffer
from node.store.sqlite.rows import ORIGIN_NUMBERS, SIGN, insert, parents_of
from protocols.envelope import Envelope, Notice
from protocols.heads import HeadSet

PRUNE_MS = 60_000


class MergeRequest(NamedTuple):
    """One call of `merge`."""

    batch: Sequence[Incoming]
    now_ms: int


class MergeOutcome(NamedTuple):
    """What a merge did with one version, as far as the caches and the hint index need to know."""

    incoming: Incoming
    at_ms: int
    sequence: int
    is_new: bool
    is_head: bool = False
    is_first: bool = False
    """It is the first version of its key."""
    superseded: tuple[bytes, ...] = ()
    new_hints: tuple[str, ...] = ()
    """Holders that get a hint and had none before."""
    new_acknowledged: tuple[str, ...] = ()
    """Holders whose acknowledgement is new."""
    is_completion: bool = False
    """The content of a version is here that came as a notice, or what was damaged of one: its heads have to be read
    again."""


class Merger:
    """The tables of versions. Used by one thread at a time, within a transaction of the caller."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.prefixes = PrefixIndexes()
        self.prefixes.load(db)
        self.holders = HolderIds(db)
        self.blocks = HistoryBlocks(db)
        self._lookup = MergeLookup(db, self.prefixes)
        self._buffer = RowBuffer()
        self._pruned_ms = 0
        self._read_state()

    def load(self) -> None:
        """Read again what is kept of the tables between transactions, after one was rolled back."""
        self._buffer = RowBuffer()
        self.holders.load()
        self.blocks.load()
        self._lookup.load()
        self._read_state()
        self.prefixes.rolled_back(self._db)

    def _read_state(self) -> None:
        db = self._db
        self.last_sequence = last_sequence(db)
        self._last_key_id: int = db.execute("SELECT ifnull(max(id), 0) FROM keys").fetchone()[0]
        self.staged: set[bytes] = {digest for (digest,) in db.execute("SELECT digest FROM staged")}

    def merge_all(self, requests: Sequence[MergeRequest]) -> list[list[MergeOutcome]]:
        if not requests:
            return []
        self._lookup.read([incoming.item for request in requests for incoming in request.batch])
        outcomes = [[self._merge_one(each, request.now_ms) for each in request.batch] for request in requests]
        self._write_buffer()
        self._lookup.clear()
        self.prune(max(request.now_ms for request in requests))
        return outcomes

    def merge(self, incoming: Incoming, now_ms: int) -> MergeOutcome:
        """Merge one version, within an operation that does more than that."""
        return self.merge_all([MergeRequest((incoming,), now_ms)])[0][0]

    def _merge_one(self, incoming: Incoming, now_ms: int) -> MergeOutcome:
        digest = incoming.item.digest
        known = self._lookup.versions.get(digest)
        outcome = self._add(incoming, now_ms) if known is None else self._merge_known(known, incoming, now_ms)
        if incoming.idempotency_key is not None and incoming.origin is Origin.LOCAL:
            self._buffer.idempotency.append((incoming.idempotency_key, digest, now_ms))
        if self.staged and digest in self.staged and (isinstance(incoming.item, Envelope) or outcome.is_completion):
            self._buffer.unstaged.append(digest)
        return outcome

    # -- new versions -----------------------------------------------------------------------------------------

    def _add(self, incoming: Incoming, now_ms: int) -> MergeOutcome:
        item, origin, holders, acknowledged, _ = incoming
        digest, version, rows, lookup = item.digest, item.version - SIGN, self._buffer, self._lookup
        self.last_sequence += 1
        sequence = self.last_sequence
        key_id = lookup.key_ids.get(item.key)
        is_first = key_id is None
        if key_id is None:
            key_id = self._add_key(item)
        is_local = origin is Origin.LOCAL
        is_reissued = bool(lookup.reissues) and (key_id, item.author) in lookup.reissues.get(digest, ())
        is_head = not self._has_later_child(digest, key_id, version) and not is_reissued
        if is_head:
            rows.heads[key_id, sequence] = None
        superseded: tuple[bytes, ...] = ()
        if item.parents:
            superseded = self._end_parents(digest, key_id, version, item.parents)
        if item.meta:
            superseded += self._end_reissued(item.reissues, sequence, key_id, item.author)
        content_id = self._content_id(item, sequence, sequence)
        rows.versions.append((
            sequence, digest, key_id, version, item.author, item.deleted, ORIGIN_NUMBERS[origin], is_local, now_ms,
            content_id, b"".join(item.parents), item.header, item.signature,
        ))  # fmt: skip
        if not is_first:
            more = Count(1, int(is_reissued), int(content_id is not None))
            rows.count_changes.append(CountChange(key_id, (version, item.author, digest), more))
        if lookup.is_named_again:
            lookup.versions[digest] = KnownVersion(
                sequence, key_id, version, item.author, content_id, is_local, is_reissued=False, is_lost=False
            )
        new_hints: tuple[str, ...] = ()
        new_acknowledged: tuple[str, ...] = ()
        if is_local and (holders or acknowledged):
            new_acknowledged = tuple(dict.fromkeys(acknowledged))
            new_hints = tuple([holder for holder in dict.fromkeys(holders) if holder not in new_acknowledged])
            holder_id = self.holders.of
            rows.hints += [(holder_id(holder), sequence) for holder in new_hints]
            rows.acknowledged += [(sequence, holder_id(holder)) for holder in new_acknowledged]
        return MergeOutcome(
            incoming, now_ms, sequence, True, is_head, is_first, superseded, new_hints, new_acknowledged,
            is_completion=content_id is not None and not isinstance(item, Envelope),
        )  # fmt: skip

    def _add_key(self, item: Envelope | Notice) -> int:
        self._last_key_id += 1
        self._lookup.key_ids[item.key] = self._last_key_id
        self._buffer.keys.append((self._last_key_id, item.key, item.address))
        return self._last_key_id

    def _content_id(self, item: Envelope | Notice, entry: int, sequence: int) -> int | None:
        """The row of the content, which is added, or made whole again; None for a notice whose content is not here.

        `entry` is the entry in the log with which it comes, `sequence` the version.
        """
        known = self._lookup.contents.get(item.content_digest)
        if not isinstance(item, Envelope):  # its author may have signed another size
            return known.id if known is not None and known.size_bytes == item.content_size else None
        if known is None:
            known = KnownContent(entry, item.content_size)
            self._buffer.contents.append((entry, item.content_digest, sequence, item.content))
        elif not known.is_whole:
            known = KnownContent(known.id, item.content_size)
            self._db.execute("UPDATE contents SET content = ? WHERE id = ?", (item.content, known.id))
            self._db.execute("DELETE FROM damaged WHERE content_id = ?", (known.id,))
        self._lookup.contents[item.content_digest] = known
        return known.id

    def _has_later_child(self, digest: bytes, key_id: int, version: int) -> bool:
        """Whether a later version of the same key came before this one and names it as a parent."""
        orphans = self._lookup.orphans
        if digest not in orphans:
            return False
        self._buffer.arrived_parents.append(digest)
        return any(key == key_id and child > version for key, child in orphans.pop(digest))

    def _end_parents(
        self, digest: bytes, key_id: int, version: int, parents: Iterable[bytes]
    ) -> tuple[bytes, ...]:  # fmt: skip
        """A version is no head once a later one names it as a parent; return the parents of which this is true."""
        superseded: list[bytes] = []
        for parent in parents:
            known = self._lookup.versions.get(parent)
            if known is None:
                self._buffer.orphans.append((parent, digest, key_id, version))
                self._lookup.orphans.setdefault(parent, []).append((key_id, version))
            elif known.key_id == key_id and known.version < version:
                self._end_head(known)
                superseded.append(parent)
        return tuple(superseded)

    def _end_reissued(
        self, reissued: Iterable[bytes], sequence: int, key_id: int, author: str
    ) -> tuple[bytes, ...]:  # fmt: skip
        """A version is no head once its author has reissued it; return the known versions of which this is true."""
        ended: list[bytes] = []
        for old in reissued:
            self._lookup.has_reissues = True
            by = self._lookup.reissues.setdefault(old, [])
            known = self._lookup.versions.get(old)
            if known is not None and (known.key_id, known.author) == (key_id, author):
                if not known.is_reissued and (key_id, author) not in by:
                    self._buffer.count_changes.append(CountChange(key_id, (known.version, author, old), Count(0, 1, 0)))
                self._end_head(known)
                ended.append(old)
            by.append((key_id, author))
            self._buffer.reissues.append((old, sequence))
        return tuple(ended)

    def _end_head(self, known: KnownVersion) -> None:
        """A version is no head from now on; it may not have been one."""
        rows = self._buffer
        if (known.key_id, known.sequence) in rows.heads:
            del rows.heads[known.key_id, known.sequence]
        else:
            rows.ended_heads.append((known.key_id, known.sequence))

    # -- known versions ---------------------------------------------------------------------------------------

    def _merge_known(self, known: KnownVersion, incoming: Incoming, now_ms: int) -> MergeOutcome:
        """A version that is known came again: with its content, or with more holders."""
        item, origin, holders, acknowledged, _ = incoming
        is_completion = known.is_lost or (not self._is_held(known, item) and self._has_content(item))
        if not is_completion and origin is not Origin.LOCAL:
            return MergeOutcome(incoming, now_ms, known.sequence, False)
        self._write_buffer()
        if is_completion:
            self._complete(known, item, origin, now_ms)
        new_hints: list[str] = []
        new_acknowledged: list[str] = []
        if origin is Origin.LOCAL:
            if not known.is_local:
                self._db.execute("UPDATE versions SET is_local = 1 WHERE sequence = ?", (known.sequence,))
                known.is_local = True
            if not known.is_reissued:
                new_acknowledged = [peer for peer in acknowledged if self._insert_acknowledged(known.sequence, peer)]
                new_hints = [holder for holder in holders if self._insert_hint(known.sequence, holder)]
        (at_ms,) = self._db.execute("SELECT at_ms FROM versions WHERE sequence = ?", (known.sequence,)).fetchone()
        return MergeOutcome(
            incoming, at_ms, known.sequence, is_completion, new_hints=tuple(new_hints),
            new_acknowledged=tuple(new_acknowledged), is_completion=is_completion,
        )  # fmt: skip

    def _insert_acknowledged(self, sequence: int, peer: str) -> bool:
        row = (sequence, self.holders.of(peer))
        return self._db.execute("INSERT OR IGNORE INTO acknowledged VALUES (?, ?)", row).rowcount > 0

    def _insert_hint(self, sequence: int, peer: str) -> bool:
        return self._db.execute(
            "INSERT OR IGNORE INTO hints (holder, sequence) SELECT :holder, :sequence "
            "WHERE NOT EXISTS (SELECT 1 FROM acknowledged WHERE sequence = :sequence AND holder = :holder)",
            {"holder": self.holders.of(peer), "sequence": sequence},
        ).rowcount > 0  # fmt: skip

    def _is_held(self, known: KnownVersion, item: Envelope | Notice) -> bool:
        content = self._lookup.contents.get(item.content_digest)
        return known.content_id is not None and content is not None and content.is_whole

    def _has_content(self, item: Envelope | Notice) -> bool:
        """Whether its content came with it, or is here as that of another version."""
        return isinstance(item, Envelope) or self._content_id(item, 0, 0) is not None

    def _complete(self, known: KnownVersion, item: Envelope | Notice, origin: Origin, now_ms: int) -> None:
        """Add the content of a known version, or its header that was found damaged; with a log entry of its own."""
        self.last_sequence += 1
        self._db.execute(
            "INSERT INTO completions VALUES (?, ?, ?, ?)",
            (self.last_sequence, known.sequence, ORIGIN_NUMBERS[origin], now_ms),
        )
        if known.is_lost:
            self._restore_header(known, item)
        content_id = self._content_id(item, self.last_sequence, known.sequence) or known.content_id
        if known.content_id is None and content_id is not None:
            place = (known.version, known.author, item.digest)
            self._buffer.count_changes.append(CountChange(known.key_id, place, Count(0, 0, 1)))
        known.content_id = content_id
        self._db.execute("UPDATE versions SET content_id = ? WHERE sequence = ?", (known.content_id, known.sequence))
        self._write_buffer()

    def _restore_header(self, known: KnownVersion, item: Envelope | Notice) -> None:
        """Write the whole row again: what a disk did to the header, it may have done to the columns beside it."""
        key_ids = dict.fromkeys((known.key_id, self._lookup.key_ids.get(item.key) or self._add_key(item)))
        known.key_id, known.version, known.author = [*key_ids][-1], item.version - SIGN, item.author
        known.is_lost = False
        self._write_buffer()
        self._db.execute(
            "UPDATE versions SET key_id = ?, version = ?, author = ?, deleted = ?, parents = ?, header = ?, "
            "signature = ? WHERE sequence = ?",
            (known.key_id, known.version, item.author, item.deleted, b"".join(item.parents), item.header,
             item.signature, known.sequence),
        )  # fmt: skip
        self._db.execute("DELETE FROM damaged WHERE sequence = ? AND content_id IS NULL", (known.sequence,))
        self._end_parents(item.digest, known.key_id, known.version, item.parents)
        self._end_reissued(item.reissues, known.sequence, known.key_id, known.author)
        self._write_buffer()
        for key_id in key_ids:
            self.rebuild_key(key_id)

    def rebuild_key(self, key_id: int) -> None:
        """Make anew what is derived from all versions of a key: its heads and the blocks of its history."""
        self.rebuild_heads(key_id)
        self.blocks.rebuild(key_id)

    def rebuild_heads(self, key_id: int) -> None:
        """Compute the heads of a key again from its versions."""
        head_set = HeadSet()
        sequences: dict[bytes, int] = {}
        for digest, sequence, version, parents, author, is_reissued in self._db.execute(
            "SELECT digest, sequence, version, parents, author, reissued_as IS NOT NULL FROM versions WHERE key_id = ?",
            (key_id,),
        ):
            sequences[digest] = sequence
            head_set.add(digest, version + SIGN, parents_of(parents), author=author)
            if is_reissued:
                head_set.add_reissues((digest,), author)
        for old, author in self._db.execute(
            "SELECT s.reissued, v.author FROM versions v JOIN reissues s ON s.sequence = v.sequence WHERE v.key_id = ?",
            (key_id,),
        ):
            head_set.add_reissues((old,), author)
        self._db.execute("DELETE FROM heads WHERE key_id = ?", (key_id,))
        insert(self._db, "heads (key_id, sequence)", [(key_id, sequences[digest]) for digest in head_set.heads()])

    # -- writing ----------------------------------------------------------------------------------------------

    def _write_buffer(self) -> None:
        rows, self._buffer = self._buffer, RowBuffer()
        prefixes = self.prefixes
        if rows.versions:
            prefixes.digests.add([(digest_prefix(digest), sequence) for sequence, digest, *_ in rows.versions])
        if rows.keys:
            prefixes.keys.add([(key_prefix(key), key_id) for key_id, key, _ in rows.keys])
        if rows.contents:
            prefixes.contents.add([(digest_prefix(digest), content_id) for content_id, digest, *_ in rows.contents])
        self._lookup.has_orphans = rows.write(self._db) or self._lookup.has_orphans
        if rows.count_changes:
            self.blocks.update(rows.count_changes)
        self.staged.difference_update(rows.unstaged)

    def prune(self, now_ms: int) -> None:
        """Delete what has expired, at most once in `PRUNE_MS`."""
        if now_ms >= self._pruned_ms + PRUNE_MS:
            self._pruned_ms = now_ms
            self._db.execute("DELETE FROM idempotency WHERE at_ms < ?", (now_ms - IDEMPOTENCY_MS,))
            if self.staged:
                old = (now_ms - IDEMPOTENCY_MS,)
                gone = self._db.execute("DELETE FROM staged WHERE at_ms < ? RETURNING digest", old)
                self.staged.difference_update([digest for (digest,) in gone])
