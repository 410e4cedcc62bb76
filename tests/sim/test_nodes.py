"""Three whole nodes in memory: no libp2p, no threads, no real time, and the same trace twice for one seed."""

import trio

from netsim.virtual.nodes import VirtualSwarm
from netsim.virtual.scheduler import run_virtual
from node.config.settings import Settings
from node.dht.base import Consistency
from node.node import Node
from node.services.writes.author import WriteRequest
from protocols.ucxl import parse
from tests.until import until

NAMES = ("n1", "n2", "n3")
SETTINGS = Settings()


def address(number: int) -> str:
    return f"ucxl://sim:tester@bzzz:nodes/*^/{number}"


async def put(node: Node, number: int, content: bytes) -> bytes:
    receipt = await node.author.write(WriteRequest(address=parse(address(number)), content=content))
    return receipt.digest


async def content(node: Node, number: int, consistency: Consistency = Consistency.AUTO) -> bytes:
    answer = await node.resolver.resolve(parse(address(number)), consistency=consistency)
    return bytes(answer.heads[0].content)  # type: ignore[union-attr]  # resolve answers with content


async def all_connected(swarm: VirtualSwarm) -> None:
    others = len(swarm.nodes) - 1
    await until(lambda: all(sum(p.is_connected for p in m.running.peers()) == others for m in swarm.nodes.values()))


async def hints_delivered(swarm: VirtualSwarm) -> None:
    await until(lambda: not any(m.running.store.pending().count for m in swarm.nodes.values()))


async def partition_and_heal(seed: int) -> str:
    async with VirtualSwarm.open(seed, NAMES, settings=SETTINGS) as swarm:
        await all_connected(swarm)
        n1, n2, n3 = (swarm[name].running for name in NAMES)
        receipt = await n1.author.write(WriteRequest(address=parse(address(0)), content=b"before"))
        assert receipt.is_replicated
        assert await content(n3, 0, Consistency.SWARM) == b"before"

        swarm.net.partition(swarm.peers("n1"), swarm.peers("n2", "n3"))
        for number in range(1, 6):
            started = trio.current_time()
            receipt = await n1.author.write(WriteRequest(address=parse(address(number)), content=b"alone %d" % number))
            assert not receipt.is_replicated
            assert trio.current_time() - started <= 0.1
        for number in range(6, 9):
            await put(n2, number, b"together %d" % number)
        await put(n2, 1, b"theirs")
        assert await content(n1, 1) == b"alone 1"
        assert await content(n3, 1) == b"theirs"

        swarm.net.heal()
        await hints_delivered(swarm)
        for machine in swarm.nodes.values():
            heads = await machine.running.dht.get(parse(address(1)).key)
            assert sorted(h.content for h in heads.heads) == [b"alone 1", b"theirs"]  # type: ignore[union-attr]
            for number in range(2, 6):
                assert await content(machine.running, number) == b"alone %d" % number
            for number in range(6, 9):
                assert await content(machine.running, number) == b"together %d" % number
        return str(swarm.trace)


def test_nodes_that_were_parted_end_up_equal() -> None:
    for seed in range(5):
        run_virtual(seed, partition_and_heal, seed, limit_seconds=120.0)


def test_one_seed_gives_one_trace() -> None:
    first = run_virtual(7, partition_and_heal, 7, limit_seconds=120.0)
    assert first == run_virtual(7, partition_and_heal, 7, limit_seconds=120.0)
    assert first != run_virtual(8, partition_and_heal, 8, limit_seconds=120.0)
