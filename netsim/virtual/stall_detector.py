"""Notices a virtual world that works for ever at one moment: tasks that wake each other, and no time passes.

On a real clock such a spin is a lost microsecond (a deadline that is due, but by one bit not yet reached); on a virtual
one it never ends, for time moves only when nobody can run. We count turns of trio's loop, look at the clock now and
then, and name the tasks that kept it standing.
"""

from collections import Counter

import trio

TURNS = 100_000
"""Turns of the loop between two looks at the clock. Standing still over one is allowed, over two it is not."""
NAMES_MAX = 3


class StallDetector(trio.abc.Instrument):
    """Cancels `scope` when time stands still; `spinners` says then who was busy, and `time` when."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self.spinners: tuple[str, ...] = ()
        self.time = -1.0
        self._scope = scope
        self._turns = 0
        self._witness: _Witness | None = None

    def before_io_wait(self, timeout: float) -> None:
        """One turn of the loop; called by trio."""
        self._turns += 1
        if self._turns % TURNS == 0:
            self._look(trio.current_time())

    def _look(self, now: float) -> None:
        witness, self._witness = self._witness, None
        if witness is not None:
            trio.lowlevel.remove_instrument(witness)
        if now == self.time:
            if witness is None:
                self._witness = _Witness()
                trio.lowlevel.add_instrument(self._witness)
            else:
                self.spinners = tuple(name for name, _ in witness.steps.most_common(NAMES_MAX))
                self._scope.cancel()
        self.time = now


class _Witness(trio.abc.Instrument):
    """Counts the steps of each task, by its name: too dear to be there all the time."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps[task.name] += 1
