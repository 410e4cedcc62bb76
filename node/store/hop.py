"""One hop to a thread and back, without what `trio.to_thread` does besides.

A limit of how many there may be costs a turn of the loop, and a context of its own and a name a tenth of the rest: a
store has one thread for what it writes and one for what it reads, so its commits do without them.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import outcome
import trio

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """What `work` answers, or raises, in a thread. Cancelled, it is left to its thread, and nobody hears of it."""
    task = trio.lowlevel.current_task()
    token = trio.lowlevel.current_trio_token()
    is_waited_for = True

    def told(result: outcome.Outcome[Any]) -> None:
        if is_waited_for:
            trio.lowlevel.reschedule(task, result)

    def deliver(result: outcome.Outcome[T]) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(told, result)

    def leave(_: object) -> trio.lowlevel.Abort:
        nonlocal is_waited_for
        is_waited_for = False
        return trio.lowlevel.Abort.SUCCEEDED

    trio.lowlevel.start_thread_soon(work, deliver)
    return cast(T, await trio.lowlevel.wait_task_rescheduled(leave))
