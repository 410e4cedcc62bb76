"""Many seeds of one scenario, over several processes: what became of each, in the order of the seeds."""

import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from netsim.report import told
from netsim.run import Played, play
from netsim.scenario import Scenario


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
    once = partial(_play_one, name, scenario)
    if jobs <= 1:
        yield from map(once, seeds)
        return
    pool = ProcessPoolExecutor(max_workers=jobs, initializer=_leave_interrupts_to_the_parent)
    try:
        yield from pool.map(once, seeds, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C reaches the whole group. A worker that it ends while it holds the queue's lock leaves all waiting for
    ever; so they end what they have begun, and the parent gives them nothing more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _play_one(name: str, scenario: Scenario, seed: int) -> Summary:
    started = time.perf_counter()
    return summed_up(name, play(scenario, seed), time.perf_counter() - started)
