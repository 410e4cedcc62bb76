"""Swarms in which a node keeps fewer connections than there are members: the others are dialled when wanted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from netsim.virtual.nodes import VirtualNode, VirtualSwarm
from node.config.settings import Settings
from node.dht.base import Consistency, Durability
from node.node import Node
from node.services.membership.connection_keeper import LOOK_SECONDS
from node.services.membership.peer_list import PeerState
from protocols.errors import NotFound
from protocols.policy.connection_plan import IDLE_SECONDS
from protocols.policy.health import Status
from tests.sim.swarms import content, hints_delivered, key, names, over_seeds, put, running, thing, within
from tests.until import until

COUNT, KEPT, REPLICATION = 14, 4, 3
SEEDS = range(2)
QUIET_SECONDS = IDLE_SECONDS + 3.0 * LOOK_SECONDS
DEADLINE_SECONDS = 0.1


@asynccontextmanager
async def large_swarm(seed: int, **settings: object) -> AsyncIterator[VirtualSwarm]:
    """Nodes that know each other, and are connected only where that is kept."""
    of = Settings(replication=REPLICATION, connections_kept=KEPT, **settings)  # type: ignore[arg-type]
    async with VirtualSwarm.open(seed, names(COUNT), settings=of) as swarm:
        await until(lambda: all(len(node.members) == COUNT - 1 for node in running(swarm)), what="all know all")
        await trio.sleep(QUIET_SECONDS)
        yield swarm


def connections(node: Node) -> int:
    return sum(peer.is_connected for peer in node.peers())


def idle_holder(node: Node, swarm: VirtualSwarm) -> tuple[int, VirtualNode]:
    """A number whose nearest holder this node is not connected with; and that holder."""
    for number in range(1000):
        presence = node.members.get(node.members.wanted(key(number))[0])
        if presence is not None and presence.is_idle and not node.members.is_responsible(key(number)):
            return number, next(machine for machine in swarm.nodes.values() if machine.peer == presence.member.peer)
    raise AssertionError("every holder is connected")


async def quiet(seed: int) -> None:
    async with large_swarm(seed) as swarm:
        nodes = running(swarm)
        await until(lambda: max(map(connections, nodes)) <= 2 * KEPT, what="what is not used is let go")
        assert min(map(connections, nodes)) >= KEPT, "what is kept is connected"
        for node in nodes:
            states = {peer.state for peer in node.peers()}
            assert states == {PeerState.CONNECTED, PeerState.IDLE}
            report = node.monitor.report()
            assert (report.status, report.reasons) == (Status.HEALTHY, ()), "nobody is missed that need not be here"
        await trio.sleep(QUIET_SECONDS)
        before = [connections(node) for node in nodes]
        await trio.sleep(120.0)
        assert [connections(node) for node in nodes] == before, "connections come and go for no reason"
        assert all(len(node.directory.offers()) == 0 for node in nodes)


def test_in_a_quiet_large_swarm_each_node_has_a_bounded_number_of_connections_and_is_healthy() -> None:
    over_seeds(quiet, SEEDS)


async def used(seed: int) -> None:
    async with large_swarm(seed) as swarm:
        nodes = running(swarm)
        for number, node in enumerate(nodes):
            with within(DEADLINE_SECONDS):
                receipt = await put(node, number, b"%d" % number)
            assert (receipt.is_replicated, receipt.wanted) == (True, REPLICATION)
        await hints_delivered(swarm, seconds=5.0)
        await trio.sleep(QUIET_SECONDS)
        assert max(map(connections, nodes)) <= 2 * KEPT
        for at, node in enumerate(nodes):
            for number in (at, (at + 5) % COUNT, (at + 9) % COUNT):
                with within(DEADLINE_SECONDS):
                    assert await content(node, number) == b"%d" % number
            with within(DEADLINE_SECONDS), pytest.raises(NotFound):
                await node.resolver.resolve(thing("absent"))
        await trio.sleep(QUIET_SECONDS)
        assert max(map(connections, nodes)) <= 2 * KEPT, "what was dialled for a read is let go again"


def test_every_node_writes_and_reads_everything_whomever_it_is_connected_with() -> None:
    over_seeds(used, SEEDS)


async def dead_holder(seed: int) -> None:
    async with large_swarm(seed) as swarm:
        node = swarm["n1"].running
        number, holder = idle_holder(node, swarm)
        await put(node, number, b"first")
        await hints_delivered(swarm, seconds=5.0)
        await trio.sleep(QUIET_SECONDS)
        await holder.crash()
        for _ in range(3):
            with within(DEADLINE_SECONDS / 2):
                answer = await node.dht.get(key(number), consistency=Consistency.SWARM)
            assert not answer.provenance.is_degraded
        receipt = await put(node, number, b"second")
        assert receipt.durability is Durability.AT_RISK
        await swarm.start(holder.name)
        await hints_delivered(swarm, seconds=90.0)
        assert [head.content for head in await holder.running.store.heads(key(number))] == [b"second"]  # type: ignore[union-attr]
        assert node.breaker is not None and node.breaker.openings == 0


def test_a_dead_holder_costs_no_read_its_deadline_and_gets_what_it_missed_when_it_is_back() -> None:
    over_seeds(dead_holder, SEEDS)


async def remembered(seed: int) -> None:
    async with large_swarm(seed, forget_after_hours=0.05) as swarm:
        await trio.sleep(600.0)
        for node in running(swarm):
            assert len(node.members) == COUNT - 1


def test_members_that_nobody_is_connected_with_for_long_are_not_forgotten() -> None:
    over_seeds(remembered, range(1))


async def parted(seed: int) -> None:
    """Half of the swarm is cut off: each half goes on, and all is delivered soon after the end."""
    async with large_swarm(seed) as swarm:
        halves = names(COUNT)[: COUNT // 2], names(COUNT)[COUNT // 2 :]
        swarm.net.partition(*(swarm.peers(*half) for half in halves))
        await trio.sleep(30.0)
        receipts = [await put(node, number, b"%d" % number) for number, node in enumerate(running(swarm))]
        assert sum(receipt.is_replicated for receipt in receipts) > COUNT // 2
        swarm.net.heal()
        await hints_delivered(swarm, seconds=90.0)
        await until(lambda: all(node.breaker.is_closed for node in running(swarm) if node.breaker), seconds=30.0)
        for at, node in enumerate(running(swarm)):
            assert await content(node, at) == b"%d" % at
            assert await content(node, (at + COUNT // 2) % COUNT) == b"%d" % ((at + COUNT // 2) % COUNT)


def test_a_large_swarm_that_was_parted_becomes_one_again() -> None:
    over_seeds(parted, SEEDS)
