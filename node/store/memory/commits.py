"""The commits of a memory store: operations wait for a simulated disk, in order, and share its commits.

Without a disk (`before_commit` is None) an operation is carried out at once and nothing ever waits.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from node.store.completion import CallbackCompletion, Completion
from node.store.deadlines import Deadlines
from node.store.disk_latency import DiskLatency
from node.store.errors import translated
from node.store.signal import Signal
from protocols.errors import NotFound, Unavailable

T = TypeVar("T")

_Submission = tuple[Callable[[], Any], Completion[Any] | CallbackCompletion]


class CommitQueue:
    """What is submitted while one commit is under way shares the next, as in the SQLite store.

    `before_commit` is awaited before each commit; an `OSError` from it fails that commit. It may be set and removed at
    any time. With it, operations that are not committed when `run` is cancelled fail, as in a crash.
    """

    def __init__(self, before_commit: Callable[[], Awaitable[None]] | None) -> None:
        self.before_commit = before_commit
        self.failures = 0
        self.disk = DiskLatency()
        self._is_running = False
        self._commits = 0
        self._failure = ""
        self._queue: list[_Submission] = []
        self._submitted = Signal()
        self._deadlines = Deadlines()

    @property
    def last_failure(self) -> str:
        return self._failure if self.before_commit is not None else ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        assert not self._is_running, "a store that runs cannot be run a second time"
        self._is_running = True
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deadlines.run)
            await self._commit_for_ever()

    async def _commit_for_ever(self) -> None:
        batch: list[_Submission] = []
        try:
            while True:
                while not self._queue:
                    await self._submitted.wait()
                batch, self._queue = self._queue, []
                await self._commit(batch)
                batch = []
        finally:
            for _, completion in batch + self._queue:
                completion.fail(Unavailable("the store was closed before this was written; try again when it is open"))
            self._queue = []
            self._is_running = False

    async def _commit(self, batch: list[_Submission]) -> None:
        try:
            if self.before_commit is not None:
                self.disk.begin()
                await self.before_commit()
                self.disk.end()
        except OSError as error:
            self._failure = translated(error).message
            self.failures += 1
            for _, completion in batch:
                completion.fail(translated(error))
            return
        finally:
            self.disk.fail()  # when it did not end
        self._failure = ""
        self._commits += 1
        for operation, completion in batch:
            try:
                result = operation()
            except NotFound as error:
                completion.fail(error)
            else:
                completion.succeed(result)

    async def _submit(self, operation: Callable[[], T], *, deadline: float | None = None) -> T:
        """Carry an operation out once the disk allows it; at once when there is no disk. Raises `CommitLate`."""
        if self.before_commit is None and not self._queue:
            return operation()
        completion: Completion[T] = Completion()
        self._enqueue(operation, completion)
        if deadline is not None:
            self._deadlines.add(deadline, completion)
        return await completion.wait()

    def _enqueue(self, operation: Callable[[], Any], completion: Completion[Any] | CallbackCompletion) -> None:
        self._queue.append((operation, completion))
        self._submitted.notify()
