"""Three whole nodes in memory: no libp2p, no threads, no real time, and the same trace twice for one seed."""

from netsim.virtual.scheduler import run_virtual
from node.dht.base import Consistency
from protocols.envelope import Envelope
from tests.sim.swarms import content, get, hints_delivered, put, swarm_of, within


async def partition_and_heal(seed: int) -> str:
    """Both sides of a partition write, then it heals. Returns the trace."""
    async with swarm_of(seed, 3) as swarm:
        n1, n2, n3 = (machine.running for machine in swarm.nodes.values())
        receipt = await put(n1, 0, b"before")
        assert receipt.is_replicated
        assert await content(n3, 0, Consistency.SWARM) == b"before"

        swarm.net.partition(swarm.peers("n1"), swarm.peers("n2", "n3"))
        for number in range(1, 6):
            with within(0.1):
                receipt = await put(n1, number, b"alone %d" % number)
            assert not receipt.is_replicated
        for number in range(6, 9):
            await put(n2, number, b"together %d" % number)
        await put(n2, 1, b"theirs")
        assert await content(n1, 1) == b"alone 1"
        assert await content(n3, 1) == b"theirs"

        swarm.net.heal()
        await hints_delivered(swarm)
        for node in (n1, n2, n3):
            heads = (await get(node, 1)).heads
            assert sorted(head.content for head in heads if isinstance(head, Envelope)) == [b"alone 1", b"theirs"]
            for number in range(2, 6):
                assert await content(node, number) == b"alone %d" % number
            for number in range(6, 9):
                assert await content(node, number) == b"together %d" % number
        return str(swarm.trace)


def test_nodes_that_were_parted_end_up_equal() -> None:
    for seed in range(5):
        run_virtual(seed, partition_and_heal, seed, limit_seconds=120.0)


def test_one_seed_gives_one_trace() -> None:
    first = run_virtual(7, partition_and_heal, 7, limit_seconds=120.0)
    assert first == run_virtual(7, partition_and_heal, 7, limit_seconds=120.0)
    assert first != run_virtual(8, partition_and_heal, 8, limit_seconds=120.0)
