"""Nodes whose addresses come and go: each is back in its swarm soon, and what others are told of it is where it is."""

from dataclasses import replace

import trio

from netsim.virtual.nodes import VirtualSwarm
from node.config.settings import Settings
from node.node import Node
from tests.sim.swarms import hints_delivered, met, over_seeds, put, running, swarm_of
from tests.until import until

BACK_SECONDS = 5.0
"""How long a node may take to be back in its swarm from the moment when it can."""


def told(node: Node, other: Node) -> tuple[str, ...]:
    """The addresses of another node that this one tells to others."""
    presence = node.members.get(other.peer_id)
    return presence.member.addresses if presence else ()


async def met_again(swarm: VirtualSwarm) -> None:
    """All nodes are connected to each other in time, and each knows where all others are now."""
    with trio.fail_after(BACK_SECONDS):
        await met(swarm)
    nodes = running(swarm)
    await until(
        lambda: all(told(node, other) == other.addresses() for node in nodes for other in nodes if node is not other),
        seconds=BACK_SECONDS,
        what="each node tells the addresses that the others have now",
    )


async def booted_before_the_network(seed: int) -> None:
    """Two nodes start before their interfaces have addresses. Both reach a third, and each other."""
    async with VirtualSwarm.open(seed, (), settings=Settings()) as swarm:
        for name in ("n1", "n2", "n3"):
            swarm.add(name)
        await swarm.start("n3")
        for name in ("n1", "n2"):
            swarm.net.unplug(swarm[name].peer)
            await swarm.start(name)
        await trio.sleep(60.0)
        assert not [peer for peer in swarm["n1"].running.peers() if peer.is_connected]
        for name in ("n1", "n2"):
            swarm.net.plug(swarm[name].peer)
        await met_again(swarm)
        receipt = await put(swarm["n1"].running)
        assert receipt.wanted == 2


def test_nodes_that_start_before_their_interface_has_an_address_meet_each_other() -> None:
    over_seeds(booted_before_the_network)


async def moved(seed: int) -> None:
    """A node gets another address while it runs: members tell that one, also to a node that comes later."""
    async with swarm_of(seed, 3) as swarm:
        n1 = swarm["n1"].running
        (before,) = n1.addresses()
        swarm.net.plug(n1.peer_id)
        await met_again(swarm)
        assert n1.addresses() != (before,)
        for node in running(swarm):
            assert before not in {address for peer in node.members.all() for address in peer.member.addresses}
        late = swarm.add("n4")
        late.settings = replace(late.settings, discovery_manual=True)
        await swarm.start("n4")
        await met_again(swarm)
        assert before not in told(late.running, n1)
        receipt = await put(late.running)
        assert receipt.wanted == 3
        await hints_delivered(swarm)


def test_a_node_whose_address_changes_is_told_and_found_at_the_new_one() -> None:
    over_seeds(moved)


async def readdressed(seed: int) -> None:
    """A node is dialled at another address from now on, and its connections go on over another interface."""
    async with swarm_of(seed, 3) as swarm:
        n1, n2 = swarm["n1"].running, swarm["n2"].running
        before = n1.addresses()
        swarm.net.plug(n1.peer_id, keeps_connections=True)
        assert n1.addresses() != before
        await met_again(swarm)
        swarm.net.cut(n2.peer_id, n1.peer_id)
        swarm.net.cut(n1.peer_id, n2.peer_id)
        await until(lambda: not any(peer.is_connected for peer in n2.peers() if peer.peer == n1.peer_id))
        swarm.net.heal()
        await met_again(swarm)


def test_members_are_told_another_address_over_the_connections_that_stay() -> None:
    over_seeds(readdressed)


async def both_moved(seed: int) -> None:
    """Two of three nodes get other addresses at the same moment: each learns from the third where the other is."""
    async with swarm_of(seed, 3) as swarm:
        await trio.sleep(30.0)
        for name in ("n1", "n2"):
            swarm.net.plug(swarm[name].peer)
        await met_again(swarm)


def test_two_nodes_that_change_their_addresses_at_once_meet_again() -> None:
    over_seeds(both_moved, range(6))


async def away_and_back(seed: int) -> None:
    """A node has no interface for a while, and gets one with another address."""
    async with swarm_of(seed, 3) as swarm:
        peer = swarm["n1"].peer
        swarm.net.unplug(peer)
        await trio.sleep(700.0)
        await put(swarm["n2"].running)
        swarm.net.plug(peer)
        await met_again(swarm)
        await hints_delivered(swarm)


def test_a_node_that_loses_its_interface_and_gets_another_address_is_back_in_time() -> None:
    over_seeds(away_and_back, range(2))


async def restarted(seed: int) -> None:
    """A node that starts again knows its swarm from its store: no finder, and nobody is asked whom he knows."""
    async with swarm_of(seed, 6) as swarm:
        machine = swarm["n1"]
        await machine.crash()
        await trio.sleep(1.0)
        machine.settings = replace(
            machine.settings,
            discovery_manual=False,
            discovery_api=False,
            discovery_exchange=False,
            discovery_announce=False,
            discovery_dht=False,
        )
        await swarm.start("n1")
        with trio.fail_after(1.0):
            await until(lambda: sum(peer.is_connected for peer in machine.running.peers()) == 5)


def test_a_restarted_node_is_back_in_its_swarm_within_a_second_without_discovery() -> None:
    over_seeds(restarted)


async def wiped(seed: int) -> None:
    """The network of a whole site fails for a while: no node notices that on its own interface."""
    async with swarm_of(seed, 4) as swarm:
        swarm.net.partition(*([peer] for peer in swarm.peers(*swarm.nodes)))
        await trio.sleep(700.0 + seed / 7)
        swarm.net.heal()
        with trio.fail_after(BACK_SECONDS):
            await met(swarm)


def test_nodes_that_were_all_parted_for_long_meet_again_in_time() -> None:
    over_seeds(wiped, range(4))
