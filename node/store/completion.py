"""A ticket: what a caller waits on while a writer carries out, in a batch with others, what it handed in.

A letter stands where a ticket stands, for somebody who does not wait and is told.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import outcome
import trio

T = TypeVar("T")


class Completion(Generic[T]):
    """One waiter at most. A waiter that is cancelled leaves; the work goes on, and the others do not notice.

    It is a third cheaper than an event and a field, and every durable write needs one.
    """

    __slots__ = ("_outcome", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._outcome: outcome.Outcome[T] | None = None

    def succeed(self, value: T) -> None:
        self._end(outcome.Value(value))

    def fail(self, error: BaseException) -> None:
        """Each waiter needs an error of its own: a raised one carries the traceback of who raised it."""
        self._end(outcome.Error(error))

    def _end(self, result: outcome.Outcome[T]) -> None:
        self._outcome = result
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> T:
        """What came of it. Cancellable while it is not decided, and a checkpoint then alone."""
        if self._outcome is None:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)
        assert self._outcome is not None
        return self._outcome.unwrap()

    def _leave(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class CallbackCompletion:
    """`told` is called once: quick, on the trio thread, and it must not raise."""

    __slots__ = ("_told",)

    def __init__(self, told: Callable[[Any], None]) -> None:
        """`told` hears what came of it, or the error."""
        self._told = told

    def succeed(self, value: Any) -> None:
        self._told(value)

    def fail(self, error: BaseException) -> None:
        self._told(error)
