"""Group commit: operations that come while one transaction is on its way to the disk share the next.

One task gives batches to one thread, one hop a batch. A commit costs a fifth of a millisecond whatever is in it, so the
rate of durable writes is the rate of commits times the number of concurrent callers. The results of a batch are
published on the trio thread, in the order of the log, before the next batch begins. A failed batch fails every caller
in it and leaves nothing. Deferred writes (acknowledgements and the like) are written with the next commit, or get one
of their own within `FLUSH_SECONDS`.
"""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from threading import Lock
from typing import Any

import trio

from node.store.completion import CallbackCompletion, Completion
from node.store.disk_latency import DiskLatency
from node.store.errors import StoreFilesLost, translated
from node.store.signal import Signal
from node.store.sqlite.deferred_writes import DeferredWrites
from node.store.sqlite.file_guard import LOOK_SECONDS, FileGuard
from node.store.sqlite.merge import MergeRequest
from node.store.sqlite.reader import closed_error
from node.store.sqlite.thread_hop import in_thread
from node.store.sqlite.transaction import Operation, Transaction
from node.store.sqlite.write_queue import Submission, WriteQueue
from protocols.errors import BzzzError, Unavailable

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
CLOSE_SECONDS = 1.5
"""How long a disk that does not answer may delay the closing."""


