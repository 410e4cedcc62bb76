"""The transaction: everything that a batch changes, all of it or nothing, in the writer's thread.

What a batch came to is told only after the COMMIT, and what is kept in memory of the tables is read anew after one
that failed; so there is nothing to be undone anywhere else.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from node.store.log import Incoming, Merged, Origin
from node.store.sqlite.deferred_writes import DeferredWrites
from node.store.sqlite.merge import Merger, Merging, Placed
from node.store.sqlite.prefix_index import DIGEST_IS, PrefixIndexes
from node.store.sqlite.rows import SIGN, insert, pairs_among
from protocols.envelope import Envelope
from protocols.errors import NotFound

Operation = Callable[["Transaction"], Any]
"""What a caller handed in, other than a merge; what it answers becomes what the caller is told."""


class Reissued(NamedTuple):
    """What became of a reissue."""

    merged: Merged
    old_sequence: int
    stale: bytes
    latest: int
    placed: Placed | None
    """None: it had been reissued before."""


class NewHints(NamedTuple):
    """Hints that were added, (sequence, holder), and when the oldest of their writes was merged."""

    debts: Sequence[tuple[int, str]]
    oldest_at_ms: int


class Transaction:
    """Used by one thread at a time. `before_commit` is called inside each commit, last: a seam for tests."""

    def __init__(self, db: sqlite3.Connection, *, before_commit: Callable[[], None] | None = None) -> None:
        self.db = db
        self._before_commit = before_commit
        self._merger = Merger(db)
        self._is_loaded = True
        if self.starts.are_moving:  # when the store was closed
            with suppress(sqlite3.Error), self._transaction():  # else they go on a bit with each commit
                self.starts.move(db, all_of_it=True)

    @property
    def starts(self) -> PrefixIndexes:
        return self._merger.starts

    @property
    def last_sequence(self) -> int:
        return self._merger.last_sequence

    def commit(self, operations: Sequence[Merging | Operation], lazies: DeferredWrites) -> list[Any]:
        """All of it in one transaction; what each came to (a merge: a list of `Placed`). All or nothing."""
        if not self._is_loaded:
            self._load()
        with self._transaction():
            if lazies:
                self._apply(lazies)
            results = self._carry_out(operations)
            self.starts.move(self.db)
            if self._before_commit is not None:
                self._before_commit()
        return results

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self.starts.committed()

    def _roll_back(self) -> None:
        self._is_loaded = False
        with suppress(sqlite3.Error):
            self._load()

    def _load(self) -> None:
        """Where the tables are now, whatever a transaction that failed had made of them."""
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self._merger.load()
        self._is_loaded = True

    def _carry_out(self, operations: Sequence[Merging | Operation]) -> list[Any]:
        results: list[Any] = []
        merges: list[Merging] = []
        for operation in operations:
            if isinstance(operation, Merging):
                merges.append(operation)
                continue
            results += self._merger.merge_all(merges)
            merges = []
            results.append(operation(self))
        return results + self._merger.merge_all(merges)

    def _apply(self, lazies: DeferredWrites) -> None:
        numbers = {holder: self._merger.holder(holder) for holder in lazies.paid}
        rows = [(sequence, numbers[holder]) for holder, sequences in lazies.paid.items() for sequence in sequences]
        insert(self.db, "acknowledged (sequence, holder)", rows, verb="INSERT OR REPLACE")  # and its hint goes
        if lazies.postponed:
            self.db.executemany(
                "UPDATE hints SET attempts = attempts + ?, next_try_ms = ?, refusal = ? "
                "WHERE holder = ? AND sequence = ?",
                [
                    (attempts, next_try_ms, refusal, self._merger.holder(holder), sequence)
                    for (holder, sequence), (attempts, next_try_ms, refusal) in lazies.postponed.items()
                ],
            )
        if lazies.cursors:
            self.db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?)", list(lazies.cursors.items()))

    # -- reissuing --------------------------------------------------------------------------------------------

    def reissue(
        self, digest: bytes, replacement: Envelope, holders: tuple[str, ...], now_ms: int
    ) -> Reissued | NotFound:  # fmt: skip
        found = self.db.execute(
            "SELECT v.sequence, v.key_id, v.is_local, v.reissued_as, k.key FROM versions v "
            f"JOIN keys k ON k.id = v.key_id WHERE {DIGEST_IS}",
            self.starts.digest(digest),
        ).fetchone()
        if found is None or not found[2]:
            return NotFound(f"{digest.hex()} is no local write of this log", digest=digest.hex())
        sequence, key_id, _, reissued_as, key = found
        placed = None
        if reissued_as is None:
            self.db.execute("UPDATE versions SET reissued_as = ? WHERE sequence = ?", (replacement.digest, sequence))
            self.db.execute(
                "DELETE FROM hints WHERE sequence = ? AND holder IN (SELECT id FROM holders)", (sequence,)
            )  # fmt: skip
            self.db.execute("DELETE FROM orphans WHERE child = ?", (digest,))
            placed = self._merger.merge(Incoming(replacement, Origin.LOCAL, holders), now_ms)
            self._merger.rebuild(key_id)
        merged = Merged(placed.sequence, placed.is_new) if placed else Merged(self._standing_in(reissued_as), False)
        return Reissued(merged, sequence, key, self.latest_version(), placed)

    def _standing_in(self, digest: bytes) -> int:
        while True:
            sequence, reissued_as = self.db.execute(
                f"SELECT v.sequence, v.reissued_as FROM versions v WHERE {DIGEST_IS}", self.starts.digest(digest)
            ).fetchone()
            if reissued_as is None:
                return int(sequence)
            digest = reissued_as

    def latest_version(self) -> int:
        (latest,) = self.db.execute("SELECT max(version) FROM versions WHERE reissued_as IS NULL").fetchone()
        return latest + SIGN if latest is not None else 0

    # -- hints ------------------------------------------------------------------------------------------------

    def add_hints(self, debts: Sequence[tuple[int, str]]) -> NewHints:
        """Add hints for own writes."""
        peers = {self._merger.holder(peer): peer for peer in dict.fromkeys([peer for _, peer in debts])}
        new: list[tuple[int, str]] = []
        for places, values in pairs_among((sequence, self._merger.holder(peer)) for sequence, peer in debts):
            new += [
                (sequence, peers[holder])
                for sequence, holder in self.db.execute(
                    "INSERT OR IGNORE INTO hints (sequence, holder) "
                    f"SELECT d.column1, d.column2 FROM {places} d "
                    "JOIN versions v ON v.sequence = d.column1 AND v.is_local = 1 AND v.reissued_as IS NULL "
                    "WHERE NOT EXISTS "
                    "(SELECT 1 FROM acknowledged a WHERE a.sequence = d.column1 AND a.holder = d.column2) "
                    "RETURNING sequence, holder",
                    values,
                )
            ]
        if not new:
            return NewHints((), 0)
        oldest = min(sequence for sequence, _ in new)
        (at_ms,) = self.db.execute("SELECT at_ms FROM versions WHERE sequence = ?", (oldest,)).fetchone()
        return NewHints(new, at_ms)

    def refuse(self, holder: str, sequence: int, refusal: str) -> None:
        self.db.execute(
            "UPDATE hints SET is_refused = 1, attempts = attempts + 1, next_try_ms = 0, refusal = ? "
            "WHERE holder = ? AND sequence = ? AND is_refused = 0",
            (refusal, self._merger.holder(holder), sequence),
        )

    def retry_quarantined(self) -> None:
        self.db.execute("UPDATE hints SET is_refused = 0 WHERE is_refused = 1")

    def release(self, holder: str) -> None:
        self.db.execute("DELETE FROM hints WHERE holder = ?", (self._merger.holder(holder),))

    # -- staged envelopes -------------------------------------------------------------------------------------

    def stage(self, envelope: Envelope, idempotency_key: str | None, now_ms: int) -> None:
        self._merger.prune(now_ms)
        staged = self.db.execute(
            "INSERT OR IGNORE INTO staged SELECT :digest, :encoded, :now_ms, :name "
            f"WHERE NOT EXISTS (SELECT 1 FROM versions v WHERE {DIGEST_IS} AND v.encoded IS NOT NULL)",
            self.starts.digest(envelope.digest)
            | {"encoded": envelope.encoded, "now_ms": now_ms, "name": idempotency_key},
        )
        if staged.rowcount > 0:
            self._merger.staged.add(envelope.digest)

    def unstage(self, digest: bytes) -> None:
        self.db.execute("DELETE FROM staged WHERE digest = ?", (digest,))
        self._merger.staged.discard(digest)
