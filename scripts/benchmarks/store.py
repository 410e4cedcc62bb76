"""Durable puts into the SQLite store (WAL, synchronous FULL)."""

import tempfile
import time
from pathlib import Path

import trio

from benchmarks.envelopes import START_MS, ready
from benchmarks.figures import Bound, Figure
from netsim.durations import percentile
from node.store.log import Incoming, Origin
from node.store.sqlite.store import SqliteStore
from protocols.envelope import Envelope

COUNT = 30_000
HOLDERS = tuple(f"12D3KooWBenchHolder{number}" for number in range(4))


def run() -> list[Figure]:
    figures = []
    for callers, holders, target in ((1, (), None), (64, (), 15_000.0), (64, HOLDERS, None)):
        count = COUNT if callers > 1 else COUNT // 10
        with tempfile.TemporaryDirectory(prefix="bzzz-bench-") as folder:
            rate, p99 = trio.run(_puts, Path(folder), count, callers, holders)
        what = f"durable puts, {callers} callers, {len(holders)} hints each"
        bound = Bound.NONE if target is None else Bound.AT_LEAST
        figures.append(Figure(bench="store", what=what, value=rate, unit="/s", bound=bound, target=target))
        figures.append(Figure(bench="store", what=f"  p99 of {what}", value=p99 * 1000, unit="ms"))
    return figures


async def _puts(folder: Path, count: int, callers: int, holders: tuple[str, ...]) -> tuple[float, float]:
    """Puts a second, and the 99th percentile in seconds."""
    envelopes = ready(count)
    store = SqliteStore.open(folder / "store.sqlite", random_id="0" * 16)
    latencies: list[float] = []

    async def caller(mine: list[Envelope]) -> None:
        for envelope in mine:
            started = time.perf_counter()
            await store.merge((Incoming(envelope, Origin.LOCAL, holders),), now_ms=START_MS)
            latencies.append(time.perf_counter() - started)

    async with trio.open_nursery() as outer:
        await outer.start(store.run)
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for number in range(callers):
                nursery.start_soon(caller, envelopes[number::callers])
        seconds = time.perf_counter() - started
        outer.cancel_scope.cancel()
    return count / seconds, percentile(latencies, 0.99)
