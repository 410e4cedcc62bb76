"""Run a function in a thread and come back, without the extra costs of `trio.to_thread`.

There, a limit of threads costs a turn of the loop, and a context and a name for each call cost a tenth of the rest. A
store has one thread for its writes and one for its reads, so it needs neither.
"""

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import outcome
import trio

S = TypeVar("S")
T = TypeVar("T")


async def in_thread(work: Callable[[], S], then: Callable[[S], T]) -> T:
    """Call `work` in a thread, then `then` with its result on the trio thread; return the result of `then`.

    `then` is called as soon as the thread is done, one turn of the loop before the waiting task goes on; it must not
    wait. An error of either is raised here, and OSError when no thread can be started. When this call is cancelled,
    the thread finishes its work and the result is dropped.
    """
    task = trio.lowlevel.current_task()
    token = trio.lowlevel.current_trio_token()
    is_waited_for = True

    def resume(result: outcome.Outcome[S]) -> None:
        if is_waited_for:
            made: outcome.Outcome[Any] = outcome.capture(lambda: then(result.unwrap()))
            trio.lowlevel.reschedule(task, made)

    def deliver(result: outcome.Outcome[S]) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(resume, result)

    def leave(_: object) -> trio.lowlevel.Abort:
        nonlocal is_waited_for
        is_waited_for = False
        return trio.lowlevel.Abort.SUCCEEDED

    try:
        trio.lowlevel.start_thread_soon(work, deliver)
    except RuntimeError as error:  # as `threading` says that the machine has no thread left
        raise OSError(errno.EAGAIN, "this machine has no thread left") from error
    return cast(T, await trio.lowlevel.wait_task_rescheduled(leave))
