"""One seed, one clock: runs a trio program so that it goes the same way every time, on every machine.

Three things differ between two runs of the same program, and each is pinned here and nowhere else:

- *Time.* The clock is trio's `MockClock`, which stands still while any task can run and jumps to the next deadline
  when none can: an hour passes in as long as its work takes.
- *The order of tasks.* trio runs what is ready in batches, and turns a batch round by the flip of a coin. It has a
  switch of its own for reproducible runs, made for Hypothesis: then a batch is sorted by the age of its tasks and
  shuffled by trio's private random source. We turn the switch on and put a source of our seed in its place, for one
  run. Sorting is what frees us from hashes: trio keeps tasks in sets here and there, whose order differs from process
  to process, but all they decide is who is put into the batch first. The names are private to trio, so we assert
  that they are there: a release that renames them fails every simulation at once, by name.
- *Chance.* Whoever needs chance takes it from `chance(seed, purpose)`, a source for each purpose, so that one more
  draw here changes nothing there.

What is left to the program: no iteration over sets, no threads, no sockets, no real clock, no `os.urandom`; and
asynchronous generators are closed by whoever opened them, not by the garbage collector.
"""

import gc
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import TypeVar, TypeVarTuple

import trio
from trio._core import _run as trio_run
from trio.testing import MockClock

from netsim.virtual.stall_detector import StallDetector

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

START_MS = 1_767_225_600_000
"""What every wall clock shows when a virtual world begins: 2026-01-01T00:00:00Z, in Unix milliseconds."""
COLLECTED = (10_000, 50, 100)
"""How seldom garbage is looked for during a run: nodes leave little that counting references does not free."""
LIMIT_SECONDS = 7 * 24 * 3600.0
"""How long a run may take on its own clock, unless told otherwise."""


class Stuck(AssertionError):
    """The program does not end: everybody waits for everybody, or somebody works for ever and no time passes."""


def run_virtual(
    seed: int,
    async_fn: Callable[[*Args], Awaitable[Result]],
    *args: *Args,
    limit_seconds: float = LIMIT_SECONDS,
) -> Result:
    """Run `async_fn(*args)` to its end on a virtual clock that begins at 0.0, and answer what it answers.

    The same seed gives the same run, under any PYTHONHASHSEED. Call it from plain functions, outside of any trio
    run. Raises what `async_fn` raises, and `Stuck` when it has not ended after `limit_seconds` of virtual time, or
    when time no longer passes.
    """
    limit = trio.CancelScope()
    standstill = StallDetector(limit)

    async def within_limit() -> Result:
        # Without any deadline a world in which nobody can run any more would spin for ever instead of ending.
        limit.deadline = trio.current_time() + limit_seconds
        with limit:
            return await async_fn(*args)
        if standstill.spinners:
            raise Stuck(f"time stands still at {standstill.time:.6f} s (seed {seed}): {standstill.spinners} never rest")
        raise Stuck(f"not ended after {limit_seconds:g} s of virtual time (seed {seed}): whom does it wait for?")

    with _pinned(seed):
        return trio.run(within_limit, clock=_clock(), instruments=[standstill])


def chance(seed: int, purpose: str) -> random.Random:
    """A source of chance of its own for each purpose ('net', 'n3'), the same in every process for the same seed."""
    return random.Random(f"{seed}/{purpose}")  # hashed by SHA-512: no PYTHONHASHSEED in it


@contextmanager
def clock_stops_at(next_time: Callable[[], float], wake: Callable[[], None]) -> Iterator[None]:
    """While this lasts the clock, when it jumps, also stops at `next_time()`, and calls `wake()` then.

    This is what a deadline of a task's own would do, without the scope and the `Cancelled` that each one costs.
    `wake` makes a task ready, and only that. One in a run.
    """
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock), "a virtual world runs under run_virtual"
    assert "_autojump" not in vars(clock), "one run has one virtual world"
    assert hasattr(clock, "_autojump"), f"trio {trio.__version__} jumps by another name: hook in anew, here"
    deadlines = trio_run.GLOBAL_RUN_CONTEXT.runner.deadlines  # the statistics tell this, too, and much else with it

    def jump() -> None:
        now = clock.current_time()
        stop = next_time()
        deadline = now + (deadlines.next_deadline() - now)
        if min(stop, deadline) < inf:
            clock.jump(max(0.0, min(stop, deadline) - now))
        if stop <= deadline and stop < inf:
            wake()

    vars(clock)["_autojump"] = jump
    try:
        yield
    finally:
        del vars(clock)["_autojump"]


def _clock() -> MockClock:
    """A clock that only jumps. It is looked at ten times for each step of a task, so it does not ask the real one."""
    clock = MockClock(autojump_threshold=0)
    assert hasattr(clock, "_virtual_base"), f"trio {trio.__version__} keeps its time elsewhere: read it anew, here"
    vars(clock)["current_time"] = lambda: clock._virtual_base
    return clock


class WallClock:
    """A node's own idea of the time of day: right, off by so much, or jumping."""

    def __init__(self, offset_ms: int = 0) -> None:
        self.offset_ms = offset_ms

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return START_MS + int(trio.current_time() * 1000) + self.offset_ms

    def jump(self, by_ms: int) -> None:
        """Put it forward, or back by a negative number, all at once."""
        self.offset_ms += by_ms


@contextmanager
def _pinned(seed: int) -> Iterator[None]:
    """trio's batches in the order of this seed, and everything as it was afterwards."""
    for name in ("_r", "_ALLOW_DETERMINISTIC_SCHEDULING"):
        assert hasattr(trio_run, name), f"trio {trio.__version__} has no {name} any more: pin its batches anew, here"
    before = trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    thresholds = gc.get_threshold()
    gc.set_threshold(*COLLECTED)
    trio_run._r = chance(seed, "trio")
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # Final there, and read at every turn
    try:
        yield
    finally:
        trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        gc.set_threshold(*thresholds)
