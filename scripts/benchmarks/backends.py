"""Backends in one process over a store in memory: the rate of mock, and hybrid compared with mock."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from benchmarks.envelopes import KEY, START_MS, ready
from benchmarks.figures import Bound, Figure
from netsim.virtual.nodes import VirtualSwarm
from netsim.virtual.scheduler import run_virtual
from node.config.settings import Settings
from node.dht.base import DHT
from node.dht.mock import MockDHT
from node.node import Node
from node.store.log import Incoming, Origin
from node.store.memory.store import MemoryStore
from protocols.envelope import Envelope
from protocols.temporal import First
from protocols.ucxl import Address, parse

COUNT = 50_000
ROUNDS = 5


def run() -> list[Figure]:
    puts, gets = trio.run(_mock)
    ratio, hybrid, switched = run_virtual(1, _hybrid_against_mock)
    held, kept, asked = run_virtual(1, _resolved)
    return [
        Figure(bench="backends", what="mock put", value=puts, unit="/s", bound=Bound.AT_LEAST, target=200_000),
        Figure(bench="backends", what="mock get", value=gets, unit="/s", bound=Bound.AT_LEAST, target=200_000),
        Figure(bench="backends", what="hybrid get of what is held", value=hybrid, unit="/s"),
        Figure(bench="backends", what="hybrid get of what is held, by the switch", value=switched, unit="/s"),
        Figure(bench="backends", what="resolve of what is held, by hybrid", value=held, unit="/s"),
        Figure(bench="backends", what="resolve of a first version that was kept", value=kept, unit="/s"),
        Figure(bench="backends", what="resolve of a first version, looked up", value=asked, unit="/s"),
        Figure(
            bench="backends", what="get of what is held: time of hybrid / mock", value=ratio, unit="x",
            bound=Bound.AT_MOST, target=2.0,
        ),
    ]  # fmt: skip


async def _mock() -> tuple[float, float]:
    puts, gets = [], []
    envelopes = ready(COUNT)
    for _ in range(ROUNDS):
        store = MemoryStore(log_id="0" * 16)
        mock = MockDHT(store, own=KEY.peer_id, now_ms=lambda: START_MS)
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            puts.append(COUNT / await _seconds(mock.put, envelopes))
            gets.append(COUNT / await _gets_seconds(mock, envelopes))
            nursery.cancel_scope.cancel()
    return sorted(puts)[ROUNDS // 2], sorted(gets)[ROUNDS // 2]


async def _seconds(operation: Callable[[Envelope], Awaitable[object]], envelopes: list[Envelope]) -> float:
    started = time.perf_counter()
    for envelope in envelopes:
        await operation(envelope)
    return time.perf_counter() - started


async def _gets_seconds(dht: DHT, envelopes: list[Envelope]) -> float:
    keys = [envelope.key for envelope in envelopes]
    started = time.perf_counter()
    for key in keys:
        await dht.get(key)
    return time.perf_counter() - started


async def _resolved() -> tuple[float, float, float]:
    """A node of three that holds every key: heads, and first versions with and without the resolver's cache."""
    envelopes = ready(2_000)
    heads = [parse(envelope.address) for envelope in envelopes]
    firsts = [replace(address, temporal=First()) for address in heads]
    rates: dict[str, list[float]] = {"held": [], "kept": [], "asked": []}
    async with VirtualSwarm.open(1, ["n1", "n2", "n3"], settings=Settings()) as swarm:
        machine = swarm["n1"]
        node = machine.running
        while sum(peer.is_connected for peer in node.peers()) < 2:
            await trio.sleep(0.01)
        await trio.sleep(1.0)  # virtual seconds: every peer has been pinged
        await machine.store.merge([Incoming(envelope, Origin.PEER) for envelope in envelopes], now_ms=START_MS)
        for _ in range(ROUNDS):
            rates["held"].append(await _resolves(node, heads))
            await _resolves(node, firsts)
            rates["kept"].append(await _resolves(node, firsts))
            node.resolver.use_flags(replace(node.flags.current, cache_enabled=False))
            rates["asked"].append(await _resolves(node, firsts))
            node.resolver.use_flags(node.flags.current)
    held, kept, asked = (sorted(each)[ROUNDS // 2] for each in rates.values())
    return held, kept, asked


async def _resolves(node: Node, addresses: list[Address]) -> float:
    started = time.perf_counter()
    for address in addresses:
        await node.resolver.resolve(address)
    return len(addresses) / (time.perf_counter() - started)


async def _hybrid_against_mock() -> tuple[float, float, float]:
    """A node of five that holds every key; the backends in turn; medians."""
    ratios, rates, switched = [], [], []
    envelopes = ready(10_000)
    async with VirtualSwarm.open(1, [f"n{n}" for n in range(1, 6)], settings=Settings()) as swarm:
        machine = swarm["n1"]
        switch = machine.running.dht
        hybrid = switch.begin(envelopes[0].key).dht
        while sum(peer.is_connected for peer in machine.running.peers()) < 4:
            await trio.sleep(0.01)
        await trio.sleep(1.0)  # virtual seconds: every peer has been pinged
        mock = MockDHT(machine.store, own=machine.peer, now_ms=machine.clock.now_ms)
        for envelope in envelopes:
            await mock.put(envelope)
        for _ in range(ROUNDS):
            hybrid_seconds = await _gets_seconds(hybrid, envelopes)
            ratios.append(hybrid_seconds / await _gets_seconds(mock, envelopes))
            rates.append(len(envelopes) / hybrid_seconds)
            switched.append(len(envelopes) / await _gets_seconds(switch, envelopes))
        answer = await hybrid.get(envelopes[0].key)
        assert answer.provenance.source == "local", answer.provenance
    return sorted(ratios)[ROUNDS // 2], sorted(rates)[ROUNDS // 2], sorted(switched)[ROUNDS // 2]
