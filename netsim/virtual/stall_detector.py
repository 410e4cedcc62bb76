"""The stall detector: ends a virtual run in which tasks work for ever at one moment and no time passes.

On a real clock such a spin takes a lost microsecond (a deadline that is due, but by one bit not yet reached). On a
virtual clock it never ends, for time moves only when no task can run. The detector counts turns of trio's loop, looks
at the clock now and then, and names the tasks that kept it from moving.
"""

from collections import Counter

import trio

TURNS = 100_000
"""Turns of the loop between two looks at the clock. Time may stand still over one such interval, not over two."""
NAMES_MAX = 3


class StallDetector(trio.abc.Instrument):
    """Cancels `scope` when time stands still. Then `busy_tasks` has the names of the busiest tasks, and `time` when."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self.busy_tasks: tuple[str, ...] = ()
        self.time = -1.0
        self._scope = scope
        self._turns = 0
        self._counter: _StepCounter | None = None

    def before_io_wait(self, timeout: float) -> None:
        """One turn of the loop; trio calls it."""
        self._turns += 1
        if self._turns % TURNS == 0:
            self._look(trio.current_time())

    def _look(self, now: float) -> None:
        counter, self._counter = self._counter, None
        if counter is not None:
            trio.lowlevel.remove_instrument(counter)
        if now == self.time:
            if counter is None:
                self._counter = _StepCounter()
                trio.lowlevel.add_instrument(self._counter)
            else:
                self.busy_tasks = tuple(name for name, _ in counter.steps.most_common(NAMES_MAX))
                self._scope.cancel()
        self.time = now


class _StepCounter(trio.abc.Instrument):
    """Counts the steps of each task, by its name: too expensive to run all the time."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps[task.name] += 1
