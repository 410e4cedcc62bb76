"""Group commit: what is handed in while one transaction is on its way to the disk shares the next.

One task hands batches to one thread, one hop a batch. A commit costs a fifth of a millisecond whatever is in it, so
the rate of durable writes is that of commits times how many callers there are. What a batch came to is published on
the trio thread, in the order of the log, before the next batch begins; a batch that failed fails every caller in it
and leaves nothing. Acknowledgements and their like go along with the next commit, or get one of their own within
`FLUSH_SECONDS`.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import trio

from node.store.completion import CallbackCompletion, Completion
from node.store.errors import translated
from node.store.signal import Signal
from node.store.sqlite.deferred_writes import DeferredWrites
from node.store.sqlite.merge import Merging
from node.store.sqlite.reader import closed
from node.store.sqlite.thread_hop import in_thread
from node.store.sqlite.transaction import Operation, Transaction
from protocols.errors import BzzzError, Unavailable

FLUSH_SECONDS = 0.5
CLOSE_SECONDS = 1.5
"""How long a disk that does not answer may hold up the closing."""
BATCH_MAX = 1024
BATCH_BYTES_MAX = 8 * 1024 * 1024
QUEUE_MAX = 16_384
QUEUE_BYTES_MAX = 128 * 1024 * 1024
"""What may wait for a slow disk; beyond it calls fail at once, for those before them may have stopped waiting."""


class Submission(NamedTuple):
    """Something to commit. `publish` turns what it came to into what the caller is told; it must not fail."""

    operation: Merging | Operation
    size_bytes: int
    publish: Callable[[Any], Any]
    ticket: Completion[Any] | CallbackCompletion


class Writer:
    """Commits what is handed in, in that order."""

    def __init__(self, ledger: Transaction, path: Path, published: Callable[[int], None]) -> None:
        self._ledger = ledger
        self._path = path
        self._published = published
        self._queue: deque[Submission] = deque()
        self._queued_bytes = 0
        self._bell = Signal()
        self._is_closing = False
        self._idle: trio.CancelScope | None = None
        """The wait for something to commit, while there is one."""
        self.lazies = DeferredWrites()
        """What goes along with the next commit."""
        self.committing = DeferredWrites()
        """What goes along with the one that is under way."""
        self.lazies_committed = 0
        self.commits = 0
        self.failures = 0
        self.last_failure = ""
        self.committing_since: float | None = None

    async def hand_in(
        self, operation: Merging | Operation, publish: Callable[[Any], Any], *, size_bytes: int = 0
    ) -> Any:  # fmt: skip
        """Wait until it is durable and published. Cancelling the wait does not take it back.

        Raises what `publish` answers when that is an error; `StorageFull` or `Unavailable` when nothing was written.
        """
        ticket: Completion[Any] = Completion()
        self.post(operation, publish, ticket, size_bytes=size_bytes)
        return await ticket.wait()

    def post(
        self,
        operation: Merging | Operation,
        publish: Callable[[Any], Any],
        ticket: Completion[Any] | CallbackCompletion,
        *,
        size_bytes: int = 0,
    ) -> None:
        """Like `hand_in`, without the wait. Raises `Unavailable` when it is closed, or too much waits already."""
        if self._is_closing:
            raise closed()
        if len(self._queue) >= QUEUE_MAX or self._queued_bytes > QUEUE_BYTES_MAX:
            raise Unavailable(
                f"{self._path}: the disk does not keep up, {len(self._queue)} writes wait for it; try again later",
                waiting=len(self._queue),
            )
        self._queue.append(Submission(operation, size_bytes, publish, ticket))
        self._queued_bytes += size_bytes
        self._bell.ring()

    def go_along(self) -> None:
        """Something was added to `lazies`: they get a commit of their own, unless another comes before it.

        The writer is not woken for it. Among those who were told of an acknowledgement it would run before some of them
        and after others, and commit what the others write next without them.
        """
        if self._idle is not None and self._idle.deadline == inf:
            self._idle.deadline = trio.current_time() + FLUSH_SECONDS

    def close(self) -> None:
        """Commit what was handed in, then end `run`."""
        self._is_closing = True
        self._bell.ring()

    async def run(self) -> None:
        """Until `close`. Cancelled in the middle of a commit, it leaves that to its thread and tells who waits."""
        batch: list[Submission] = []
        try:
            while True:
                await self._until_there_is_work()
                batch = self._next_batch()
                if batch or self.lazies:
                    await self._commit(batch)
                    if self._queue:  # who goes on in this turn of the loop may hand in more
                        await trio.lowlevel.cancel_shielded_checkpoint()
                if self._is_closing and not self._queue:
                    return
                batch = []
        finally:
            self._is_closing = True
            for handed in [*batch, *self._queue]:
                handed.ticket.fail(Unavailable("the store was closed before the disk confirmed this; it may be there"))
            self._queue.clear()

    async def _until_there_is_work(self) -> None:
        """Until something is handed in, or what goes along has waited for it long enough."""
        if self._queue or self._is_closing:
            return
        deadline = trio.current_time() + FLUSH_SECONDS if self.lazies else inf
        with trio.CancelScope(deadline=deadline) as self._idle:
            while not self._queue and not self._is_closing:
                await self._bell.listen()
        self._idle = None

    def _next_batch(self) -> list[Submission]:
        batch: list[Submission] = []
        size_bytes = 0
        while self._queue and len(batch) < BATCH_MAX and size_bytes < BATCH_BYTES_MAX:
            batch.append(self._queue.popleft())
            size_bytes += batch[-1].size_bytes
        self._queued_bytes -= size_bytes
        return batch

    async def _commit(self, batch: Sequence[Submission]) -> None:
        self.committing, self.lazies = self.lazies, DeferredWrites()
        self.committing_since = trio.current_time()
        operations, lazies = [handed.operation for handed in batch], self.committing
        before = self.commits
        try:
            await in_thread(lambda: self._ledger.commit(operations, lazies), partial(self._publish, batch))
        except (sqlite3.Error, OSError) as error:
            self._failed(batch, error)
        except Exception as error:
            if self.commits > before:
                raise  # it is on the disk, and must not get there twice: what failed is a defect in telling of it
            await self._one_by_one(batch, error)
        finally:
            self.committing_since = None

    def _publish(self, batch: Sequence[Submission], results: list[Any]) -> None:
        """Tell everybody, and those who handed it in last: they find what they were told."""
        self.commits += 1
        self.last_failure = ""
        if self.committing:
            self.committing = DeferredWrites()
            self.lazies_committed += 1
        told = [handed.publish(result) for handed, result in zip(batch, results, strict=True)]
        self._published(self._ledger.last_sequence)
        for handed, answer in zip(batch, told, strict=True):
            if isinstance(answer, BzzzError):
                handed.ticket.fail(answer)
            else:
                handed.ticket.succeed(answer)

    def _failed(self, batch: Sequence[Submission], error: sqlite3.Error | OSError) -> None:
        self._take_back_lazies()
        self.failures += 1
        self.last_failure = translated(error, self._path).message
        for handed in batch:
            failure = translated(error, self._path)
            failure.__cause__ = error
            handed.ticket.fail(failure)

    def _take_back_lazies(self) -> None:
        earlier, self.committing = self.committing, DeferredWrites()
        earlier.add(self.lazies)
        self.lazies = earlier

    async def _one_by_one(self, batch: Sequence[Submission], error: Exception) -> None:
        """Something in the batch cannot be written at all: it alone fails, and not who happened to come with it."""
        self._take_back_lazies()
        if len(batch) == 1:
            batch[0].ticket.fail(error)
            return
        if not batch:
            raise error
        for handed in batch:
            await self._commit([handed])
