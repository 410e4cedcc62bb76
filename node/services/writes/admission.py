"""Admission: the writes of many callers begin a few in a turn of the loop, in the order in which they came.

One loop does all the work of a node. If hundreds of writes began at once, each step of each of them would wait for a
step of all others: every write would miss its deadline, and every read between them would wait as long. So, while
`FREE` writes or more are under way, only `AT_ONCE` begin in a turn of the loop. The others wait in a line, where they
cost nothing, and a write that would be late is refused before anything was done for it.

How long a write will take follows from Little's law: with n writes before it, n times the loop's busy time for one. The
time in which the loop is idle does not count: then the writes wait for a slow disk or for far peers, which a further
write does not delay.
"""

import time
from collections.abc import Callable

import trio

from node.store.signal import Signal
from protocols.errors import Unavailable

FREE = 16
"""So many writes under way do not delay one another by much: below it none waits in the line."""
AT_ONCE = 8
"""Writes of the line that begin in a turn of the loop. With fewer a commit holds less, with more reads wait longer."""
SHARE = 0.8
"""The part of its deadline that a write may take by the estimate: the estimate may be wrong."""


class Admission:
    """Give each write its turn with `turn`; `run` must run."""

    def __init__(self, cost: "WriteCost | None" = None) -> None:
        self._line = trio.lowlevel.ParkingLot()
        self._changed = Signal()
        """Notified when a write comes into the line, and when few writes are under way again."""
        self._under_way = 0
        self._cost = cost or WriteCost()
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
                await self._changed.wait()
            with self._cost:
                await self._let_begin()

    async def _let_begin(self) -> None:
        """Until few writes are under way again."""
        while self._line or self._under_way >= FREE:
            if self._line:
                self._line.unpark(count=AT_ONCE)
                await trio.lowlevel.checkpoint()
            else:
                await self._changed.wait()

    def turn(self, seconds: float) -> "Turn":
        """The turn of a write with a deadline of `seconds`, to be entered by `async with`."""
        return Turn(self, seconds)

    async def begin(self, seconds: float) -> None:
        """Wait until a write may begin. Raises `Unavailable` when it would be too late: at once by the estimate, or
        when its turn has come."""
        if self._under_way >= FREE or self._line:
            came_at = trio.current_time()
            self._check_in_time(0.0, self._under_way + len(self._line), seconds)
            self._changed.notify()
            await self._line.park()
            self._check_in_time(trio.current_time() - came_at, self._under_way, seconds)
        self._under_way += 1

    def end(self) -> None:
        """A write that began has ended."""
        self._under_way -= 1
        self._cost.write_ended()
        if self._under_way == FREE - 1:
            self._changed.notify()

    def _check_in_time(self, waited: float, before: int, seconds: float) -> None:
        took = waited + before * self._cost.seconds
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


class WriteCost(trio.abc.Instrument):
    """Measures, within its context, the loop's busy time for one write, with all that the loop does meanwhile."""

    SAMPLE = 32
    """Writes that make a sample; the newest counts for a half, and each one before it for half as much."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = 0.0005
        """A guess, until writes were measured."""
        self._now = now
        self._busy_since: float | None = None
        """None while the loop waits, and outside the context."""
        self._busy_seconds = 0.0
        self._ended = 0

    def __enter__(self) -> None:
        self._busy_since = self._now()
        trio.lowlevel.add_instrument(self)

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)
        self.before_io_wait(0.0)

    def before_io_wait(self, timeout: float) -> None:
        if self._busy_since is not None:
            self._busy_seconds += self._now() - self._busy_since
            self._busy_since = None

    def after_io_wait(self, timeout: float) -> None:
        self._busy_since = self._now()

    def write_ended(self) -> None:
        if self._busy_since is None:
            return
        self._ended += 1
        if self._ended == self.SAMPLE:
            self.seconds += (self._busy_seconds / self._ended - self.seconds) / 2
            self._busy_seconds, self._ended = 0.0, 0
