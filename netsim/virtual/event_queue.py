"""The event queue of a virtual world: everything that will happen, in one heap, done by one task.

Events happen in the order of (time, sequence): of two at the same time, the one that was added first. Only this task
calls a callback, so a callback never runs inside a call that caused it.
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

    def at(self, time: float, callback: Callable[[*Args], None], *args: *Args) -> None:
        """Call `callback(*args)` at this time on trio's clock, or as soon as possible where that time has passed."""
        self._sequence += 1
        heappush(self._heap, (time, self._sequence, callback, args))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do each event once no task can run any more before its time, until cancelled.

        An exception from a callback ends the run.
        """
        with clock_stops_at(self._next_time, self._wake):
            task_status.started()
            while True:
                await self._sleep()
                now = trio.current_time()
                while self._heap and self._heap[0][0] <= now:
                    _, _, callback, args = heappop(self._heap)
                    callback(*args)

    def _next_time(self) -> float:
        return self._heap[0][0] if self._heap else inf

    async def _sleep(self) -> None:
        self._sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._cancelled)

    def _wake(self) -> None:
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            trio.lowlevel.reschedule(sleeper)

    def _cancelled(self, _: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
