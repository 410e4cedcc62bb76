"""Wake: notices that this machine slept, by a wall clock that went on while the monotonic clock stood still."""

from collections.abc import Callable

import trio

LOOK_SECONDS = 1.0
SLEPT_SECONDS_MIN = 5.0
"""A wall clock that is ahead by less than this was adjusted, or this process was late."""


async def notice_wake(now_ms: Callable[[], int], on_woken: Callable[[float], None]) -> None:
    """Call `on_woken` with the seconds that the machine slept, each time that it woke. Runs until cancelled.

    A clock that was set forward looks the same, and what the node then does (it asks its peers whether they are there)
    costs little.
    """
    ahead = now_ms() / 1000.0 - trio.current_time()
    while True:
        await trio.sleep(LOOK_SECONDS)
        before, ahead = ahead, now_ms() / 1000.0 - trio.current_time()
        if ahead - before >= SLEPT_SECONDS_MIN:
            on_woken(ahead - before)
