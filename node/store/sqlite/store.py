"""The store of a node: one SQLite file, one thread that writes, one that reads, and caches in memory.

A write goes through `Writer` to the `Transaction` in the writer's thread. The caches, the hint index and the waiting
callers get its result only after its COMMIT, back on the trio thread: no caller sees what a crash could undo.
Reads come from memory, else from the reader's thread; they never wait for the writer.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import trio

from node.store.base import StoreStats
from node.store.completion import CallbackCompletion, Completion
from node.store.damage import Damage
from node.store.deadlines import Deadlines
from node.store.disk_latency import DiskLatency
from node.store.errors import StoreRefused
from node.store.log import Change, Incoming, Merged, Origin
from node.store.sqlite import meta, queries, schema
from node.store.sqlite.checked_reads import CheckedReads
from node.store.sqlite.connection import refuse_long_path
from node.store.sqlite.file_guard import FileGuard
from node.store.sqlite.file_lock import FileLock
from node.store.sqlite.heads import SqliteHeads, read_heads
from node.store.sqlite.hints import SqliteHints
from node.store.sqlite.history import SqliteHistories
from node.store.sqlite.members import SqliteMembers
from node.store.sqlite.merge import MergeOutcome, MergeRequest
from node.store.sqlite.owner import Owner
from node.store.sqlite.reader import Reader
from node.store.sqlite.transaction import Reissued, Transaction
from node.store.sqlite.writer import CLOSE_SECONDS, Writer
from node.store.versions import HeldContent, Version, VersionRef
from protocols.envelope import Envelope, Notice
from protocols.errors import NotFound, StorageFull, Unavailable
from protocols.log_lineage import log_of

CACHE_BYTES = 24 * 1024 * 1024


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
    ) -> None:
        self.path = path
        self._lock = lock
        self._has_run = False
        self._connections = (opened.writer, opened.reader)
        db = opened.reader
        self.log_id, self.former_logs = meta.log_id(db), meta.former_logs(db)
        transaction = Transaction(opened.writer, path, before_commit=before_commit)
        self._prefixes = transaction.prefixes
        self._guard = FileGuard(path)
        self._guard.add(lock.path)
        self._writer = Writer(transaction, path, self._guard)
        self._deadlines = Deadlines()
        self._reader = Reader(db, path, self._guard)
        self._version_count = self.last_sequence - queries.count_completions(db)
        self._counted_until = self.last_sequence
        """Versions whose first entry is this one or earlier have been counted."""
        self._latest_version = transaction.latest_version()
        self._heads = SqliteHeads(cache_bytes)
        self._heads_cache = self._heads.cache
        self.change_listeners = self._heads.change_listeners
        self.damage = Damage(
            is_possible=True, lost=opened.lost, taken_over=opened.taken_over, set_aside=queries.set_aside(db)
        )
        self._reads = CheckedReads(path, self._writer, self._reader, self._prefixes, self.damage, self._heads.drop)
        self._ask, self.check = self._reads.ask, self._reads.check
        self._histories = SqliteHistories(self._ask, self._prefixes)
        self._cursors = queries.cursors(db)
        self._marks = meta.marks(db)
        self._hints = SqliteHints(db, self._writer, self._reader, self._prefixes)
        self._use_hints(self._hints)
        self._use_members(SqliteMembers(db, self._writer))

    def _use_hints(self, hints: SqliteHints) -> None:
        """These methods of the contract are those of its part for hints."""
        self.due_hints, self.next_hint_due = hints.due_hints, hints.next_hint_due
        self.hint_counts, self.hint_totals = hints.hint_counts, hints.hint_totals
        self.acknowledge, self.postpone_hint = hints.acknowledge, hints.postpone_hint
        self.quarantine_hint, self.retry_quarantined = hints.quarantine_hint, hints.retry_quarantined
        self.add_hints, self.drop_holder = hints.add_hints, hints.drop_holder
        self.forget_acknowledged, self.pending, self.hints = hints.forget_acknowledged, hints.pending, hints.hints
        self.owed_writes = hints.owed_writes
        self.standing, self.replicated = hints.standing, hints.replicated

    def _use_members(self, members: SqliteMembers) -> None:
        """These methods of the contract are those of its part for members."""
        self.members, self.save_member, self.forget_member = members.members, members.save_member, members.forget_member
        self.member_log, self.set_member_log = members.member_log, members.set_member_log

    # -- life -------------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        random_id: str,
        owner: Owner | None = None,
        cache_bytes: int = CACHE_BYTES,
        max_pages: int | None = None,
        before_commit: Callable[[], None] | None = None,
    ) -> Self:
        """Open the store in a file, or create one; `random_id` (16 hex digits) is the id of its log. Reads the disk.

        The store of another node than `owner` is refused, or taken over, see `owner.py`. `max_pages` limits the file
        (4 KiB a page), beyond it writes raise `StorageFull`. `before_commit` is called in the writer's thread before
        each COMMIT, a seam for tests: it may be slow, or raise. Raises `StoreRefused`.
        """
        refuse_long_path(path)
        lock = FileLock.take(path.with_name(path.name + ".lock"), what=f"the store {path}")
        try:
            opened = schema.open_connections(path, log_id=random_id, owner=owner)
            try:
                if max_pages is not None:
                    opened.writer.execute(f"PRAGMA max_page_count = {max_pages}")
                return cls(path, lock, opened, cache_bytes=cache_bytes, before_commit=before_commit)
            except BaseException:
                schema.close_connections(path, opened.writer, opened.reader)
                raise
        except BaseException as error:
            lock.release()
            if isinstance(error, sqlite3.Error):
                raise StoreRefused(f"{path} cannot be read: {error}; it was left as it is") from error
            raise

    def guard(self, *files: Path) -> None:
        """From now on nothing may change these files either, see `FileGuard`."""
        self._guard.add(*files)

    def close(self) -> None:
        """Close a store that was never run, in order. Afterwards, and after `run`, it does nothing."""
        if not self._has_run:
            self._has_run = True
            schema.close_connections(self.path, *self._connections)
            self._lock.release()

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
                            watching.start_soon(self._deadlines.run)
                            await self._writer.run()
                            watching.cancel_scope.cancel()
                        # It ends by itself: cancelled, its thread would go on over a connection that is being closed.
                        self._reader.close()
                finally:
                    self._reader.close()  # after an error, too: then a query may be under way
                    close = schema.leave_connections if self._guard.look() else schema.close_connections
                    await trio.to_thread.run_sync(self._close_unused, close, abandon_on_cancel=True)
                    self._lock.release()
            nursery.cancel_scope.cancel()

    def _close_unused(self, close: Callable[[Path, sqlite3.Connection, sqlite3.Connection], None]) -> None:
        """Close the connections once no thread uses them: a query whose connection is closed ends the process."""
        with self._writer.in_use, self._reader.in_use:
            close(self.path, *self._connections)

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

    async def merge(self, batch: Sequence[Incoming], *, now_ms: int, deadline: float | None = None) -> list[Merged]:
        if not batch:
            return []
        completion: Completion[list[Merged]] = Completion()
        request = MergeRequest(tuple(batch), now_ms)
        self._writer.submit_nowait(request, self._publish_all, completion, size_bytes=_size_bytes(batch))
        if deadline is not None:
            self._deadlines.add(deadline, completion)
        return await completion.wait()

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
        item, sequence, is_new = outcome.incoming.item, outcome.sequence, outcome.is_new
        if outcome.is_completion:
            self._heads.drop(item.key)
        elif is_new:
            self._heads.publish(item, outcome)
        if is_new:
            if sequence > self._counted_until:  # else it was counted when its notice came
                self._counted_until = sequence
                self._version_count += 1
            if item.version > self._latest_version:
                self._latest_version = item.version
            if self.damage.set_aside:
                self._reads.restored(item.digest)
        if outcome.incoming.origin is Origin.LOCAL:
            self._hints.publish(outcome)
        return Merged(sequence, is_new)

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
            self._heads.drop(reissued.key)
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
        rows = meta.as_marks({name: text})
        with suppress(Unavailable):  # the store is closed
            self._writer.submit_nowait(
                lambda transaction: meta.write(transaction.db, rows),
                lambda _: self._marks.update({name: text}),
                CallbackCompletion(lambda _: None),
            )

    # -- versions ---------------------------------------------------------------------------------------------

    async def heads(self, key: bytes) -> tuple[Envelope | Notice, ...]:
        heads = self._heads_cache.get(key)
        if heads is not None:
            return heads
        return await self._heads.load(key, lambda: read_heads(self._ask, self._prefixes, key))

    async def by_digest(self, digest: bytes) -> Envelope | Notice | None:
        cached = self._heads_cache.by_digest(digest)
        if isinstance(cached, Envelope):
            return cached
        until = self.last_sequence
        found = await self._ask(lambda db: queries.by_digest(db, self._prefixes, digest, until))
        if self.damage.set_aside and isinstance(found, Envelope):
            self._reads.restored(found.digest)
        return found

    async def by_content(self, content_digest: bytes) -> Envelope | None:
        until = self.last_sequence
        return await self._ask(lambda db: queries.by_content(db, self._prefixes, content_digest, until))

    async def has_content(self, content_digest: bytes) -> bool:
        until = self.last_sequence
        return await self._ask(lambda db: queries.has_content(db, self._prefixes, content_digest, until))

    async def contents(self, *, before: int, limit: int) -> list[HeldContent]:
        before = min(before, self.last_sequence + 1)
        return await self._reader.ask(lambda db: queries.contents(db, before, limit))

    async def unknown(self, digests: Sequence[bytes]) -> list[bytes]:
        return await self._histories.unknown(digests)

    async def without_content(self, digests: Sequence[bytes]) -> list[bytes]:
        return await self._histories.without_content(digests)

    async def versions(self, key: bytes, *, after: int = 0, limit: int = 1000) -> list[Version]:
        return await self._histories.versions(key, after, limit)

    async def count_versions(self, key: bytes, *, with_reissued: bool = True) -> int:
        return await self._histories.count(key, with_reissued)

    async def nth(self, key: bytes, number: int, *, is_backwards: bool = False) -> VersionRef | None:
        return await self._histories.nth(key, number, is_backwards)

    async def latest_held(self, key: bytes) -> VersionRef | None:
        return await self._histories.latest_held(key)

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
        self._cursors[name] = self._writer.deferred.cursors[name] = sequence
        self._writer.flush_soon()

    def cursor_names(self, prefix: str) -> list[str]:
        return [name for name in self._cursors if name.startswith(prefix)]

    async def drop_cursor(self, name: str) -> None:
        if self._cursors.pop(name, None) is not None:
            self._writer.deferred.cursors[name] = None
            self._writer.flush_soon()

    # -- staged envelopes -------------------------------------------------------------------------------------

    async def stage(self, envelope: Envelope, *, idempotency_key: str | None = None, now_ms: int) -> None:
        await self._submit(
            lambda transaction: transaction.stage(envelope, idempotency_key, now_ms), size_bytes=envelope.encoded_size
        )

    async def staged_under(self, idempotency_key: str) -> Envelope | None:
        return await self._reader.ask(lambda db: queries.staged_under(db, idempotency_key))

    async def unstage(self, digest: bytes) -> None:
        await self._submit(lambda transaction: transaction.unstage(digest))

    async def _submit(self, operation: Callable[[Transaction], None], *, size_bytes: int = 0) -> None:
        """Commit an operation without a result."""
        await self._writer.submit(operation, lambda _: None, size_bytes=size_bytes)


def _size_bytes(batch: Sequence[Incoming]) -> int:
    return sum([len(item.content) for item, *_ in batch if isinstance(item, Envelope)])
