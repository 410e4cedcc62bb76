"""Reads from the disk in a thread of its own: queries that come while one batch is read share the next.

A hop to a thread and back costs a tenth of a millisecond, a look-up a tenth of that. SQLite's log lets readers go on
while a commit is under way.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from node.store.completion import CallbackCompletion, Completion
from node.store.errors import StoreFilesLost, translated
from node.store.signal import Signal
from node.store.sqlite.file_guard import FileGuard
from node.store.sqlite.rows import DamagedRow, LostHeads
from node.store.sqlite.thread_hop import in_thread
from protocols.errors import BzzzError, Internal, Unavailable

T = TypeVar("T")

Query = Callable[[sqlite3.Connection], Any]
_Submission = tuple[Query, Completion[Any] | CallbackCompletion]

BATCH_MAX = 64
"""How many queries share a hop at most: no query waits for more than these behind a slow one."""


class Reader:
    """Answers queries over a connection that only reads."""

    def __init__(self, db: sqlite3.Connection, path: Path, guard: FileGuard) -> None:
        self._db = db
        self._path = path
        self._guard = guard
        self._queue: deque[_Submission] = deque()
        self._submitted = Signal()
        self._is_open = True
        self.in_use = Lock()
        """Held while a thread uses the connection, also one that nothing waits for any more."""

    async def ask(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of the query. Raises `Unavailable` when the disk fails or the store is closed; `DamagedRow`
        or `LostHeads` when the tables have to be mended first."""
        if not self._is_open:
            raise closed_error()
        if self._guard.is_content_changed:
            raise translated(StoreFilesLost(self._guard.look()))
        completion: Completion[T] = Completion()
        self._queue.append((query, completion))
        self._submitted.notify()
        return await completion.wait()

    def ask_in_background(self, query: Callable[[sqlite3.Connection], T], on_result: Callable[[T], None]) -> None:
        """Like `ask`, for a caller that cannot wait: `on_result` gets the result, and is not called on an error."""

        def on_done(result: T | BaseException) -> None:
            if not isinstance(result, BaseException):
                on_result(result)

        if self._is_open:
            self._queue.append((query, CallbackCompletion(on_done)))
            self._submitted.notify()

    def close(self) -> None:
        """End `run`; a query that is being read is interrupted."""
        self._is_open = False
        self._db.interrupt()
        self._submitted.notify()

    async def run(self) -> None:
        """Until `close`. When it is cancelled during a batch, the thread finishes the batch without it."""
        batch: list[_Submission] = []
        try:
            while self._is_open:
                if not self._queue:
                    await self._submitted.wait()
                    continue
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_MAX))]
                queries = [query for query, _ in batch]
                try:
                    await in_thread(partial(self._answer, queries), partial(_complete, batch))
                except OSError as error:
                    for _, completion in batch:
                        completion.fail(translated(error, self._path))
                batch = []
        finally:
            self._is_open = False
            for _, completion in [*batch, *self._queue]:
                completion.fail(closed_error())
            self._queue.clear()

    def _answer(self, queries: Sequence[Query]) -> list[tuple[Any, Exception | None]]:
        with self.in_use:
            return [self._answer_one(query) for query in queries]

    def _answer_one(self, query: Query) -> tuple[Any, Exception | None]:
        try:
            return query(self._db), None
        except (DamagedRow, LostHeads) as error:
            return None, error.with_traceback(None)  # which holds the statement, and so an old snapshot
        except (sqlite3.Error, OSError) as error:
            return None, translated(error, self._path)
        except Unavailable as error:
            return None, error
        except BzzzError as error:
            return None, Internal(f"{self._path}: what was read is no version ({error}); the file is damaged")
        except Exception as error:  # a query that can never be answered fails alone: its batch and the store go on
            return None, error


def _complete(batch: Sequence[_Submission], answers: Sequence[tuple[Any, Exception | None]]) -> None:
    for (_, completion), (answer, error) in zip(batch, answers, strict=True):
        if error is not None:
            completion.fail(error)
        else:
            completion.succeed(answer)


def closed_error() -> Unavailable:
    return Unavailable("the store is closed; try again when the node is up")
