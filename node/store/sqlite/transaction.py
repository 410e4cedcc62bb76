"""The transaction: everything that a batch changes, all of it or nothing, in the writer's thread.

The results of a batch are reported only after its COMMIT. After a failed one, what is kept in memory of the tables is
read again; so there is nothing to undo anywhere else.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from node.store.commit_work import CommitWork
from node.store.log import Incoming, Merged, Origin
from node.store.sqlite.check import genuine
from node.store.sqlite.deferred_writes import DeferredWrites
from node.store.sqlite.history_blocks import Count, CountChange
from node.store.sqlite.merge import MergeOutcome, Merger, MergeRequest
from node.store.sqlite.prefix_index import CONTENT_IS, DIGEST_IS, KEY_IS, PrefixIndexes, digest_prefix, key_prefix
from node.store.sqlite.rows import REISSUED_AS, SIGN, insert, pair_placeholders
from node.store.sqlite.write_ahead_chain import WriteAheadChain
from protocols.envelope import Envelope, Notice
from protocols.errors import NotFound

T = TypeVar("T")
Operation = Callable[["Transaction"], Any]
"""An operation other than a merge; its result is published and returned to the caller."""


class Reissued(NamedTuple):
    """The result of a reissue."""

    merged: Merged
    old_sequence: int
    key: bytes
    latest_version: int
    outcome: MergeOutcome | None
    """None: it had been reissued before."""


class Mended(NamedTuple):
    """What was done about a damaged row: these keys changed."""

    keys: tuple[bytes, ...]
    digest: bytes = b""
    is_set_aside: bool = False


class NewHints(NamedTuple):
    """Hints that were added, (sequence, holder), and when the oldest of their writes was merged."""

    hints: Sequence[tuple[int, str]]
    oldest_at_ms: int


class Transaction:
    """Used by one thread at a time. `before_commit` is called last inside each commit: a seam for tests."""

    def __init__(self, db: sqlite3.Connection, path: Path, *, before_commit: Callable[[], None] | None = None) -> None:
        self.db = db
        self._before_commit = before_commit
        self._merger = Merger(db)
        self._write_ahead = WriteAheadChain(db, path)
        self._is_loaded = True
        self.work = CommitWork()
        if self.prefixes.are_flushing:  # the store was closed during a flush
            with suppress(sqlite3.Error):  # when this fails, the flush goes on with each commit
                self._in_transaction(lambda: self.prefixes.flush(db, everything=True))

    @property
    def prefixes(self) -> PrefixIndexes:
        return self._merger.prefixes

    @property
    def last_sequence(self) -> int:
        return self._merger.last_sequence

    def commit(self, operations: Sequence[MergeRequest | Operation], deferred: DeferredWrites) -> list[Any]:
        """Commit everything or nothing; return the result of each operation (a merge: a list of `MergeOutcome`)."""
        self.work.begin()
        if not self._is_loaded:
            self._load()

        def write() -> list[Any]:
            if deferred:
                self._write_deferred(deferred)
            results = self._carry_out(operations)
            self.prefixes.flush(self.db)
            self._write_ahead.mark()
            self.work.begin_sync()
            if self._before_commit is not None:
                self._before_commit()
            return results

        results = self._in_transaction(write)
        self.work.end()
        return results

    def _in_transaction(self, write: Callable[[], T]) -> T:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            result = write()
            self.db.execute("COMMIT")
            self.work.end_sync()
        except BaseException:
            self._roll_back()
            raise
        self.prefixes.committed()
        self._write_ahead.committed()
        return result

    def _roll_back(self) -> None:
        self._is_loaded = False
        self._write_ahead.rolled_back()
        with suppress(sqlite3.Error):
            self._load()

    def _load(self) -> None:
        """Read the state of the tables again, after a failed transaction has changed what memory knows of them."""
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self._merger.load()
        self._is_loaded = True

    def _carry_out(self, operations: Sequence[MergeRequest | Operation]) -> list[Any]:
        results: list[Any] = []
        merges: list[MergeRequest] = []
        for operation in operations:
            if isinstance(operation, MergeRequest):
                merges.append(operation)
                continue
            results += self._merger.merge_all(merges)
            merges = []
            results.append(operation(self))
        return results + self._merger.merge_all(merges)

    def _write_deferred(self, deferred: DeferredWrites) -> None:
        holder_id = self._merger.holders.of
        numbers = {holder: holder_id(holder) for holder in deferred.acknowledged}
        rows = [
            (sequence, numbers[holder])
            for holder, sequences in deferred.acknowledged.items()
            for sequence in sequences
        ]  # fmt: skip
        # A trigger deletes the hint.
        insert(self.db, "acknowledged (sequence, holder)", rows, verb="INSERT OR REPLACE")
        if deferred.postponed:
            self.db.executemany(
                "UPDATE hints SET attempts = attempts + ?, next_try_ms = ?, refusal = ? "
                "WHERE holder = ? AND sequence = ?",
                [
                    (attempts, next_try_ms, refusal, holder_id(holder), sequence)
                    for (holder, sequence), (attempts, next_try_ms, refusal) in deferred.postponed.items()
                ],
            )
        if deferred.cursors:
            self.db.executemany("DELETE FROM cursors WHERE name = ?", [(name,) for name in deferred.cursors])
            kept = [(name, sequence) for name, sequence in deferred.cursors.items() if sequence is not None]
            self.db.executemany("INSERT INTO cursors VALUES (?, ?)", kept)
        if deferred.member_logs:
            rows_of_logs = [(peer, *position) for peer, position in deferred.member_logs.items()]
            insert(self.db, "member_logs (peer, log_id, sequence)", rows_of_logs, verb="INSERT OR REPLACE")

    # -- reissuing --------------------------------------------------------------------------------------------

    def reissue(
        self, digest: bytes, replacement: Envelope, holders: tuple[str, ...], now_ms: int
    ) -> Reissued | NotFound:  # fmt: skip
        found = self.db.execute(
            "SELECT v.sequence, v.key_id, v.is_local, v.reissued_as, k.key, v.version, v.author, "
            f"{REISSUED_AS} IS NULL FROM versions v JOIN keys k ON k.id = v.key_id WHERE {DIGEST_IS}",
            self.prefixes.digest_parameters(digest),
        ).fetchone()
        if found is None or not found[2]:
            return NotFound(f"{digest.hex()} is no local write of this log", digest=digest.hex())
        sequence, key_id, _, reissued_as, key, version, author, is_current = found
        outcome = None
        if reissued_as is None:
            self.db.execute("UPDATE versions SET reissued_as = ? WHERE sequence = ?", (replacement.digest, sequence))
            if is_current:
                change = CountChange(key_id, (version, author, digest), Count(0, 1, 0))
                self._merger.blocks.update([change])
            self.db.execute(
                "DELETE FROM hints WHERE sequence = ? AND holder IN (SELECT id FROM holders)", (sequence,)
            )  # fmt: skip
            outcome = self._merger.merge(Incoming(replacement, Origin.LOCAL, holders), now_ms)
            self.db.execute("DELETE FROM heads WHERE key_id = ? AND sequence = ?", (key_id, sequence))
            merged = Merged(outcome.sequence, outcome.is_new)
        else:
            merged = Merged(self._final_sequence(reissued_as), False)
        return Reissued(merged, sequence, key, self.latest_version(), outcome)

    def _final_sequence(self, digest: bytes) -> int:
        """The sequence of the version at the end of a chain of reissues."""
        while True:
            sequence, reissued_as = self.db.execute(
                f"SELECT v.sequence, v.reissued_as FROM versions v WHERE {DIGEST_IS}",
                self.prefixes.digest_parameters(digest),
            ).fetchone()
            if reissued_as is None:
                return int(sequence)
            digest = reissued_as

    def latest_version(self) -> int:
        (latest,) = self.db.execute("SELECT max(version) FROM versions WHERE reissued_as IS NULL").fetchone()
        return latest + SIGN if latest is not None else 0

    # -- damage -----------------------------------------------------------------------------------------------

    def mend_row(self, sequence: int, *, rebuilds_keys: bool = True) -> Mended:
        """Write the row of a version again as its header says; set header or content aside that is not genuine.

        What is derived from all versions of a key is made anew only where the row was wrong: that takes the longer the
        more versions there are.
        """
        row = self._row_of(sequence)
        if row is None or row[-2] is None:
            return Mended(())
        digest, key_id, *_, content_id, header, signature = row
        notice = genuine(header, signature)
        if notice is None:
            self.db.execute("INSERT OR REPLACE INTO damaged VALUES (?, NULL, ?)", (sequence, header + signature))
            self.db.execute("UPDATE versions SET header = NULL, signature = NULL WHERE sequence = ?", (sequence,))
            return Mended(self._keys(key_id), digest, True)
        right_key_id = self._key_id_of(notice, key_id)
        self.db.execute(
            "UPDATE versions SET digest = ?, key_id = ?, version = ?, author = ?, deleted = ?, parents = ? "
            "WHERE sequence = ?",
            (notice.digest, right_key_id, notice.version - SIGN, notice.author, notice.deleted,
             b"".join(notice.parents), sequence),
        )  # fmt: skip
        self.prefixes.digests.restore(self.db, digest_prefix(notice.digest), sequence)
        is_set_aside = content_id is not None and self._mend_content(notice, content_id, sequence)
        if rebuilds_keys and self._row_of(sequence) != row:
            for each in dict.fromkeys((key_id, right_key_id)):
                self._merger.rebuild_key(each)
        return Mended(self._keys(key_id, right_key_id), notice.digest, is_set_aside)

    def _row_of(self, sequence: int) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self.db.execute(
            "SELECT digest, key_id, version, author, deleted, parents, content_id, header, signature FROM versions "
            "WHERE sequence = ?",
            (sequence,),
        ).fetchone()
        return row

    def _mend_content(self, notice: Notice, content_id: int, sequence: int) -> bool:
        """Mend the row of a content; return whether it had to be set aside."""
        row = self.db.execute("SELECT digest, content FROM contents WHERE id = ?", (content_id,)).fetchone()
        if row is not None and row[1] is not None and sha256(row[1]).digest() == notice.content_digest:
            self.db.execute("UPDATE contents SET digest = ? WHERE id = ?", (notice.content_digest, content_id))
            self.prefixes.contents.restore(self.db, digest_prefix(notice.content_digest), content_id)
            return False
        if row is None or row[0] != notice.content_digest:  # the row of another content, or of none
            found = self.db.execute(
                f"SELECT c.id FROM contents c WHERE {CONTENT_IS}",
                self.prefixes.content_parameters(notice.content_digest),
            ).fetchone()
            right = found[0] if found is not None else None
            self.db.execute("UPDATE versions SET content_id = ? WHERE sequence = ?", (right, sequence))
            return False
        if row[1] is None:
            return False
        self.db.execute("INSERT OR REPLACE INTO damaged VALUES (?, ?, ?)", (sequence, content_id, row[1]))
        self.db.execute("UPDATE contents SET content = NULL WHERE id = ?", (content_id,))
        return True

    def rebuild_key(self, key_id: int) -> Mended:
        self._merger.rebuild_key(key_id)
        return Mended(self._keys(key_id))

    def _key_id_of(self, notice: Notice, key_id: int) -> int:
        """The number of the version's key; if no row has that key, the row of this number is the damaged one."""
        parameters = self.prefixes.key_parameters(notice.key)
        found = self.db.execute(f"SELECT k.id FROM keys k WHERE {KEY_IS}", parameters).fetchone()
        if found is None:
            found = self.db.execute("SELECT id FROM keys WHERE key = ?", (notice.key,)).fetchone()
        if found is not None:
            self.prefixes.keys.restore(self.db, key_prefix(notice.key), found[0])
            return int(found[0])
        self.db.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", (key_id, notice.key, notice.address))
        self.prefixes.keys.restore(self.db, key_prefix(notice.key), key_id)
        return key_id

    def _keys(self, *key_ids: int) -> tuple[bytes, ...]:
        found = [self.db.execute("SELECT key FROM keys WHERE id = ?", (key_id,)).fetchone() for key_id in key_ids]
        return tuple(dict.fromkeys(row[0] for row in found if row is not None))

    # -- hints ------------------------------------------------------------------------------------------------

    def add_hints(self, hints: Sequence[tuple[int, str]]) -> NewHints:
        """Add hints (sequence, holder) for local writes; those that exist or are acknowledged are skipped."""
        holder_id = self._merger.holders.of
        peers = {holder_id(peer): peer for peer in dict.fromkeys([peer for _, peer in hints])}
        new: list[tuple[int, str]] = []
        for places, values in pair_placeholders((sequence, holder_id(peer)) for sequence, peer in hints):
            new += [
                (sequence, peers[holder])
                for sequence, holder in self.db.execute(
                    "INSERT OR IGNORE INTO hints (sequence, holder) "
                    f"SELECT h.column1, h.column2 FROM {places} h "
                    "JOIN versions v ON v.sequence = h.column1 AND v.is_local = 1 AND v.reissued_as IS NULL "
                    "WHERE NOT EXISTS "
                    "(SELECT 1 FROM acknowledged a WHERE a.sequence = h.column1 AND a.holder = h.column2) "
                    "RETURNING sequence, holder",
                    values,
                )
            ]
        if not new:
            return NewHints((), 0)
        oldest = min(sequence for sequence, _ in new)
        (at_ms,) = self.db.execute("SELECT at_ms FROM versions WHERE sequence = ?", (oldest,)).fetchone()
        return NewHints(new, at_ms)

    def quarantine_hint(self, holder: str, sequence: int, refusal: str) -> None:
        self.db.execute(
            "UPDATE hints SET is_refused = 1, attempts = attempts + 1, next_try_ms = 0, refusal = ? "
            "WHERE holder = ? AND sequence = ? AND is_refused = 0",
            (refusal, self._merger.holders.of(holder), sequence),
        )

    def retry_quarantined(self) -> None:
        self.db.execute("UPDATE hints SET is_refused = 0 WHERE is_refused = 1")

    def drop_holder(self, holder: str) -> None:
        self.db.execute("DELETE FROM hints WHERE holder = ?", (self._merger.holders.of(holder),))

    def forget_acknowledged(self, holder: str) -> int:
        deleted = self.db.execute("DELETE FROM acknowledged WHERE holder = ?", (self._merger.holders.of(holder),))
        return deleted.rowcount

    # -- staged envelopes -------------------------------------------------------------------------------------

    def stage(self, envelope: Envelope, idempotency_key: str | None, now_ms: int) -> None:
        self._merger.prune(now_ms)
        staged = self.db.execute(
            "INSERT OR IGNORE INTO staged SELECT :digest, :encoded, :now_ms, :name "
            f"WHERE NOT EXISTS (SELECT 1 FROM versions v WHERE {DIGEST_IS} AND v.content_id IS NOT NULL)",
            self.prefixes.digest_parameters(envelope.digest)
            | {"encoded": envelope.encoded, "now_ms": now_ms, "name": idempotency_key},
        )
        if staged.rowcount > 0:
            self._merger.staged.add(envelope.digest)

    def unstage(self, digest: bytes) -> None:
        self.db.execute("DELETE FROM staged WHERE digest = ?", (digest,))
        self._merger.staged.discard(digest)
