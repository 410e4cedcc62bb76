"""Thousands who come, prove who they are, and go: what a node keeps of them in memory and descriptors, and how fast.

The first fifth warms it up: what a process fills once (caches, the allocator's reserves) is no growth.
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

COMERS = 5_000
WARM = COMERS // 5
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
    trio.run(_come_and_go, node.multiaddrs[0], COMERS)
    passed = time.perf_counter() - started
    wait_until_grown = 100.0 * (_settled(process) / warm - 1.0)
    what = f"{COMERS:,} came, proved who they are, and went"
    return [
        _figure(f"{what}: growth of memory", wait_until_grown, "%", Bound.AT_MOST, 10.0),
        _figure(f"{what}: growth of descriptors", process.num_fds() - descriptors, "", Bound.AT_MOST, 0.0),
        _figure(f"{what}: a second", COMERS / passed, "/s"),
    ]


def _settled(process: psutil.Process) -> int:
    """Resident bytes, once what was freed was given back."""
    time.sleep(SETTLE_SECONDS)
    return int(process.memory_info().rss)


async def _come_and_go(address: str, count: int) -> None:
    """So many, each somebody else, a few at a time."""
    left = count

    async def one_after_the_other() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            failed: dict[str, str] = {}
            upgrader = Upgrader(secrets.token_bytes(32))
            won = await dial.race([parse(address)], upgrader, lambda _: "", failed, silent="no answer")
            if won is None:
                raise RuntimeError(f"the node let nobody in: {failed}")
            won[1].abort("it was only a visit")

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(one_after_the_other)


def _figure(what: str, value: float, unit: str, bound: Bound = Bound.NONE, target: float | None = None) -> Figure:
    return Figure(bench="connections", what=what, value=value, unit=unit, bound=bound, target=target)
