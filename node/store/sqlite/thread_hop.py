"""One hop to a thread and back, without what `trio.to_thread` does besides.

A limit of how many there may be costs a turn of the loop, and a context of its own and a name a tenth of the rest: a
store has one thread for what it writes and one for what it reads, so its commits do without them.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import outcome
import trio

S = TypeVar("S")
T = TypeVar("T")


async def in_thread(work: Callable[[], S], then: Callable[[S], T]) -> T:
    """What `then` makes, on the trio thread, of what `work` answers in a thread; or what either of them raises.

    `then` is called as soon as the thread is done, a turn of the loop before whoever waits goes on: it must not wait.
    Cancelled, the work is left to its thread, and nobody hears of it.
    """
    task = trio.lowlevel.current_task()
    token = trio.lowlevel.current_trio_token()
    is_waited_for = True

    def told(result: outcome.Outcome[S]) -> None:
        if is_waited_for:
            made: outcome.Outcome[Any] = outcome.capture(lambda: then(result.unwrap()))
            trio.lowlevel.reschedule(task, made)

    def deliver(result: outcome.Outcome[S]) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(told, result)

    def leave(_: object) -> trio.lowlevel.Abort:
        nonlocal is_waited_for
        is_waited_for = False
        return trio.lowlevel.Abort.SUCCEEDED

    trio.lowlevel.start_thread_soon(work, deliver)
    return cast(T, await trio.lowlevel.wait_task_rescheduled(leave))
