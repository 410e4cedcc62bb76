"""The store of a node: one SQLite file, one thread that writes, one that reads, and caches in memory.

A write goes through `Writer` to the `Transaction` in the writer's thread. The caches, the hint index and the waiting
callers get its result only after its COMMIT, back on the trio thread: no caller sees what a crash could undo.
Reads come from memory, else from the reader's thread; they never wait for the writer.
"""

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import trio

from node.store.base import StoreStats
from node.store.change_listeners import ChangeListeners
from node.store.completion import CallbackCompletion
from node.store.damage import Damage
from node.store.disk_latency import DiskLatency
from node.store.errors import StoreRefused
from node.store.hints import Hint, Pending, Standing
from node.store.log import Change, Incoming, Merged, Origin
from node.store.members import Member
from node.store.sqlite import log_rows, queries, schema
from node.store.sqlite.check import check_page
from node.store.sqlite.connection import PATH_BYTES_MAX
from node.store.sqlite.file_guard import FileGuard
from node.store.sqlite.file_lock import FileLock
from node.store.sqlite.heads_cache import HeadLoads, HeadsCache
from node.store.sqlite.hints import SqliteHints
from node.store.sqlite.history import SqliteHistories
from node.store.sqlite.merge import MergeOutcome, MergeRequest
from node.store.sqlite.reader import Reader
from node.store.sqlite.rows import DamagedRow, LostHeads
from node.store.sqlite.transaction import Mended, Reissued, Transaction
from node.store.sqlite.writer import CLOSE_SECONDS, Writer
from node.store.versions import Version, VersionRef
from protocols.envelope import Envelope, Notice
from protocols.errors import Internal, NotFound, StorageFull, Unavailable
from protocols.log_lineage import LogPosition, log_of

log = logging.getLogger(__name__)

T = TypeVar("T")

CACHE_BYTES = 24 * 1024 * 1024


def refuse_long_path(path: Path) -> None:
    """Raises `StoreRefused` for a path that SQLite does not take. Nothing is made."""
    if (length := len(os.fsencode(os.path.realpath(path)))) > PATH_BYTES_MAX:
        raise StoreRefused(
            f"the path of the store would have {length} bytes, and SQLite takes at most {PATH_BYTES_MAX}; name a "
            "shorter data directory with --data-dir"
        )


