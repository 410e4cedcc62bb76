"""Many seeds of one scenario, over several processes: a summary of each run, in the order of the seeds."""

import ctypes
import gc
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.sharedctypes import RawValue
from typing import Any

from netsim.report import failure_report
from netsim.scenario.model import Scenario
from netsim.virtual.play import RunResult, play

BATCH_SEEDS = 4
"""Seeds that a process gets at once."""
BATCHES_AHEAD = 4
"""Batches for each process that are submitted ahead: no process is idle while one seed takes long."""
INTERRUPT_SECONDS = 0.2
"""How long Ctrl-C may go unnoticed."""
_is_over: Any = None
"""In a worker: whether its parent wants no more runs, in memory that they share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run, short enough to travel between processes."""

    seed: int
    broken: tuple[str, ...]
    """The names of the checks that were broken and are not expected to fail."""
    expected: tuple[str, ...]
    """The names of the checks that were broken and are expected to fail."""
    story: str
    """The report of the failure; '' when `broken` is empty."""
    virtual_seconds: float
    real_seconds: float
    calls: int


def summarize(name: str, result: RunResult, real_seconds: float) -> Summary:
    history = result.history
    unexpected = result.unexpected
    return Summary(
        seed=result.seed,
        broken=tuple(dict.fromkeys(one.check for one in unexpected)),
        expected=tuple(dict.fromkeys(one.check for one in result.violations if one not in unexpected)),
        story=failure_report(name, result.seed, history, unexpected) if unexpected else "",
        virtual_seconds=max((sample.at for sample in history.samples), default=0.0),
        real_seconds=real_seconds,
        calls=len(history.operations),
    )


def play_many(name: str, scenario: Scenario, seeds: Iterable[int], *, jobs: int = 1) -> Iterator[Summary]:
    """Run a scenario for each seed. `name` is the name or file that the user gave: the replay command contains it."""
    if jobs <= 1:
        for seed in seeds:
            yield _play_one(name, scenario, seed)
        return
    left = iter(seeds)
    under_way: deque[Future[list[Summary]]] = deque()
    is_over = RawValue(ctypes.c_bool, False)
    with _without_interrupts():
        pool = ProcessPoolExecutor(max_workers=jobs, initializer=_begin_worker, initargs=(is_over,))
    try:
        while True:
            with _without_interrupts():
                while len(under_way) < BATCHES_AHEAD * jobs and (batch := list(islice(left, BATCH_SEEDS))):
                    under_way.append(pool.submit(_play_batch, name, scenario, batch))
            if not under_way:
                return
            first = under_way.popleft()
            while not first.done():
                with _without_interrupts():
                    wait([first], timeout=INTERRUPT_SECONDS)
            yield from first.result()
    finally:
        is_over.value = True
        with _without_interrupts():
            pool.shutdown(cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C takes effect at the end of this block: inside the pool's own code it could leave a lock locked.

    Ctrl-C reaches the whole process group. A worker is started in this block too, so SIGINT stays blocked in it until
    it ignores it: a worker that dies of SIGINT while others get work makes everything wait for ever (CPython,
    gh-94777).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(is_over: Any) -> None:
    """Interrupts are left to the parent, which submits no more then: a worker finishes the run that it has begun."""
    global _is_over
    _is_over = is_over
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _play_batch(name: str, scenario: Scenario, seeds: Iterable[int]) -> list[Summary]:
    """Batches that wait in a worker's queue cannot be cancelled: they play nothing when no more runs are wanted."""
    return [_play_one(name, scenario, seed) for seed in seeds if not _is_over.value]


def _play_one(name: str, scenario: Scenario, seed: int) -> Summary:
    started = time.perf_counter()
    summary = summarize(name, play(scenario, seed), time.perf_counter() - started)
    gc.collect()  # a world is full of cycles; without this the worlds of many runs stay in memory
    return summary
