"""Completions: how a caller gets the result of an operation that a queue carries out later, in a batch with others.

`Completion` is for a task that waits, `CallbackCompletion` for a caller that does not.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import outcome
import trio

T = TypeVar("T")


class Completion(Generic[T]):
    """At most one task waits for it. When that task is cancelled, the operation goes on.

    A third cheaper than an event and a field; every durable write needs one.
    """

    __slots__ = ("_outcome", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._outcome: outcome.Outcome[T] | None = None

    def succeed(self, value: T) -> None:
        self._end(outcome.Value(value))

    def fail(self, error: BaseException) -> None:
        """Pass a new error object to each completion: raising adds a traceback to the object."""
        self._end(outcome.Error(error))

    def _end(self, result: outcome.Outcome[T]) -> None:
        self._outcome = result
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> T:
        """Return the result or raise the error. A checkpoint, and cancellable, only while there is neither yet."""
        if self._outcome is None:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)
        assert self._outcome is not None
        return self._outcome.unwrap()

    def _leave(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class CallbackCompletion:
    """`on_done` gets the result or the error, once, on the trio thread; it must be quick and not raise."""

    __slots__ = ("_on_done",)

    def __init__(self, on_done: Callable[[Any], None]) -> None:
        self._on_done = on_done

    def succeed(self, value: Any) -> None:
        self._on_done(value)

    def fail(self, error: BaseException) -> None:
        self._on_done(error)