class SqliteStore:
    """See `base.Store`. Made by `open`; then `nursery.start(store.run)`; it is closed when that is cancelled."""

    def __init__(
        self,
        path: Path,
        lock: FileLock,
        opened: schema.Opened,
        *,
        cache_bytes: int,
        before_commit: Callable[[], None] | None,
        fixed_files: Iterable[Path],
    ) -> None:
        self.path = path
        self._lock = lock
        self._has_run = False
        self._connections = (opened.writer, opened.reader)
        db = opened.reader
        self.log_id, self.former_logs = log_rows.log_id(db), log_rows.former_logs(db)
        transaction = Transaction(opened.writer, before_commit=before_commit)
        self._prefixes = transaction.prefixes
        self._guard = FileGuard(path, fixed=(lock.path, *fixed_files))
        self._writer = Writer(transaction, path, self._guard)
        self._reader = Reader(db, path, self._guard)
        self._version_count = self.last_sequence - queries.count_completions(db)
        self._counted_until = self.last_sequence
        """Versions whose first entry is this one or earlier have been counted."""
        self._latest_version = transaction.latest_version()
        self._heads = HeadsCache(cache_bytes)
        self._head_loads = HeadLoads()
        self._histories = SqliteHistories(self._ask, self._prefixes)
        self._hints = SqliteHints(db, self._writer, self._reader, self._prefixes)
        self._members = queries.members(db)
        self._member_logs = queries.member_logs(db)
        self._cursors = queries.cursors(db)
        self.change_listeners = ChangeListeners()
        self._marks = log_rows.marks(db)
        self.damage = Damage(is_possible=True, lost=opened.lost, set_aside=queries.set_aside(db))

    # -- life -------------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        random_id: str,
        cache_bytes: int = CACHE_BYTES,
        max_pages: int | None = None,
        before_commit: Callable[[], None] | None = None,
        fixed_files: Iterable[Path] = (),
    ) -> Self:
        """Open the store in a file, or create one; `random_id` (16 hex digits) is the id of its log. Reads the disk.

        `max_pages` limits the file (4 KiB a page), beyond it writes raise `StorageFull`. `before_commit` is called in
        the writer's thread before each COMMIT, a seam for tests: it may be slow, or raise. `fixed_files` are other
        files that nothing may change while the store is open, see `FileGuard`. Raises `StoreRefused`.
        """
        refuse_long_path(path)
        lock = FileLock.take(path.with_name(path.name + ".lock"), what=f"the store {path}")
        try:
            opened = schema.open_connections(path, log_id=random_id)
            try:
                if max_pages is not None:
                    opened.writer.execute(f"PRAGMA max_page_count = {max_pages}")
                return cls(
                    path, lock, opened, cache_bytes=cache_bytes, before_commit=before_commit,
                    fixed_files=fixed_files,
                )  # fmt: skip
            except BaseException:
                schema.close_connections(path, opened.writer, opened.reader)
                raise
        except BaseException as error:
            lock.release()
            if isinstance(error, sqlite3.Error):
                raise StoreRefused(f"{path} cannot be read: {error}; it was left as it is") from error
            raise

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """When cancelled, it commits what was submitted and closes the file, within `CLOSE_SECONDS` on any disk."""
        assert not self._has_run, "a store runs once: open it again"
        self._has_run = True
        task_status.started()
        async with trio.open_nursery() as nursery:
            with trio.CancelScope(shield=True) as closing:
                nursery.start_soon(self._close_when_cancelled, closing)
                try:
                    async with trio.open_nursery() as threads:
                        threads.start_soon(self._reader.run)
                        async with trio.open_nursery() as watching:
                            watching.start_soon(self._writer.watch_files)
                            await self._writer.run()
                            watching.cancel_scope.cancel()
                        # It ends by itself: cancelled, its thread would go on over a connection that is being closed.
                        self._reader.close()
                finally:
                    close = _leave if self._guard.look() else schema.close_connections
                    await trio.to_thread.run_sync(close, self.path, *self._connections, abandon_on_cancel=True)
                    self._lock.release()
            nursery.cancel_scope.cancel()

    async def _close_when_cancelled(self, closing: trio.CancelScope) -> None:
        try:
            await trio.sleep_forever()
        finally:
            closing.deadline = trio.current_time() + CLOSE_SECONDS
            self._writer.close()

    @property
    def last_failure(self) -> str:
        return self._writer.last_failure

    @property
    def disk(self) -> DiskLatency:
        return self._writer.disk

    @property
    def failures(self) -> int:
        return self._writer.failures

    def stats(self) -> StoreStats:
        size_bytes = 0
        for name in (self.path.name, f"{self.path.name}-wal"):
            with suppress(OSError):
                size_bytes += self.path.with_name(name).stat().st_size
        return StoreStats(
            versions=self._version_count, size_bytes=size_bytes, commits=self._writer.commits,
            commit_failures=self.failures, at_risk=self._hints.index.pending_writes(),
        )  # fmt: skip

    # -- merging ----------------------------------------------------------------------------------------------

    async def merge(self, batch: Sequence[Incoming], *, now_ms: int) -> list[Merged]:
        if not batch:
            return []
        merged: list[Merged] = await self._writer.submit(
            MergeRequest(tuple(batch), now_ms), self._publish_all, size_bytes=_size_bytes(batch)
        )  # fmt: skip
        return merged

    def merge_in_background(
        self, batch: Sequence[Incoming], *, now_ms: int, peer: str,
        on_done: Callable[[list[Merged] | BaseException], None],
    ) -> None:  # fmt: skip
        self._writer.submit_nowait(
            MergeRequest(tuple(batch), now_ms), self._publish_all, CallbackCompletion(on_done),
            size_bytes=_size_bytes(batch), peer=peer,
        )  # fmt: skip

    def merge_without_waiting(self, batch: Sequence[Incoming], *, now_ms: int) -> list[Merged] | None:
        return None  # a merge always waits for the disk

    def _publish_all(self, outcomes: Sequence[MergeOutcome]) -> list[Merged]:
        return [self._publish(outcome) for outcome in outcomes]

    def _publish(self, outcome: MergeOutcome) -> Merged:
        item = outcome.incoming.item
        if outcome.is_completion:
            self._drop_heads(item.key)
        elif outcome.is_new:
            self._publish_heads(item, outcome)
        if outcome.is_new and outcome.sequence > self._counted_until:  # else it was counted when its notice came
            self._counted_until = outcome.sequence
            self._version_count += 1
        if outcome.is_new and item.version > self._latest_version:
            self._latest_version = item.version
        if self.damage.set_aside and outcome.is_new:
            self._restored(item)
        if outcome.incoming.origin is Origin.LOCAL:
            self._hints.publish(outcome)
        return Merged(outcome.sequence, outcome.is_new)

    def _publish_heads(self, item: Envelope | Notice, outcome: MergeOutcome) -> None:
        self._head_loads.mark_stale(item.key)
        if outcome.is_first:
            self._heads.put(item.key, (item,))
        else:
            self._heads.add(item, is_head=outcome.is_head, superseded=outcome.superseded)
        self.change_listeners.notify(item.key)

    def _drop_heads(self, key: bytes) -> None:
        self._head_loads.mark_stale(key)
        self._heads.drop(key)
        self.change_listeners.notify(key)

    async def reissue(self, digest: bytes, replacement: Envelope, holders: tuple[str, ...], *, now_ms: int) -> Merged:
        merged: Merged = await self._writer.submit(
            lambda transaction: transaction.reissue(digest, replacement, holders, now_ms),
            self._publish_reissue, size_bytes=len(replacement.content),
        )  # fmt: skip
        return merged

    def _publish_reissue(self, reissued: Reissued | NotFound) -> Merged | NotFound:
        if isinstance(reissued, NotFound):
            return reissued
        if reissued.outcome is not None:
            self._publish(reissued.outcome)
            self._drop_heads(reissued.key)
            self._latest_version = reissued.latest_version
            self._hints.publish_reissue(reissued.old_sequence)
        return reissued.merged

    async def settled(self) -> None:
        with suppress(StorageFull, Unavailable):  # operations are committed in the order of their submission
            await self._submit(lambda transaction: None)

    # -- marks ------------------------------------------------------------------------------------------------

    def mark(self, name: str) -> str | None:
        return self._marks.get(name)

    def set_mark(self, name: str, text: str) -> None:
        with suppress(Unavailable):  # the store is closed
            self._writer.submit_nowait(
                lambda transaction: log_rows.set_mark(transaction.db, name, text),
                lambda _: self._marks.update({name: text}),
                CallbackCompletion(lambda _: None),
            )

    # -- damage -----------------------------------------------------------------------------------------------

    async def _ask(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Ask the reader; what is damaged is mended or set aside first, each row once."""
        mended: set[tuple[type[Exception], int]] = set()
        while True:
            try:
                return await self._reader.ask(query)
            except (DamagedRow, LostHeads) as error:
                at = error.sequence if isinstance(error, DamagedRow) else error.key_id
                if (type(error), at) in mended:
                    raise Internal(f"{self.path} is damaged, and this cannot be mended; run bzzz store check") from None
                mended.add((type(error), at))
                await self._mend(error)

    async def _mend(self, damaged: DamagedRow | LostHeads) -> None:
        if isinstance(damaged, DamagedRow):
            await self._mend_row(damaged.sequence)
        else:
            key_id = damaged.key_id
            await self._writer.submit(lambda transaction: transaction.rebuild_heads(key_id), self._publish_mended)

    async def _mend_row(self, sequence: int) -> None:
        await self._writer.submit(lambda transaction: transaction.mend_row(sequence), self._publish_mended)

    def _publish_mended(self, mended: Mended) -> None:
        if not mended.keys:
            return
        self.damage.found += 1
        for key in mended.keys:
            self._drop_heads(key)
        if mended.is_set_aside:
            self.damage.set_aside[mended.digest] = mended.keys[0]
            log.error(
                "%s: header or content of version %s is damaged; it is set aside, and fetched again from a holder",
                self.path, mended.digest.hex(),
            )  # fmt: skip
        else:
            log.error("%s: a row or the heads of an address were damaged; they were made again", self.path)

    def _restored(self, item: Envelope | Notice) -> None:
        """A version that may have been set aside is there again, by itself or by another one with the same content."""
        if self.damage.set_aside.pop(item.digest, None) is not None:
            log.warning("%s: version %s is whole again", self.path, item.digest.hex())

    async def check(self, *, after: int) -> int | None:
        page = await self._reader.ask(lambda db: check_page(db, self._prefixes, after))
        for fault in page.faults:
            await self._mend_row(fault.sequence)
        return page.until

    # -- versions ---------------------------------------------------------------------------------------------

    async def heads(self, key: bytes) -> tuple[Envelope | Notice, ...]:
        heads = self._heads.get(key)
        while heads is None:
            load = self._head_loads.begin(key)
            try:
                read = await self._ask(lambda db: queries.heads(db, self._prefixes, key))
            finally:
                self._head_loads.end(key, load)
            if not load.is_stale:
                self._heads.put(key, read)
                return read
            heads = self._heads.get(key)
        return heads

    async def by_digest(self, digest: bytes) -> Envelope | Notice | None:
        cached = self._heads.by_digest(digest)
        if isinstance(cached, Envelope):
            return cached
        until = self.last_sequence
        found = await self._ask(lambda db: queries.by_digest(db, self._prefixes, digest, until))
        if self.damage.set_aside and isinstance(found, Envelope):
            self._restored(found)
        return found

    async def by_content(self, content_digest: bytes) -> Envelope | None:
        until = self.last_sequence
        return await self._ask(lambda db: queries.by_content(db, self._prefixes, content_digest, until))

    async def unknown(self, digests: Sequence[bytes]) -> list[bytes]:
        return await self._histories.unknown(digests)

    async def versions(self, key: bytes, *, after: int = 0, limit: int = 1000) -> list[Version]:
        return await self._histories.versions(key, after, limit)

    async def count_versions(self, key: bytes) -> int:
        return await self._histories.count(key)

    async def walk(
        self, key: bytes, *, beyond: VersionRef | None = None, is_backwards: bool = False, limit: int
    ) -> list[VersionRef]:
        return await self._histories.walk(key, beyond, is_backwards, limit)

    async def missing_parents(self, key: bytes, *, limit: int = 1000) -> list[bytes]:
        return await self._histories.missing_parents(key, limit)

    async def latest_reissue(self, digest: bytes) -> bytes:
        return await self._reader.ask(lambda db: queries.latest_reissue(db, self._prefixes, digest))

    async def idempotent(self, idempotency_key: str) -> bytes | None:
        return await self._reader.ask(lambda db: queries.idempotent(db, idempotency_key))

    def latest_version(self) -> int:
        return self._latest_version

    # -- the log ----------------------------------------------------------------------------------------------

    def log_of(self, sequence: int) -> str:
        return log_of(self.log_id, self.former_logs, sequence)

    @property
    def last_sequence(self) -> int:
        return self._writer.last_sequence

    async def log(self, *, after: int, limit: int = 1000) -> list[Change]:
        until = min(self.last_sequence, after + limit)
        return await self._reader.ask(lambda db: queries.log(db, after, until)) if after < until else []

    async def local_writes(self, *, after: int, limit: int = 1000) -> list[Change]:
        until = self.last_sequence
        return await self._reader.ask(lambda db: queries.local_writes(db, after, until, limit))

    async def wait_until_grown(self, after: int) -> int:
        while self.last_sequence <= after:
            await self._writer.grown.wait()
        return self.last_sequence

    async def cursor(self, name: str) -> int:
        return self._cursors.get(name, 0)

    async def set_cursor(self, name: str, sequence: int) -> None:
        self._cursors[name] = sequence
        self._writer.deferred.cursors[name] = sequence
        self._writer.flush_soon()

    # -- hints ------------------------------------------------------------------------------------------------

    async def due_hints(self, holder: str, *, after: int = 0, limit: int = 64, now_ms: int) -> list[Hint]:
        return await self._hints.due(holder, after, limit, now_ms)

    def next_hint_due(self, holder: str) -> int | None:
        return self._hints.index.next_due(holder)

    def hint_counts(self) -> dict[str, int]:
        return self._hints.index.pending_by_holder()

    def hint_totals(self) -> dict[str, int]:
        return self._hints.index.total_by_holder()

    def acknowledge(self, holder: str, sequences: Iterable[int]) -> None:
        self._hints.acknowledge(holder, sequences)

    def postpone_hint(self, holder: str, sequence: int, *, next_try_ms: int, refusal: str) -> None:
        self._hints.postpone(holder, sequence, next_try_ms, refusal)

    async def quarantine_hint(self, holder: str, sequence: int, *, refusal: str) -> None:
        await self._hints.quarantine(holder, sequence, refusal)

    async def retry_quarantined(self) -> int:
        return await self._hints.retry_quarantined()

    async def add_hints(self, hints: Iterable[tuple[int, str]]) -> int:
        return await self._hints.add(hints)

    async def drop_holder(self, holder: str) -> list[int]:
        return await self._hints.drop_holder(holder)

    async def forget_acknowledged(self, holder: str) -> int:
        return await self._hints.forget_acknowledged(holder)

    def pending(self) -> Pending:
        return self._hints.pending()

    async def hints(self, *, is_refused: bool | None = None, limit: int = 1000) -> list[Hint]:
        return await self._hints.oldest(is_refused=is_refused, limit=limit)

    async def standing(self, *, digest: bytes | None = None, sequence: int | None = None) -> Standing | None:
        return await self._hints.standing(digest=digest, sequence=sequence)

    async def replicated(self, digest: bytes, count: int) -> Standing:
        return await self._hints.replicated(digest, count)

    # -- staged envelopes -------------------------------------------------------------------------------------

    async def stage(self, envelope: Envelope, *, idempotency_key: str | None = None, now_ms: int) -> None:
        await self._submit(
            lambda transaction: transaction.stage(envelope, idempotency_key, now_ms), size_bytes=envelope.encoded_size
        )

    async def staged_under(self, idempotency_key: str) -> Envelope | None:
        return await self._reader.ask(lambda db: queries.staged_under(db, idempotency_key))

    async def unstage(self, digest: bytes) -> None:
        await self._submit(lambda transaction: transaction.unstage(digest))

    # -- members and providers --------------------------------------------------------------------------------

    def members(self) -> tuple[Member, ...]:
        return tuple(self._members[peer] for peer in sorted(self._members))

    async def save_member(self, member: Member) -> None:
        row = (
            member.peer, member.name, json.dumps(member.addresses), member.first_seen_ms, member.last_seen_ms,
            json.dumps(member.labels),
        )  # fmt: skip
        await self._submit(
            lambda transaction: transaction.db.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?)", row),
            lambda: self._members.update({member.peer: member}),
        )

    async def forget_member(self, peer: str) -> None:
        def forget(transaction: Transaction) -> None:
            for table in ("members", "member_logs"):
                transaction.db.execute(f"DELETE FROM {table} WHERE peer = ?", (peer,))

        def publish() -> None:
            self._members.pop(peer, None)
            self._member_logs.pop(peer, None)

        self._writer.deferred.member_logs.pop(peer, None)
        await self._submit(forget, publish)

    def member_log(self, peer: str) -> LogPosition | None:
        return self._member_logs.get(peer)

    def set_member_log(self, peer: str, position: LogPosition) -> None:
        self._member_logs[peer] = self._writer.deferred.member_logs[peer] = position
        self._writer.flush_soon()

    async def provide(self, key: bytes, peer: str, *, expires_ms: int) -> None:
        row = (key, peer, expires_ms)
        await self._submit(
            lambda transaction: transaction.db.execute("INSERT OR REPLACE INTO providers VALUES (?, ?, ?)", row)
        )  # fmt: skip

    async def providers(self, key: bytes, *, now_ms: int) -> list[str]:
        return await self._reader.ask(lambda db: queries.providers(db, key, now_ms))

    async def _submit(
        self, operation: Callable[[Transaction], Any], publish: Callable[[], Any] = lambda: None, *, size_bytes: int = 0
    ) -> None:  # fmt: skip
        """Commit an operation without a result, then `publish` it."""
        await self._writer.submit(operation, lambda _: publish() and None, size_bytes=size_bytes)


def _size_bytes(batch: Sequence[Incoming]) -> int:
    return sum([len(item.content) for item, *_ in batch if isinstance(item, Envelope)])


def _leave(_: Path, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
    """Close without a checkpoint, which would write into files of another node, or delete their log.

    While the reader is open, closing the writer leaves the files as they are; a reader can change none.
    """
    with suppress(sqlite3.Error):
        reader.execute("SELECT * FROM meta").fetchone()  # so that it holds SQLite's shared lock on the file
    writer.close()
    reader.close()
