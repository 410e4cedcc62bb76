"""Deadlines: end waits for commits that take too long, with one timer for all of them.

Each durable write has a deadline, which nearly none reaches. A cancel scope for each costs 4.5 us of processor time, an
entry here a tenth of that.
"""

from heapq import heappop, heappush
from math import inf
from typing import Any

import trio

from node.store.completion import Completion
from node.store.errors import CommitLate
from node.store.signal import Signal


class Deadlines:
    """Used on the trio thread. Times are in seconds, on trio's clock."""

    def __init__(self) -> None:
        self._waits: list[tuple[float, int, Completion[Any]]] = []
        """A heap; the number keeps the order of equal deadlines."""
        self._number = 0
        self._woken_at = inf
        """When `run` looks at them next."""
        self._earlier = Signal()

    def add(self, deadline: float, completion: Completion[Any]) -> None:
        """Fail this completion with `CommitLate` at the deadline, unless it is done."""
        waits = self._waits
        while waits and waits[0][2].is_done:
            heappop(waits)
        self._number += 1
        heappush(waits, (deadline, self._number, completion))
        if deadline < self._woken_at:
            self._earlier.notify()

    async def run(self) -> None:
        """Until cancelled."""
        waits = self._waits
        while True:
            self._woken_at = waits[0][0] if waits else inf
            with trio.move_on_at(self._woken_at):
                await self._earlier.wait()
            now = trio.current_time()
            while waits and (waits[0][0] <= now or waits[0][2].is_done):
                _, _, completion = heappop(waits)
                completion.fail(CommitLate())
