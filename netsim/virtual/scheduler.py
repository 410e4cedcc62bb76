"""A deterministic scheduler: runs a trio program on a virtual clock, the same way every time for one seed.

Three things differ between two runs of the same program. This module fixes each of them:

- *Time.* The clock is trio's `MockClock`, which stands still while any task can run and jumps to the next deadline
  when none can: an hour takes as long as its work.
- *The order of tasks.* trio runs ready tasks in batches, and reverses a batch at random. It has a switch for
  reproducible runs, made for Hypothesis: a batch is then sorted by the age of its tasks and shuffled by trio's private
  random source. For one run, this module turns the switch on and puts a source of the seed in that place. Sorting makes
  the order independent of hashes: trio keeps some tasks in sets, whose order differs from process to process, but the
  sets only decide the order in a batch before it is sorted. The names are private to trio, so asserts check that they
  exist: a release that renames them fails every simulation at once, by name.
- *Randomness.* It comes from `chance(seed, purpose)`, with a source for each purpose, so one more draw for one purpose
  changes nothing for another.

The rest is up to the program: no iteration over sets, no threads, no sockets, no real clock, no `os.urandom`; and an
asynchronous generator is closed by the code that opened it, not by the garbage collector.
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
"""The time on every wall clock when a virtual world begins: 2026-01-01T00:00:00Z, in Unix milliseconds."""
GC_THRESHOLDS = (10_000, 50, 100)
"""Garbage collection is rare during a run: reference counts free nearly everything that nodes leave."""
LIMIT_SECONDS = 7 * 24 * 3600.0
"""How long a run may take on its own clock, by default."""


class Stuck(AssertionError):
    """The program does not end: all its tasks wait, or a task works for ever while no time passes."""


def run_virtual(
    seed: int,
    async_fn: Callable[[*Args], Awaitable[Result]],
    *args: *Args,
    limit_seconds: float = LIMIT_SECONDS,
) -> Result:
    """Run `async_fn(*args)` to its end on a virtual clock that begins at 0.0, and return its result.

    The same seed gives the same run, under any PYTHONHASHSEED. Call it from plain functions, outside of any trio
    run. Raises what `async_fn` raises, and `Stuck` when it has not ended after `limit_seconds` of virtual time, or
    when time no longer passes.
    """
    limit = trio.CancelScope()
    stall = StallDetector(limit)

    async def within_limit() -> Result:
        # Without any deadline a program whose tasks all wait would never end.
        limit.deadline = trio.current_time() + limit_seconds
        with limit:
            return await async_fn(*args)
        if stall.busy_tasks:
            raise Stuck(f"time stands still at {stall.time:.6f} s (seed {seed}): {stall.busy_tasks} never wait")
        raise Stuck(f"not ended after {limit_seconds:g} s of virtual time (seed {seed})")

    with _pinned(seed):
        return trio.run(within_limit, clock=_clock(), instruments=[stall])


def chance(seed: int, purpose: str) -> random.Random:
    """A random source for one purpose ('net', 'n3'), the same in every process for the same seed."""
    return random.Random(f"{seed}/{purpose}")  # hashed by SHA-512: no PYTHONHASHSEED in it


@contextmanager
def clock_stops_at(next_time: Callable[[], float], wake: Callable[[], None]) -> Iterator[None]:
    """In this block the clock, when it jumps, also stops at `next_time()`, and calls `wake()` then.

    A deadline of a task does the same, but costs a scope and a `Cancelled` each time. `wake` makes a task ready, and
    does nothing else. One in a run.
    """
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock), "a virtual world runs under run_virtual"
    assert "_autojump" not in vars(clock), "one run has one virtual world"
    assert hasattr(clock, "_autojump"), f"trio {trio.__version__} has no _autojump any more: adapt clock_stops_at"
    deadlines = trio_run.GLOBAL_RUN_CONTEXT.runner.deadlines  # trio's statistics have this as well, and take longer

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
    """A clock that only jumps. It is read ten times for each step of a task, so it does not read the real one."""
    clock = MockClock(autojump_threshold=0)
    assert hasattr(clock, "_virtual_base"), f"trio {trio.__version__} has no _virtual_base any more: adapt _clock"
    vars(clock)["current_time"] = lambda: clock._virtual_base
    return clock


class WallClock:
    """A machine's wall clock: right, off by `offset_ms`, or jumping."""

    def __init__(self, offset_ms: int = 0) -> None:
        self.offset_ms = offset_ms

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return START_MS + int(trio.current_time() * 1000) + self.offset_ms

    def jump(self, by_ms: int) -> None:
        """Move it forward, or back by a negative number, all at once."""
        self.offset_ms += by_ms


@contextmanager
def _pinned(seed: int) -> Iterator[None]:
    """In this block trio's batches are in the order of this seed. Everything is restored after it."""
    for name in ("_r", "_ALLOW_DETERMINISTIC_SCHEDULING"):
        assert hasattr(trio_run, name), f"trio {trio.__version__} has no {name} any more: adapt _pinned"
    before = trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    trio_run._r = chance(seed, "trio")
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # Final in trio, and read at every turn
    try:
        yield
    finally:
        trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        gc.set_threshold(*thresholds)
