"""A node of a large swarm that does not know the holders of a key: a lookup in the DHT finds them."""

import pytest
import trio

from netsim.virtual.nodes import VirtualSwarm
from node.node import Node
from node.swarm.kademlia.holder_search import PAUSE_SECONDS
from protocols.errors import NotFound
from protocols.placement import nearest
from tests.sim.swarms import content, heads_at, hints_delivered, key, over_seeds, put, running, thing, within
from tests.sim.test_connections import COUNT, REPLICATION, SEEDS, connections, large_swarm

DEADLINE_SECONDS = 0.1
KEYS = 60


async def forget_idle(node: Node) -> int:
    """The node knows none of the members any more that it is not connected with; return how many these were."""
    idle = [presence.member.peer for presence in node.members.all() if presence.is_idle]
    for peer in idle:
        await node.store.forget_member(peer)
        node.forget_member(peer)
    return len(idle)


def holders(swarm: VirtualSwarm, number: int, *, of: Node) -> list[Node]:
    """The nodes that should hold a write of this node, of all that there are."""
    others = [node for node in running(swarm) if node is not of]
    peers = nearest(key(number), [node.peer_id for node in others], REPLICATION)
    return [node for node in others if node.peer_id in peers]


async def reads(seed: int) -> None:
    async with large_swarm(seed) as swarm:
        reader = min(running(swarm), key=connections)
        idle = [presence.member.peer for presence in reader.members.all() if presence.is_idle]
        writer = next(node for node in running(swarm) if node.peer_id == idle[0])
        for number in range(KEYS):
            await put(writer, number, b"%d" % number)
        await hints_delivered(swarm)
        await trio.sleep(90.0)
        assert await forget_idle(reader) >= 3
        unknown = [
            number
            for number in range(KEYS)
            if not {*reader.members.wanted(key(number))} & {node.peer_id for node in holders(swarm, number, of=writer)}
            and await heads_at(reader, number) == []
        ]
        assert unknown, "some holder of each key is known"
        with within(DEADLINE_SECONDS):
            assert await content(reader, unknown[0]) == b"%d" % unknown[0]


def test_a_read_looks_for_holders_before_it_says_that_nothing_is_there() -> None:
    over_seeds(reads, SEEDS)


async def writes(seed: int) -> None:
    async with large_swarm(seed) as swarm:
        writer = swarm["n1"].running
        assert await forget_idle(writer) >= 3
        for number in range(COUNT):
            with within(DEADLINE_SECONDS):
                await put(writer, number, b"%d" % number)
        await trio.sleep(COUNT * PAUSE_SECONDS * 2)
        await hints_delivered(swarm)
        for number in range(COUNT):
            for holder in holders(swarm, number, of=writer):
                assert await heads_at(holder, number) == [b"%d" % number], "its writer did not know it"


def test_a_write_at_a_node_that_knows_few_reaches_the_nearest_of_all_nodes() -> None:
    over_seeds(writes, SEEDS)


async def absent(seed: int) -> None:
    async with large_swarm(seed) as swarm:
        nodes = running(swarm)
        for number in range(20):
            for node in nodes[:3]:
                with within(DEADLINE_SECONDS), pytest.raises(NotFound):
                    await node.resolver.resolve(thing(f"absent-{number}"))
        lookups = [node.kademlia.lookups.ended.total() for node in nodes if node.kademlia is not None]
        for number in range(20):
            for node in nodes[:3]:
                with pytest.raises(NotFound):
                    await node.resolver.resolve(thing(f"absent-too-{number}"))
        again = [node.kademlia.lookups.ended.total() for node in nodes if node.kademlia is not None]
        assert again == lookups, "each neighbourhood is looked up once in ten minutes"


def test_an_absent_key_is_absent_within_the_deadline_and_costs_few_lookups() -> None:
    over_seeds(absent, SEEDS)
