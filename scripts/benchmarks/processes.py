"""Real processes: the cost of an idle node, and of a call while all peers are frozen."""

import random
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import trio

from benchmarks.envelopes import ready
from benchmarks.figures import Bound, Figure
from netsim.durations import percentile
from netsim.processes.interrupts import Interrupts
from netsim.processes.node import NodeProcess
from node import app
from node.config.settings import Settings
from node.dht.mock import MockDHT
from node.environment import Environment
from node.node import Node
from node.store.sqlite.store import SqliteStore
from node.swarm.libp2p.host import Host
from protocols.keys import PrivateKey
from protocols.policy.breaker import BreakerState

PEERS = 4
IDLE_SECONDS = 15
OPEN_CALLS = 500


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bzzz-bench-") as folder:
        interrupts = Interrupts()
        peers = [
            NodeProcess(f"n{number}", Path(folder) / f"n{number}", replication=20, interrupts=interrupts)
            for number in range(1, PEERS + 1)
        ]
        try:
            met: list[str] = []
            for peer in peers:
                peer.start(met)
                peer.wait_ready()
                met.extend(peer.multiaddrs[:1])
            while any(peer.client.connected_peers() < PEERS - 1 for peer in peers):
                time.sleep(0.05)
            return [*_idle(peers[-1]), *trio.run(_frozen, Path(folder), peers)]
        finally:
            for peer in peers:
                peer.ask_to_end()
            for peer in peers:
                peer.wait_ended(time.monotonic() + 5.0)


def _idle(peer: NodeProcess) -> list[Figure]:
    """Memory and CPU of one node of four that gets no calls."""
    process = psutil.Process(peer.pid)
    process.cpu_percent()
    time.sleep(IDLE_SECONDS)
    cpu = process.cpu_percent()
    megabytes = process.memory_info().rss / 1e6
    return [
        Figure(bench="processes", what="idle node, RSS", value=megabytes, unit="MB", bound=Bound.AT_MOST, target=120.0),
        Figure(bench="processes", what="idle node, CPU", value=cpu, unit="%", bound=Bound.AT_MOST, target=1.0),
    ]


async def _frozen(folder: Path, peers: list[NodeProcess]) -> list[Figure]:
    """A node in this process, hybrid over a real disk, while every peer is stopped by SIGSTOP."""
    key = PrivateKey.from_seed(secrets.token_bytes(32))
    store = SqliteStore.open(folder / "bench.sqlite", random_id=secrets.token_hex(8))
    world = Environment(
        key=key,
        network=Host(key, ["/ip4/127.0.0.1/tcp/0"]),
        store=store,
        now_ms=_now_ms,
        chance=random.random,
    )
    settings = Settings(name="bench", bootstrap=tuple(peer.multiaddrs[0] for peer in peers))
    async with trio.open_nursery() as nursery:
        node: Node = await nursery.start(app.run, world, settings)
        while sum(peer.is_connected for peer in node.peers()) < len(peers):
            await trio.sleep(0.01)
        try:
            return await _measured(node, MockDHT(store, own=key.peer_id, now_ms=_now_ms), peers)
        finally:
            for peer in peers:
                peer.thaw()
            nursery.cancel_scope.cancel()
    raise AssertionError("the nursery returns or raises")


async def _measured(node: Node, mock: MockDHT, peers: list[NodeProcess]) -> list[Figure]:
    assert node.breaker is not None
    run = secrets.token_hex(4)
    envelopes = iter(ready(40 + 4 * OPEN_CALLS, run=run))
    for _ in range(20):
        await node.dht.put(next(envelopes))
    for peer in peers:
        peer.freeze()
    at_first: list[float] = []
    while node.breaker.state is BreakerState.CLOSED and len(at_first) < 20:
        at_first.append(await _timed(node.dht.put, next(envelopes)))
    over, commits, reads = [], [], []
    for number in range(OPEN_CALLS):
        # In turn, so that a slow moment of the disk is in both.
        commits.append(await _timed(mock.put, next(envelopes)))
        over.append(await _timed(node.dht.put, written := next(envelopes)))
        if number % 2:
            reads.append(await _timed(node.dht.get, written.key))
    p99_over = percentile(over, 0.99) - percentile(commits, 0.99)
    return [
        Figure(bench="processes", what="all peers frozen, breaker closed: slowest put", value=max(at_first), unit="ms",
               bound=Bound.AT_MOST, target=100.0),
        Figure(bench="processes", what="all peers frozen: puts until the breaker opens", value=len(at_first), unit=""),
        Figure(bench="processes", what="breaker open: put p99 over the store's own commit p99", value=p99_over,
               unit="ms", bound=Bound.AT_MOST, target=1.0),
        Figure(bench="processes", what="breaker open: put p50", value=percentile(over, 0.5), unit="ms"),
        Figure(bench="processes", what="the store's own commit, p50", value=percentile(commits, 0.5), unit="ms"),
        Figure(bench="processes", what="breaker open: get p99", value=percentile(reads, 0.99), unit="ms",
               bound=Bound.AT_MOST, target=1.0),
    ]  # fmt: skip


async def _timed(operation: Callable[..., Awaitable[object]], argument: object) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    await operation(argument)
    return (time.perf_counter() - started) * 1000.0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
