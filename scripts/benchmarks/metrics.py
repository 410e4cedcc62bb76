"""The cost of metrics: a node on the mock backend with metrics compared with one without, and one scrape.

Both run in one process and get small pieces of the same work in turn, so that other work on the machine slows both
alike. The figures are medians over the pieces.
"""

import gc
import random
import time
from collections.abc import Awaitable, Callable
from statistics import median

import trio

from benchmarks.envelopes import KEY, START_MS, ready
from benchmarks.figures import Bound, Figure
from node import app
from node.api.exposition import exposition
from node.config.settings import Settings
from node.environment import Environment
from node.node import Node
from node.store.memory.store import MemoryStore
from protocols.envelope import Envelope

COUNT = 20_000
PIECE = 500
ROUNDS = 5
SCRAPES = 50


def run() -> list[Figure]:
    return trio.run(_measured)


async def _measured() -> list[Figure]:
    ratios, rates = [], []
    scrape = 0.0
    for what, seconds_of in (("put", _put_seconds), ("get", _get_seconds)):
        on, off, scrape = await _on_and_off(seconds_of)
        ratio = median(before / after for after, before in zip(on, off, strict=True))
        name = f"mock {what}: rate with metrics / without"
        ratios.append(Figure(bench="metrics", what=name, value=ratio, unit="x", bound=Bound.AT_LEAST, target=0.9))
        for how, seconds in (("with", on), ("without", off)):
            name = f"mock {what}, {how} metrics"
            rates.append(Figure(bench="metrics", what=name, value=PIECE / median(seconds), unit="/s"))
    return [*ratios, *rates, Figure(bench="metrics", what="one answer of /metrics", value=scrape * 1000, unit="ms")]


async def _on_and_off(
    seconds_of: Callable[[Node, list[Envelope]], Awaitable[float]],
) -> tuple[list[float], list[float], float]:
    """The seconds of each piece with and without metrics, and of one scrape of the node with metrics."""
    envelopes = ready(COUNT)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    scrape = 0.0
    for number in range(ROUNDS):
        order = (True, False) if number % 2 else (False, True)
        async with trio.open_nursery() as nursery:
            nodes = {is_on: await nursery.start(app.run, _world(), _settings(is_on)) for is_on in order}
            if seconds_of is _get_seconds:
                for node in nodes.values():
                    await _put_seconds(node, envelopes)
            gc.collect()
            gc.disable()
            for at in range(0, COUNT, PIECE):
                for is_on in order:
                    seconds[is_on].append(await seconds_of(nodes[is_on], envelopes[at : at + PIECE]))
            gc.enable()
            scrape = _scrape_seconds(nodes[True])
            nursery.cancel_scope.cancel()
    return seconds[True], seconds[False], scrape


def _settings(is_on: bool) -> Settings:
    return Settings(backend="mock", metrics_enabled=is_on)


def _world() -> Environment:
    store = MemoryStore(log_id="0" * 16)
    return Environment(key=KEY, network=None, store=store, now_ms=lambda: START_MS, chance=random.Random(1).random)


async def _put_seconds(node: Node, envelopes: list[Envelope]) -> float:
    put = node.dht.put
    started = time.perf_counter()
    for envelope in envelopes:
        await put(envelope)
    return time.perf_counter() - started


async def _get_seconds(node: Node, envelopes: list[Envelope]) -> float:
    get, keys = node.dht.get, [envelope.key for envelope in envelopes]
    started = time.perf_counter()
    for key in keys:
        await get(key)
    return time.perf_counter() - started


def _scrape_seconds(node: Node) -> float:
    assert node.meters is not None
    started = time.perf_counter()
    for _ in range(SCRAPES):
        exposition(node.meters)
    return (time.perf_counter() - started) / SCRAPES