class Writer:
    """Commits what is submitted, in the order of `write_queue.py`."""

    def __init__(self, transaction: Transaction, path: Path, guard: FileGuard) -> None:
        self._transaction = transaction
        self.in_use = Lock()
        """Held while a thread uses the connection, also one that nothing waits for any more."""
        self._guard = guard
        self._path = path
        self.last_sequence = transaction.last_sequence
        """Of the newest entry that is published."""
        self.grown = Signal()
        """Notified when `last_sequence` has grown."""
        self._queue = WriteQueue()
        self._submitted = Signal()
        self._is_closing = False
        self._idle: trio.CancelScope | None = None
        """The wait for something to commit, while there is one."""
        self.deferred = DeferredWrites()
        """Written with the next commit."""
        self.deferred_in_commit = DeferredWrites()
        """Written with the commit that is under way."""
        self.deferred_commits = 0
        """The number of commits that had deferred writes."""
        self.commits = 0
        self.failures = 0
        self.last_failure = ""
        self.disk = DiskLatency(transaction.work)

    async def submit(
        self, operation: MergeRequest | Operation, publish: Callable[[Any], Any], *, size_bytes: int = 0
    ) -> Any:  # fmt: skip
        """Wait until the operation is durable and published. Cancelling the wait does not undo it.

        Raises the result of `publish` when that is an error; `StorageFull` or `Unavailable` when nothing was written.
        """
        completion: Completion[Any] = Completion()
        self.submit_nowait(operation, publish, completion, size_bytes=size_bytes)
        return await completion.wait()

    def submit_nowait(
        self,
        operation: MergeRequest | Operation,
        publish: Callable[[Any], Any],
        completion: Completion[Any] | CallbackCompletion,
        *,
        size_bytes: int = 0,
        peer: str | None = None,
    ) -> None:
        """Like `submit`, without the wait. Raises `Unavailable` when it is closed or the queue is full.

        With the `peer` that sent it no caller of this node waits for it: what those wait for is committed first.
        """
        if self._is_closing:
            raise closed_error()
        if not self._queue.add(Submission(operation, size_bytes, publish, completion), peer=peer):
            raise Unavailable(
                f"{self._path}: the disk does not keep up, {len(self._queue)} writes wait for it; try again later",
                waiting=len(self._queue),
            )
        self._submitted.notify()

    def flush_soon(self) -> None:
        """Call this after adding to `deferred`: it gets a commit of its own, unless another comes before that.

        The writer's task is not woken for it. Among the tasks that an acknowledgement woke, it would run before some
        and after others, and commit without what the others are about to submit.
        """
        if self._idle is not None and self._idle.deadline == inf:
            self._idle.deadline = trio.current_time() + FLUSH_SECONDS

    async def watch_files(self) -> None:
        """Notice within a second that the files are gone, also while nothing is written. Until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            if (lost := self._guard.look()) and not self._is_closing:
                self._note_failure(StoreFilesLost(lost))

    def _note_failure(self, error: sqlite3.Error | OSError) -> None:
        message = translated(error, self._path).message
        if isinstance(error, StoreFilesLost) and message != self.last_failure:
            log.error("%s", message)
        self.last_failure = message

    def close(self) -> None:
        """Commit what was submitted, then end `run`."""
        self._is_closing = True
        self._submitted.notify()

    async def run(self) -> None:
        """Until `close`. When it is cancelled during a commit, the thread finishes the commit and the callers fail."""
        batch: list[Submission] = []
        try:
            while True:
                await self._wait_for_work()
                batch = self._queue.next_batch()
                if batch or self.deferred:
                    await self._commit(batch)
                    if self._queue:  # tasks that run in this turn of the loop may submit more
                        await trio.lowlevel.cancel_shielded_checkpoint()
                if self._is_closing and not self._queue:
                    return
                batch = []
        finally:
            self._is_closing = True
            for submission in [*batch, *self._queue.take_all()]:
                submission.completion.fail(
                    Unavailable("the store was closed before the disk confirmed this; it may be there")
                )

    async def _wait_for_work(self) -> None:
        """Until something is submitted, or the deferred writes have waited for `FLUSH_SECONDS`."""
        if self._queue or self._is_closing:
            return
        deadline = trio.current_time() + FLUSH_SECONDS if self.deferred else inf
        with trio.CancelScope(deadline=deadline) as self._idle:
            while not self._queue and not self._is_closing:
                await self._submitted.wait()
        self._idle = None

    async def _commit(self, batch: Sequence[Submission]) -> None:
        self.deferred_in_commit, self.deferred = self.deferred, DeferredWrites()
        self.disk.begin()
        operations, deferred = [submission.operation for submission in batch], self.deferred_in_commit
        before = self.commits
        try:
            self._guard.commit_begins()
            await in_thread(partial(self._write, operations, deferred), partial(self._publish, batch))
        except (sqlite3.Error, OSError) as error:
            self._fail(batch, error)
        except Exception as error:
            if self.commits > before:
                raise  # it is on the disk and must not be written twice: the publishing has a defect
            self._guard.commit_ended(is_committed=False)
            await self._commit_one_by_one(batch, error)
        finally:
            self.disk.fail()  # when it did not end

    def _write(self, operations: Sequence[MergeRequest | Operation], deferred: DeferredWrites) -> list[Any]:
        with self.in_use:
            return self._transaction.commit(operations, deferred)

    def _publish(self, batch: Sequence[Submission], results: list[Any]) -> None:
        """Publish the results, then complete the callers: what they read next includes their own writes."""
        self._guard.commit_ended(is_committed=True)
        self.commits += 1
        self.last_failure = ""
        self.disk.end()
        if self.deferred_in_commit:
            self.deferred_in_commit = DeferredWrites()
            self.deferred_commits += 1
        published = [submission.publish(result) for submission, result in zip(batch, results, strict=True)]
        if self._transaction.last_sequence > self.last_sequence:
            self.last_sequence = self._transaction.last_sequence
            self.grown.notify()
        for submission, result in zip(batch, published, strict=True):
            if isinstance(result, BzzzError):
                submission.completion.fail(result)
            else:
                submission.completion.succeed(result)

    def _fail(self, batch: Sequence[Submission], error: sqlite3.Error | OSError) -> None:
        self._guard.commit_ended(is_committed=False)
        self._restore_deferred()
        self.failures += 1
        self._note_failure(error)
        for submission in batch:
            failure = translated(error, self._path)
            failure.__cause__ = error
            submission.completion.fail(failure)

    def _restore_deferred(self) -> None:
        earlier, self.deferred_in_commit = self.deferred_in_commit, DeferredWrites()
        earlier.extend(self.deferred)
        self.deferred = earlier

    async def _commit_one_by_one(self, batch: Sequence[Submission], error: Exception) -> None:
        """One operation of the batch cannot be written at all: only its caller fails, not the others in the batch."""
        self._restore_deferred()
        if len(batch) == 1:
            batch[0].completion.fail(error)
            return
        if not batch:
            raise error
        for submission in batch:
            await self._commit([submission])
