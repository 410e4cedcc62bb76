"""Reading from the disk without making anybody wait: a thread of its own, and one hop for all who ask meanwhile.

A hop to a thread and back costs a tenth of a millisecond, a look-up a tenth of that. So what is asked while one batch
is read goes along with the next. SQLite's log lets readers go on while a commit is under way.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from node.store.completion import CallbackCompletion, Completion
from node.store.errors import translated
from node.store.signal import Signal
from node.store.sqlite.thread_hop import in_thread
from protocols.errors import BzzzError, Internal, Unavailable

T = TypeVar("T")

Query = Callable[[sqlite3.Connection], Any]
_Asked = tuple[Query, Completion[Any] | CallbackCompletion]

BATCH_MAX = 64
"""How many queries at most share a hop: behind a slow one nobody waits for more than these."""


class Reader:
    """Answers queries over a connection that only reads."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._asked: deque[_Asked] = deque()
        self._bell = Signal()
        self._is_open = True

    async def ask(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """What the query answers. Raises `Unavailable` when the disk fails or the store is closed."""
        if not self._is_open:
            raise closed()
        ticket: Completion[T] = Completion()
        self._asked.append((query, ticket))
        self._bell.ring()
        return await ticket.wait()

    def post(self, query: Callable[[sqlite3.Connection], T], told: Callable[[T], None]) -> None:
        """Tell somebody who cannot wait, once it is known; when it cannot be read, never."""

        def hear(answer: T | BaseException) -> None:
            if not isinstance(answer, BaseException):
                told(answer)

        if self._is_open:
            self._asked.append((query, CallbackCompletion(hear)))
            self._bell.ring()

    def close(self) -> None:
        """End `run`; what is being read is broken off."""
        self._is_open = False
        self._db.interrupt()
        self._bell.ring()

    async def run(self) -> None:
        """Until `close`. Cancelled in the middle of a batch, it leaves that to its thread."""
        batch: list[_Asked] = []
        try:
            while self._is_open:
                if not self._asked:
                    await self._bell.listen()
                    continue
                batch = [self._asked.popleft() for _ in range(min(len(self._asked), BATCH_MAX))]
                queries = [query for query, _ in batch]
                await in_thread(partial(self._answer, queries), partial(_tell, batch))
                batch = []
        finally:
            self._is_open = False
            for _, ticket in [*batch, *self._asked]:
                ticket.fail(closed())
            self._asked.clear()

    def _answer(self, queries: Sequence[Query]) -> list[tuple[Any, Exception | None]]:
        return [self._answer_one(query) for query in queries]

    def _answer_one(self, query: Query) -> tuple[Any, Exception | None]:
        try:
            return query(self._db), None
        except (sqlite3.Error, OSError) as error:
            return None, translated(error, self._path)
        except BzzzError as error:
            return None, Internal(f"{self._path}: what was read is no version ({error}); the file is damaged")


def _tell(batch: Sequence[_Asked], answers: Sequence[tuple[Any, Exception | None]]) -> None:
    for (_, ticket), (answer, error) in zip(batch, answers, strict=True):
        if error is not None:
            ticket.fail(error)
        else:
            ticket.succeed(answer)


def closed() -> Unavailable:
    return Unavailable("the store is closed; try again when the node is up")
