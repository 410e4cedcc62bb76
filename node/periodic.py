"""Periodic tasks: an error of the machine does not end one of them, and with it the node.

A process may have no file descriptor, thread or memory left for a while. A task that looks at something from time to
time then fails once, and goes on later.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
LOG_AGAIN_SECONDS = 60.0


async def keep_running(task: Callable[[], Awaitable[None]], what: str) -> None:
    """Run a task until it returns; one that an error of the machine ends begins again a second later.

    Any other error is raised: it is a defect. `what` names the task in the log, which has a line a minute at most.
    """
    logged_at = -LOG_AGAIN_SECONDS
    while True:
        try:
            await task()
            return
        except Exception as error:
            if not is_of_machine(error):
                raise
            if trio.current_time() >= logged_at + LOG_AGAIN_SECONDS:
                logged_at = trio.current_time()
                log.error("%s failed, and goes on in %g s: %s", what, AGAIN_SECONDS, _in_words(error))
        await trio.sleep(AGAIN_SECONDS)


def is_of_machine(error: BaseException) -> bool:
    """Whether the machine is the cause: it refused a file, a socket, a thread or memory."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_of_machine, error.exceptions))
    return isinstance(error, OSError | MemoryError) or (
        isinstance(error, RuntimeError) and "start new thread" in str(error)
    )


def _in_words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
