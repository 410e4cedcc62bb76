"""Many seeds of one scenario, over several processes: what became of each, in the order of the seeds."""

import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from netsim.report import told
from netsim.runner import Played, play
from netsim.scenario.model import Scenario

AT_ONCE = 4
"""Seeds that a process is given together."""
AHEAD = 4
"""How often a process may have that waiting: enough that none is idle while one seed takes long."""
HEED_SECONDS = 0.2
"""How long Ctrl-C may go unnoticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run, short enough to travel between processes."""

    seed: int
    broken: tuple[str, ...]
    """The names of the checks that were broken and should not be."""
    expected: tuple[str, ...]
    """Those that were expected to be."""
    story: str
    """'' when nothing was broken that should not be."""
    virtual_seconds: float
    real_seconds: float
    calls: int


def summed_up(name: str, played: Played, real_seconds: float) -> Summary:
    history = played.history
    unexpected = played.unexpected
    return Summary(
        seed=played.seed,
        broken=tuple(dict.fromkeys(one.check for one in unexpected)),
        expected=tuple(dict.fromkeys(one.check for one in played.broken if one not in unexpected)),
        story=told(name, played.seed, history, unexpected) if unexpected else "",
        virtual_seconds=max((sample.at for sample in history.samples), default=0.0),
        real_seconds=real_seconds,
        calls=len(history.operations),
    )


def play_many(name: str, scenario: Scenario, seeds: Iterable[int], *, jobs: int = 1) -> Iterator[Summary]:
    """Run a scenario for each seed. `name` is how it was asked for: it is in the command that replays a run."""
    if jobs <= 1:
        for seed in seeds:
            yield _play_one(name, scenario, seed)
        return
    left = iter(seeds)
    under_way: deque[Future[list[Summary]]] = deque()
    with _undisturbed():
        pool = ProcessPoolExecutor(max_workers=jobs, initializer=_leave_interrupts_to_the_parent)
    try:
        while True:
            with _undisturbed():
                while len(under_way) < AHEAD * jobs and (some := list(islice(left, AT_ONCE))):
                    under_way.append(pool.submit(_play_some, name, scenario, some))
            if not under_way:
                return
            first = under_way.popleft()
            while not first.done():
                with _undisturbed():
                    wait([first], timeout=HEED_SECONDS)
            yield from first.result()
    finally:
        with _undisturbed():
            pool.shutdown(cancel_futures=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C comes at the end of it: in the middle of what the pool does it could leave a lock behind that is held.

    It reaches the whole group. A process is begun in here too, and has it blocked until it ignores it: one that dies of
    it while others are given work leaves everybody waiting for ever (CPython, gh-94777).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_interrupts_to_the_parent() -> None:
    """What a process has begun it ends, and the parent gives it nothing more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _play_some(name: str, scenario: Scenario, seeds: Iterable[int]) -> list[Summary]:
    return [_play_one(name, scenario, seed) for seed in seeds]


def _play_one(name: str, scenario: Scenario, seed: int) -> Summary:
    started = time.perf_counter()
    return summed_up(name, play(scenario, seed), time.perf_counter() - started)
