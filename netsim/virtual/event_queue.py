"""What happens when: everything that a virtual world has in store, in one heap, done by one task.

Things happen in the order of (time, sequence): at the same moment, what was put down first happens first. Nobody is
told anything but by this task, so a callback never runs inside a call of the one it tells.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import TypeVarTuple

import trio

from netsim.virtual.scheduler import clock_stops_at

Args = TypeVarTuple("Args")


class EventQueue:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self._sleeper: trio.lowlevel.Task | None = None

    def at(self, time: float, happen: Callable[[*Args], None], *args: *Args) -> None:
        """Call `happen(*args)` at this time on trio's clock; a time that has passed is as soon as possible."""
        self._sequence += 1
        heappush(self._heap, (time, self._sequence, happen, args))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let things happen, each when nobody has anything left to do before it, until cancelled.

        What one of them raises ends the run.
        """
        with clock_stops_at(self._next_time, self._wake):
            task_status.started()
            while True:
                await self._sleep()
                now = trio.current_time()
                while self._heap and self._heap[0][0] <= now:
                    _, _, happen, args = heappop(self._heap)
                    happen(*args)

    def _next_time(self) -> float:
        return self._heap[0][0] if self._heap else inf

    async def _sleep(self) -> None:
        self._sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._wake_no_more)

    def _wake(self) -> None:
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            trio.lowlevel.reschedule(sleeper)

    def _wake_no_more(self, _: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
