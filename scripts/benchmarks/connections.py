"""Short connections: thousands of peers connect, finish the handshake and leave; growth of memory and descriptors.

A fifth of them warms the node up: what a process fills once (caches, the allocator's reserves) is no growth.
"""

import secrets
import tempfile
import time
from pathlib import Path

import psutil
import trio

from benchmarks.figures import Bound, Figure
from netsim.processes.interrupts import Interrupts
from netsim.processes.node import NodeProcess
from node.swarm.libp2p import dial
from node.swarm.libp2p.address import parse
from node.swarm.libp2p.upgrade import Upgrader

VISITORS = 5_000
WARM = VISITORS // 5
AT_ONCE = 16
SETTLE_SECONDS = 20.0
"""The node gives memory back when it has not grown for a few seconds."""


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bzzz-bench-") as folder:
        node = NodeProcess("n1", Path(folder) / "n1", replication=20, interrupts=Interrupts())
        try:
            node.start([])
            node.wait_ready()
            return _measured(node)
        finally:
            node.ask_to_end()
            node.wait_ended(time.monotonic() + 5.0)


def _measured(node: NodeProcess) -> list[Figure]:
    process = psutil.Process(node.pid)
    trio.run(_come_and_go, node.multiaddrs[0], WARM)
    warm, descriptors = _settled(process), process.num_fds()
    started = time.perf_counter()
    trio.run(_come_and_go, node.multiaddrs[0], VISITORS)
    passed = time.perf_counter() - started
    growth = 100.0 * (_settled(process) / warm - 1.0)
    what = f"{VISITORS:,} came, proved who they are, and went"
    return [
        _figure(f"{what}: growth of memory", growth, "%", Bound.AT_MOST, 10.0),
        _figure(f"{what}: growth of descriptors", process.num_fds() - descriptors, "", Bound.AT_MOST, 0.0),
        _figure(f"{what}: a second", VISITORS / passed, "/s"),
    ]


def _settled(process: psutil.Process) -> int:
    """Resident bytes, after the allocator gave back what was freed."""
    time.sleep(SETTLE_SECONDS)
    return int(process.memory_info().rss)


async def _come_and_go(address: str, count: int) -> None:
    """Connect `count` times, each time as another peer, a few at a time."""
    left, sockets = count, trio.CapacityLimiter(AT_ONCE)

    async def visit() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            failed = dial.Failures()
            upgrader = Upgrader(secrets.token_bytes(32))
            won = await dial.race([parse(address)], upgrader, lambda _: "", failed, silent="no answer", sockets=sockets)
            if won is None:
                raise RuntimeError(f"the node took no connection: {failed.reasons}")
            won[1].abort("it was only a visit")

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(visit)


def _figure(what: str, value: float, unit: str, bound: Bound = Bound.NONE, target: float | None = None) -> Figure:
    return Figure(bench="connections", what=what, value=value, unit=unit, bound=bound, target=target)
