"""Admission: the writes of many callers begin a few in a turn of the loop, in the order in which they came.

One loop does all the work of a node. If hundreds of writes began at once, each step of each of them would wait for a
step of all others: every write would miss its deadline, and every read between them would wait as long. So, while more
than `FREE` writes are under way, only `AT_ONCE` begin in a turn of the loop. The others wait in a line, where they cost
nothing, and a write whose turn would come too late is refused before anything was done for it.

The line is paced by the loop alone. Writes that wait for a slow disk or for far peers leave the loop idle: then its
turns are short, and the line is empty.
"""

import trio

from node.store.signal import Signal
from protocols.errors import Unavailable

FREE = 16
"""So many writes under way do not delay one another by much: below it none waits in the line."""
AT_ONCE = 8
"""Writes of the line that begin in a turn of the loop. With fewer a commit holds less, with more reads wait longer."""
SHARE = 0.8
"""The part of its deadline that a write may take by the estimate: the estimate may be wrong."""
FIRST_TURN_SECONDS = 0.004
"""The length of a turn in which `AT_ONCE` writes begin, until one was measured."""
_WEIGHT = 0.1
"""Of the newest turn in the mean of their lengths."""


class Admission:
    """Give each write its turn with `turn`; `run` must run."""

    def __init__(self) -> None:
        self._line = trio.lowlevel.ParkingLot()
        self._arrived = Signal()
        self._under_way = 0
        self._turn_seconds = FIRST_TURN_SECONDS
        self.refused = 0
        """Writes that would have been late."""

    @property
    def waiting(self) -> int:
        """How many writes wait in the line."""
        return len(self._line)

    async def run(self) -> None:
        """Let the writes of the line begin, until cancelled."""
        while True:
            if not self._line:
                await self._arrived.wait()
            started = trio.current_time()
            self._line.unpark(count=AT_ONCE)
            await trio.lowlevel.checkpoint()
            self._turn_seconds += (trio.current_time() - started - self._turn_seconds) * _WEIGHT

    def turn(self, seconds: float) -> "Turn":
        """The turn of a write with a deadline of `seconds`, to be entered by `async with`."""
        return Turn(self, seconds)

    async def begin(self, seconds: float) -> None:
        """Wait until a write may begin. Raises `Unavailable` when it would be too late: at once by the estimate, or
        when its turn has come."""
        if self._under_way >= FREE or self._line:
            came_at = trio.current_time()
            self._check_in_time(0.0, self._under_way + len(self._line), seconds)
            self._arrived.notify()
            await self._line.park()
            self._check_in_time(trio.current_time() - came_at, self._under_way, seconds)
        self._under_way += 1

    def end(self) -> None:
        """A write that began has ended."""
        self._under_way -= 1

    def _check_in_time(self, waited: float, before: int, seconds: float) -> None:
        """While the line is not empty, as many writes end as begin: each one before this takes its part of a turn."""
        took = waited + before * self._turn_seconds / AT_ONCE
        if took > seconds * SHARE:
            self.refused += 1
            raise Unavailable(
                f"this node is busy with {before} writes: this one would take about {took * 1000:.0f} ms, and its "
                f"deadline is {seconds * 1000:.0f} ms. Nothing was written; try again in a second, or with a longer "
                "timeout_ms",
                before=before, retry_after_ms=max(1, round(took * 1000)),
            )  # fmt: skip


class Turn:
    """The turn of one write: entering waits for it, and gives the time (trio's clock) at which the write came."""

    __slots__ = ("_admission", "_seconds")

    def __init__(self, admission: Admission, seconds: float) -> None:
        self._admission = admission
        self._seconds = seconds

    async def __aenter__(self) -> float:
        came_at = trio.current_time()
        await self._admission.begin(self._seconds)
        return came_at

    async def __aexit__(self, *_: object) -> None:
        self._admission.end()
