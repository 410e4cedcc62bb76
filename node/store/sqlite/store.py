"""The store of a node: one SQLite file, one thread that writes, one that reads, and what is hot in memory.

A write goes through `Writer` to the `Transaction` in the writer's thread, and is told to the caches, the debts and
whoever waits only after its COMMIT, back on the trio thread: nobody ever sees what a crash could take back. Reads come
from memory, else from the reader's thread; they never wait for the writer. Acknowledgements and postponements count at
once (in `Debts` and `WriteCache`) and are written along with the next commit.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import trio

from node.store.base import StoreStats
from node.store.change_listeners import ChangeListeners
from node.store.completion import CallbackCompletion
from node.store.errors import StoreRefused
from node.store.hints import Hint, Pending, Standing
from node.store.log import Change, Incoming, Merged, Origin
from node.store.members import Member
from node.store.signal import Signal
from node.store.sqlite import queries, schema
from node.store.sqlite.file_lock import FileLock
from node.store.sqlite.heads_cache import HeadsCache, Loading
from node.store.sqlite.merge import Merging, Placed
from node.store.sqlite.reader import Reader
from node.store.sqlite.transaction import NewHints, Reissued, Transaction
from node.store.sqlite.write_cache import AcknowledgementSignals, CachedWrite, WriteCache
from node.store.sqlite.writer import CLOSE_SECONDS, Writer
from node.store.versions import Version
from protocols.envelope import Envelope, Notice
from protocols.errors import NotFound, StorageFull, Unavailable

CACHE_BYTES = 24 * 1024 * 1024
RECENT_WRITES = 8192
LOOKS_MAX = 2
"""How often hints are read until no commit came between: then what is told of attempts may be one off. Under load there
is a commit in every look, and who looked until there is none would look for ever."""


class SqliteStore:
    """See `base.Store`. Made by `open`; then `nursery.start(store.run)`; it is closed when that is cancelled."""

    def __init__(
        self,
        path: Path,
        lock: FileLock,
        connections: tuple[sqlite3.Connection, sqlite3.Connection],
        *,
        cache_bytes: int,
        before_commit: Callable[[], None] | None,
    ) -> None:
        self.path = path
        self._lock = lock
        self._connections = connections
        db = connections[1]
        self.log_id = queries.log_id(db)
        self._ledger = Transaction(connections[0], before_commit=before_commit)
        self._starts = self._ledger.starts
        self._writer = Writer(self._ledger, path, self._published)
        self._reader = Reader(db, path)
        self.last_sequence = self._ledger.last_sequence
        self._versions = self.last_sequence - queries.count_learned(db)
        self._counted = self.last_sequence
        """Whose first entry is up to here has been counted."""
        self._latest = self._ledger.latest_version()
        self._heads = HeadsCache(cache_bytes)
        self._loading = Loading()
        self._recent = WriteCache(RECENT_WRITES)
        self._debts = queries.debts(db)
        self._oldest = self._read_oldest(db)
        self._members = queries.members(db)
        self._cursors = queries.cursors(db)
        self._grown = Signal()
        self.change_listeners = ChangeListeners()
        self._bells = AcknowledgementSignals()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        random_id: str,
        cache_bytes: int = CACHE_BYTES,
        max_pages: int | None = None,
        before_commit: Callable[[], None] | None = None,
    ) -> Self:
        """Open the store in a file, or make one with `random_id` (16 hex digits) as its log id. Reads the disk.

        `max_pages` bounds the file (4 KiB a page), beyond it writes raise `StorageFull`. `before_commit` is called in
        the writer's thread before each COMMIT, a seam for tests: it may be slow, or raise. Raises `StoreRefused`.
        """
        lock = FileLock.take(path.with_name(path.name + ".lock"), what=f"the store {path}")
        try:
            connections = schema.opened(path, log_id=random_id)
            try:
                if max_pages is not None:
                    connections[0].execute(f"PRAGMA max_page_count = {max_pages}")
                return cls(path, lock, connections, cache_bytes=cache_bytes, before_commit=before_commit)
            except BaseException:
                _close(*connections)
                raise
        except BaseException as error:
            lock.release()
            if isinstance(error, sqlite3.Error):
                raise StoreRefused(f"{path} cannot be read: {error}; it was left as it is") from error
            raise

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Cancelled, it commits what was handed in and closes the file, in `CLOSE_SECONDS` whatever the disk does."""
        task_status.started()
        async with trio.open_nursery() as nursery:
            with trio.CancelScope(shield=True) as last_orders:
                nursery.start_soon(self._close_when_cancelled, last_orders)
                try:
                    async with trio.open_nursery() as threads:
                        threads.start_soon(self._reader.run)
                        await self._writer.run()
                        self._reader.close()
                finally:
                    await trio.to_thread.run_sync(_close, *self._connections, abandon_on_cancel=True)
                    self._lock.release()
            nursery.cancel_scope.cancel()

    async def _close_when_cancelled(self, last_orders: trio.CancelScope) -> None:
        try:
            await trio.sleep_forever()
        finally:
            last_orders.deadline = trio.current_time() + CLOSE_SECONDS
            self._writer.close()

    @property
    def last_failure(self) -> str:
        return self._writer.last_failure

    @property
    def committing_since(self) -> float | None:
        return self._writer.committing_since

    @property
    def commits(self) -> int:
        """How many transactions were committed since it was opened."""
        return self._writer.commits

    @property
    def failures(self) -> int:
        """How many transactions failed since it was opened."""
        return self._writer.failures

    # -- the one door -----------------------------------------------------------------------------------------

    async def merge(self, batch: Sequence[Incoming], *, now_ms: int) -> list[Merged]:
        if not batch:
            return []
        merged: list[Merged] = await self._writer.hand_in(
            Merging(tuple(batch), now_ms), self._publish_all, size_bytes=_size_bytes(batch)
        )  # fmt: skip
        return merged

    def merge_in_background(
        self, batch: Sequence[Incoming], *, now_ms: int, on_done: Callable[[list[Merged] | BaseException], None]
    ) -> None:
        self._writer.post(
            Merging(tuple(batch), now_ms), self._publish_all, CallbackCompletion(on_done), size_bytes=_size_bytes(batch)
        )  # fmt: skip

    def merge_without_waiting(self, batch: Sequence[Incoming], *, now_ms: int) -> list[Merged] | None:
        return None  # here a disk has to be waited for

    def _publish_all(self, placed: Sequence[Placed]) -> list[Merged]:
        return [self._publish(each) for each in placed]

    def _publish(self, placed: Placed) -> Merged:
        item = placed.incoming.item
        sequence = placed.sequence
        if placed.stale:
            for key in placed.stale:
                self._touch(key)
        elif placed.is_new:
            self._publish_heads(item, placed)
        if placed.is_new and placed.sequence > self._counted:  # else more is known of one that was counted
            self._counted = placed.sequence
            self._versions += 1
        if placed.is_new and item.version > self._latest:
            self._latest = item.version
        if placed.incoming.origin is Origin.LOCAL:
            self._publish_write(item, placed)
        return Merged(sequence, placed.is_new)

    def _publish_heads(self, item: Envelope | Notice, placed: Placed) -> None:
        self._loading.touch(item.key)
        if placed.is_alone:
            self._heads.put(item.key, (item,))
        else:
            self._heads.place(item, is_head=placed.is_head, superseded=placed.superseded)
        self.change_listeners.tell(item.key)

    def _touch(self, key: bytes) -> None:
        self._loading.touch(key)
        self._heads.drop(key)
        self.change_listeners.tell(key)

    def _publish_write(self, item: Envelope | Notice, placed: Placed) -> None:
        sequence = placed.sequence
        known = self._recent.get(sequence)
        if placed.is_new and not placed.stale:
            self._recent.add(
                CachedWrite(sequence, item.digest, item.key, item.address, placed.at_ms, list(placed.paid))
            )  # fmt: skip
        elif known is not None:
            known.acknowledged += [peer for peer in placed.paid if peer not in known.acknowledged]
        for holder in placed.paid:
            self._debts.remove(holder, sequence)
        for holder in placed.owed:
            self._debts.add(holder, sequence)
        if placed.owed:
            self._note_oldest(sequence, placed.at_ms)
        self._bells.ring(sequence)

    def _published(self, last_sequence: int) -> None:
        if last_sequence > self.last_sequence:
            self.last_sequence = last_sequence
            self._grown.ring()

    async def settled(self) -> None:
        with suppress(StorageFull, Unavailable):  # what is handed in is carried out in its order
            await self._hand_in(lambda ledger: None)

    async def reissue(self, digest: bytes, replacement: Envelope, holders: tuple[str, ...], *, now_ms: int) -> Merged:
        merged: Merged = await self._writer.hand_in(
            lambda ledger: ledger.reissue(digest, replacement, holders, now_ms),
            partial(self._publish_reissue, digest), size_bytes=len(replacement.encoded),
        )  # fmt: skip
        return merged

    def _publish_reissue(self, digest: bytes, reissued: Reissued | NotFound) -> Merged | NotFound:
        if isinstance(reissued, NotFound):
            return reissued
        if reissued.placed is not None:
            self._publish(reissued.placed)
            self._debts.remove_all(reissued.old_sequence)
            self._recent.drop(reissued.old_sequence)
            self._touch(reissued.stale)
            self._latest = reissued.latest
            self._bells.ring(reissued.old_sequence)
        return reissued.merged

    # -- versions ---------------------------------------------------------------------------------------------

    async def heads(self, key: bytes) -> tuple[Envelope | Notice, ...]:
        heads = self._heads.get(key)
        while heads is None:
            load = self._loading.begin(key)
            try:
                read = await self._reader.ask(lambda db: queries.heads(db, self._starts, key))
            finally:
                self._loading.end(key, load)
            if not load.is_stale:
                self._heads.put(key, read)
                return read
            heads = self._heads.get(key)
        return heads

    async def by_digest(self, digest: bytes) -> Envelope | Notice | None:
        cached = self._heads.by_digest(digest)
        if cached is not None:
            return cached
        until = self.last_sequence
        return await self._reader.ask(lambda db: queries.by_digest(db, self._starts, digest, until))

    async def versions(self, key: bytes, *, after: int = 0, limit: int = 1000) -> list[Version]:
        return await self._reader.ask(lambda db: queries.versions(db, self._starts, key, after, limit))

    async def stand_in(self, digest: bytes) -> bytes:
        return await self._reader.ask(lambda db: queries.stand_in(db, self._starts, digest))

    async def count_versions(self, key: bytes) -> int:
        return await self._reader.ask(lambda db: queries.count_versions(db, self._starts, key))

    async def idempotent(self, idempotency_key: str) -> bytes | None:
        return await self._reader.ask(lambda db: queries.idempotent(db, idempotency_key))

    def latest_version(self) -> int:
        return self._latest

    # -- the log ----------------------------------------------------------------------------------------------

    async def log(self, *, after: int, limit: int = 1000) -> list[Change]:
        until = min(self.last_sequence, after + limit)
        return await self._reader.ask(lambda db: queries.log(db, after, until)) if after < until else []

    async def local_writes(self, *, after: int, limit: int = 1000) -> list[Change]:
        until = self.last_sequence
        return await self._reader.ask(lambda db: queries.local_writes(db, after, until, limit))

    async def wait_until_grown(self, after: int) -> int:
        while self.last_sequence <= after:
            await self._grown.listen()
        return self.last_sequence

    async def cursor(self, name: str) -> int:
        return self._cursors.get(name, 0)

    async def set_cursor(self, name: str, sequence: int) -> None:
        self._cursors[name] = sequence
        self._writer.lazies.cursors[name] = sequence
        self._writer.go_along()

    # -- hints ------------------------------------------------------------------------------------------------

    async def due_hints(self, holder: str, *, after: int = 0, limit: int = 64, now_ms: int) -> list[Hint]:
        picked = self._debts.pick(holder, after=after, limit=limit, now_ms=now_ms)
        found = await self._read_hints(holder, picked)
        return [hint for hint in found if self._debts.is_due(holder, hint.sequence)]

    async def _read_hints(self, holder: str, sequences: Sequence[int]) -> list[Hint]:
        """What these hints say, from memory or else from the disk; those that were paid meanwhile are left out."""
        hints: dict[int, Hint] = {}
        for sequence in sequences:
            write = self._recent.get(sequence)
            hint = write.hint(holder) if write is not None else None
            if hint is not None:
                hints[sequence] = hint
        rest = [sequence for sequence in sequences if sequence not in hints]
        if rest:
            hints.update(await self._load_hints(holder, rest))
        return [hints[sequence] for sequence in sequences if sequence in hints]

    async def _load_hints(self, holder: str, sequences: Sequence[int]) -> dict[int, Hint]:
        rows: dict[int, queries.Owed] = {}
        for _ in range(LOOKS_MAX):
            committed = self._writer.lazies_committed
            rows = await self._reader.ask(lambda db: queries.due_hints(db, holder, sequences))
            if committed == self._writer.lazies_committed:
                break
        hints: dict[int, Hint] = {}
        for sequence, row in rows.items():
            attempts, next_try_ms, refusal = row.attempts, row.next_try_ms, row.refusal
            for lazies in (self._writer.committing, self._writer.lazies):
                more = lazies.postponed.get((holder, sequence))
                if more is not None:
                    attempts, next_try_ms, refusal = attempts + more[0], more[1], more[2]
            if self._debts.owes(holder, sequence):
                hints[sequence] = Hint(
                    holder=holder, sequence=sequence, digest=row.digest, key=row.key, address=row.address,
                    attempts=attempts, next_try_ms=next_try_ms, refusal=refusal,
                    is_refused=self._debts.is_refused(holder, sequence), at_ms=row.at_ms,
                )  # fmt: skip
        return hints

    def next_hint_due(self, holder: str) -> int | None:
        return self._debts.next_due(holder)

    def hint_counts(self) -> dict[str, int]:
        return self._debts.hint_counts()

    def acknowledge(self, holder: str, sequences: Iterable[int]) -> None:
        for sequence in sequences:
            if self._debts.remove(holder, sequence):
                self._writer.lazies.pay(holder, sequence)
                write = self._recent.get(sequence)
                if write is not None:
                    write.acknowledged.append(holder)
                self._bells.ring(sequence, len(write.acknowledged) if write is not None else None)
        self._writer.go_along()

    def postpone_hint(self, holder: str, sequence: int, *, next_try_ms: int, refusal: str) -> None:
        if self._debts.park(holder, sequence, next_try_ms):
            self._tried(holder, sequence)
            self._writer.lazies.postpone(holder, sequence, 1, next_try_ms, refusal)
            self._writer.go_along()

    def _tried(self, holder: str, sequence: int) -> None:
        write = self._recent.get(sequence)
        if write is not None:
            if write.tried is None:
                write.tried = set()
            write.tried.add(holder)

    async def quarantine_hint(self, holder: str, sequence: int, *, refusal: str) -> None:
        def publish(_: None) -> None:
            if self._debts.refuse(holder, sequence):
                self._tried(holder, sequence)

        await self._writer.hand_in(lambda ledger: ledger.refuse(holder, sequence, refusal), publish)

    async def retry_quarantined(self) -> int:
        retried: int = await self._writer.hand_in(
            lambda ledger: ledger.retry_quarantined(), lambda _: len(self._debts.retry_quarantined())
        )  # fmt: skip
        return retried

    async def add_hints(self, hints: Iterable[tuple[int, str]]) -> int:
        asked = [(sequence, holder) for sequence, holder in hints if not self._debts.owes(holder, sequence)]
        if not asked:
            return 0
        count: int = await self._writer.hand_in(lambda ledger: ledger.add_hints(asked), self._publish_owed)
        return count

    def _publish_owed(self, new: NewHints) -> int:
        for sequence, holder in new.debts:
            self._debts.add(holder, sequence)
        if new.debts:
            self._note_oldest(min(new.debts)[0], new.oldest_at_ms)
        return len(new.debts)

    async def drop_holder(self, holder: str) -> list[int]:
        released: list[int] = await self._writer.hand_in(
            lambda ledger: ledger.release(holder), lambda _: self._debts.release(holder)
        )  # fmt: skip
        return released

    def stats(self) -> StoreStats:
        size_bytes = 0
        for name in (self.path.name, f"{self.path.name}-wal"):
            with suppress(OSError):
                size_bytes += self.path.with_name(name).stat().st_size
        return StoreStats(
            versions=self._versions, size_bytes=size_bytes, commits=self.commits, commit_failures=self.failures,
            at_risk=self._debts.writes(),
        )  # fmt: skip

    def pending(self) -> Pending:
        return Pending(self._debts.count(), self._oldest_at_ms(), self._debts.refused)

    def _oldest_at_ms(self) -> int | None:
        """Of a write that memory does not know, the moment of the one before it, until it has been read."""
        oldest = self._debts.oldest()
        if oldest is None:
            self._oldest = None
            return None
        write = self._recent.get(oldest)
        if write is not None:
            self._oldest = (oldest, write.at_ms)
        elif self._oldest is None or self._oldest[0] != oldest:
            self._reader.post(lambda db: (oldest, queries.at_ms(db, oldest)), self._found_oldest)
        return self._oldest[1] if self._oldest is not None else None

    def _found_oldest(self, oldest: tuple[int, int]) -> None:
        self._oldest = oldest

    def _note_oldest(self, sequence: int, at_ms: int) -> None:
        if self._oldest is None or sequence < self._oldest[0]:
            self._oldest = (sequence, at_ms)

    def _read_oldest(self, db: sqlite3.Connection) -> tuple[int, int] | None:
        oldest = self._debts.oldest()
        return (oldest, queries.at_ms(db, oldest)) if oldest is not None else None

    async def hints(self, *, is_refused: bool | None = None, limit: int = 1000) -> list[Hint]:
        listed = self._debts.listed(is_refused=is_refused, limit=limit)
        by_holder: dict[str, list[int]] = {}
        for sequence, holder in listed:
            by_holder.setdefault(holder, []).append(sequence)
        hints = {
            (hint.sequence, holder): hint
            for holder, sequences in by_holder.items()
            for hint in await self._read_hints(holder, sequences)
        }
        return [hints[pair] for pair in listed if pair in hints]

    async def standing(self, *, digest: bytes | None = None, sequence: int | None = None) -> Standing | None:
        write = None
        if digest is not None:
            write = self._recent.by_digest(digest)
        elif sequence is not None:
            write = self._recent.get(sequence)
        if write is not None:
            return self._stands(write.sequence, write.digest, write.acknowledged, write.at_ms)
        while True:
            committed = self._writer.lazies_committed
            stood = await self._reader.ask(lambda db: queries.standing(db, self._starts, digest, sequence))
            if committed == self._writer.lazies_committed:
                break
        if stood is None or stood.sequence > self.last_sequence:
            return None
        acknowledged = list(stood.acknowledged)
        for lazies in (self._writer.committing, self._writer.lazies):
            acknowledged += [
                holder for holder, paid in lazies.paid.items() if stood.sequence in paid and holder not in acknowledged
            ]
        return self._stands(stood.sequence, stood.digest, acknowledged, stood.at_ms)

    def _stands(self, sequence: int, digest: bytes, acknowledged: Sequence[str], at_ms: int) -> Standing:
        wanted = len(acknowledged) + len(self._debts.holders_of(sequence))
        return Standing(sequence, digest, tuple(acknowledged), wanted, at_ms)

    async def replicated(self, digest: bytes, count: int) -> Standing:
        while True:
            write = self._recent.by_digest(digest)
            if write is not None and len(write.acknowledged) < count:
                await self._bells.listen(write.sequence, count)
                continue
            standing = await self.standing(digest=digest)
            if standing is None:
                raise NotFound(f"{digest.hex()} is no local write of this log", digest=digest.hex())
            if len(standing.acknowledged) >= count:
                return standing
            await self._bells.listen(standing.sequence, count)

    # -- staged envelopes -------------------------------------------------------------------------------------

    async def stage(self, envelope: Envelope, *, idempotency_key: str | None = None, now_ms: int) -> None:
        await self._hand_in(
            lambda ledger: ledger.stage(envelope, idempotency_key, now_ms), size_bytes=len(envelope.encoded)
        )

    async def staged_under(self, idempotency_key: str) -> Envelope | None:
        return await self._reader.ask(lambda db: queries.staged_under(db, idempotency_key))

    async def unstage(self, digest: bytes) -> None:
        await self._hand_in(lambda ledger: ledger.unstage(digest))

    # -- members and providers --------------------------------------------------------------------------------

    def members(self) -> tuple[Member, ...]:
        return tuple(self._members[peer] for peer in sorted(self._members))

    async def save_member(self, member: Member) -> None:
        row = (
            member.peer, member.name, json.dumps(member.addresses), member.first_seen_ms, member.last_seen_ms,
            json.dumps(member.labels),
        )  # fmt: skip
        await self._hand_in(
            lambda ledger: ledger.db.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?)", row),
            lambda: self._members.update({member.peer: member}),
        )

    async def forget_member(self, peer: str) -> None:
        await self._hand_in(
            lambda ledger: ledger.db.execute("DELETE FROM members WHERE peer = ?", (peer,)),
            lambda: self._members.pop(peer, None),
        )

    async def provide(self, key: bytes, peer: str, *, expires_ms: int) -> None:
        row = (key, peer, expires_ms)
        await self._hand_in(
            lambda ledger: ledger.db.execute("INSERT OR REPLACE INTO providers VALUES (?, ?, ?)", row)
        )  # fmt: skip

    async def providers(self, key: bytes, *, now_ms: int) -> list[str]:
        return await self._reader.ask(lambda db: queries.providers(db, key, now_ms))

    async def _hand_in(
        self, operation: Callable[[Transaction], Any], then: Callable[[], Any] = lambda: None, *, size_bytes: int = 0
    ) -> None:  # fmt: skip
        await self._writer.hand_in(operation, lambda _: then() and None, size_bytes=size_bytes)


def _size_bytes(batch: Sequence[Incoming]) -> int:
    return sum([len(incoming.item.encoded) for incoming in batch if isinstance(incoming.item, Envelope)])


def _close(writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
    """Leaves one file when it can; what cannot be moved into it now is as safe in the log beside it."""
    reader.close()
    with suppress(sqlite3.Error):
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writer.close()
