"""Completions: how a caller gets the result of an operation that a queue carries out later, in a batch with others.

`Completion` is for a task that waits, `CallbackCompletion` for a caller that does not.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import outcome
import trio

T = TypeVar("T")


class Completion(Generic[T]):
    """At most one task waits for it. When that task is cancelled, the operation goes on.

    A third cheaper than an event and a field; every durable write needs one.
    """

    __slots__ = ("_outcome", "_task", "is_done")

    def __init__(self) -> None:
        self.is_done = False
        """It has a result or an error; any further one is dropped."""
        self._task: trio.lowlevel.Task | None = None
        self._outcome: outcome.Outcome[Any] | None = None

    def succeed(self, value: T) -> None:
        self._end(outcome.Value(value))

    def fail(self, error: BaseException) -> None:
        """Pass a new error object to each completion: raising adds a traceback to the object."""
        self._end(outcome.Error(error))

    def _end(self, result: outcome.Outcome[Any]) -> None:
        if self.is_done:
            return
        self.is_done = True
        if self._task is None:
            self._outcome = result
        else:
            trio.lowlevel.reschedule(self._task, result)
            self._task = None

    async def wait(self) -> T:
        """Return the result or raise the error. A checkpoint, and cancellable, only while there is neither yet."""
        if self._outcome is not None:
            return cast(T, self._outcome.unwrap())
        self._task = trio.lowlevel.current_task()
        return cast(T, await trio.lowlevel.wait_task_rescheduled(self._leave))

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
