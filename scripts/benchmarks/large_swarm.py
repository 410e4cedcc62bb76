"""A large swarm: how many connections a node has, and what a call takes whose holders must be dialled first.

Real processes with few connections for the times; the virtual world for the numbers, with the default of connections
that are kept.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from benchmarks.figures import Figure
from netsim.durations import percentile
from netsim.processes.interrupts import Interrupts
from netsim.processes.node import NodeProcess
from netsim.virtual.nodes import VirtualSwarm
from netsim.virtual.scheduler import run_virtual
from node.config.settings import Settings

NODES, KEPT, REPLICATION = 12, 4, 2
KEYS = 24
MEET_SECONDS_MAX = 120.0
QUIET_SECONDS = 75.0
"""Longer than a connection stays without use."""
VIRTUAL_NODES = 100


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bzzz-bench-") as folder:
        interrupts, kept = Interrupts(), f"bzzz:\n  connections_kept: {KEPT}\n"
        nodes = [
            NodeProcess(
                f"n{number}", Path(folder) / f"n{number}",
                replication=REPLICATION, interrupts=interrupts, configuration=kept,
            )
            for number in range(1, NODES + 1)
        ]  # fmt: skip
        try:
            figures = _in_processes(nodes)
        finally:
            for node in nodes:
                node.ask_to_end()
            for node in nodes:
                node.wait_ended(time.monotonic() + 5.0)
    return [*figures, *run_virtual(1, _in_virtual_world, 1, limit_seconds=1_000.0)]


def _in_processes(nodes: Sequence[NodeProcess]) -> list[Figure]:
    first: list[str] = []
    for node in nodes:
        node.start(first)
        node.wait_ready()
        first = first or [node.multiaddrs[0]]
    deadline = time.monotonic() + MEET_SECONDS_MAX
    while any(_known(node) < NODES - 1 for node in nodes):
        if time.monotonic() > deadline:
            raise RuntimeError("the nodes of a bench did not meet")
        time.sleep(0.2)
    time.sleep(QUIET_SECONDS)
    quiet = [node.client.connected_peers() for node in nodes]
    addresses = [f"ucxl://bench:bench@bench:large/*^/{number}" for number in range(KEYS)]
    puts = [nodes[0].client.put(address, b"content").elapsed_ms for address in addresses]
    again = [nodes[0].client.put(address, b"content, too").elapsed_ms for address in addresses]
    time.sleep(QUIET_SECONDS)
    gets, gets_again = [], []
    for number, address in enumerate(addresses):
        client = nodes[1 + number % (NODES - 1)].client
        gets.append(client.get(address, consistency="swarm").elapsed_ms)
        gets_again.append(client.get(address, consistency="swarm").elapsed_ms)
    return [
        _figure(f"{NODES} quiet nodes that keep {KEPT}: connections of a node, the most", max(quiet), ""),
        *_times("first put of an address, its holders dialled when need be", puts),
        *_times("second put of it, soon after", again),
        *_times("get from the holders after a minute, these dialled when need be", gets),
        *_times("the same get again", gets_again),
    ]


def _known(node: NodeProcess) -> int:
    return sum(bool(peer["member"]) for peer in node.client.call("GET", "/v1/peers").data.get("peers", []))


async def _in_virtual_world(seed: int) -> list[Figure]:
    names = [f"n{number}" for number in range(1, VIRTUAL_NODES + 1)]
    async with VirtualSwarm.open(seed, names, settings=Settings()) as swarm:
        await trio.sleep(2 * QUIET_SECONDS)
        nodes = [machine.running for machine in swarm.nodes.values()]
        connections = [sum(peer.is_connected for peer in node.peers()) for node in nodes]
        known = min(len(node.members) for node in nodes)
    what = f"{VIRTUAL_NODES} virtual nodes that keep {Settings().connections_kept}"
    return [
        _figure(f"{what}: connections of a node, the median", percentile(connections, 0.5), ""),
        _figure(f"{what}: connections of a node, the most", max(connections), ""),
        _figure(f"{what}: members that a node knows, the fewest", known, ""),
    ]


def _times(what: str, elapsed_ms: Sequence[float]) -> list[Figure]:
    return [
        _figure(f"{what}, p50", percentile(elapsed_ms, 0.5), "ms"),
        _figure(f"{what}, the longest", max(elapsed_ms), "ms"),
    ]


def _figure(what: str, value: float, unit: str) -> Figure:
    return Figure(bench="large_swarm", what=what, value=value, unit=unit)
