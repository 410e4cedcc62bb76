"""Hybrid under faults: no call waits for the swarm longer than its deadline, and no answer says more than is known."""

import random

import pytest
import trio

from netsim.nodes import VirtualSwarm
from netsim.wires import Link
from node.config import Settings
from node.dht.base import Backend, Consistency
from node.services.node import Node
from protocols.breaker import State
from protocols.codes import NotFound, StorageFull, Unavailable
from protocols.envelope import Envelope
from protocols.ucxl import parse
from tests.sim.swarms import (
    Disk,
    content,
    counted,
    envelope,
    get,
    heads_at,
    key,
    met,
    names,
    over_seeds,
    paid,
    put,
    running,
    swarm_of,
    thing,
    until,
    within,
)

DEADLINE = 0.1


def breaker(node: Node) -> State:
    assert node.gate is not None
    return node.gate.state


# -- deadlines ------------------------------------------------------------------------------------------------------


async def peers_freeze_in_mid_call(seed: int) -> None:
    """All the others freeze at some moment while calls of every kind are under way, and thaw after a while."""
    rng = random.Random(seed)
    async with swarm_of(seed, 5, replication=rng.choice((2, 3, 20))) as swarm:
        node = swarm["n1"].running
        for number in range(10):
            await put(swarm[f"n{number % 5 + 1}"].running, number)
        await paid(swarm)
        is_over = False

        async def caller(number: int) -> None:
            draw = random.Random(f"{seed}/{number}")
            while not is_over:
                which = draw.randrange(12)
                with within(DEADLINE):
                    try:
                        match draw.randrange(8):
                            case 0 | 1:
                                await put(node, which, b"%d" % number)
                            case 2:
                                await get(node, which)
                            case 3:
                                await get(node, which, Consistency.SWARM)
                            case 4:
                                await node.resolver.resolve(parse(str(thing(which)).replace("*^", "*~")))
                            case 5:
                                await node.resolver.history(thing(which), consistency=Consistency.SWARM)
                            case 6:
                                await put(node, which, any_match=True)
                            case 7:
                                await put(node, which, parents=(bytes([which]) * 32, bytes([which + 1]) * 32))
                    except (Unavailable, NotFound):
                        pass
                    except Exception as error:
                        if type(error).__name__ not in ("Conflict", "UnknownParents"):
                            raise
                await trio.sleep(draw.random() * 0.2)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(caller, number)
            await trio.sleep(0.5 + rng.random() * 0.1)
            for machine in list(swarm.nodes.values())[1:]:
                swarm.net.freeze(machine.peer)
                await trio.sleep(rng.random() * 0.01)
            await trio.sleep(rng.choice((1.0, 4.0, 8.0)))
            for machine in list(swarm.nodes.values())[1:]:
                swarm.net.thaw(machine.peer)
            await trio.sleep(2.0)
            is_over = True
        await met(swarm)
        await paid(swarm)


def test_no_call_waits_past_its_deadline_when_all_peers_freeze_in_the_middle_of_it() -> None:
    over_seeds(peers_freeze_in_mid_call)


async def breaker_opens_and_closes(seed: int) -> None:
    rng = random.Random(seed)
    async with swarm_of(seed, 4) as swarm:
        node = swarm["n1"].running
        assert (await put(node)).is_replicated
        others = [m for m in swarm.nodes.values() if m.name != "n1"]
        for machine in others:
            swarm.net.freeze(machine.peer)
        for number in range(3):
            assert breaker(node) is State.CLOSED
            with within(DEADLINE):
                assert not (await put(node, number)).is_replicated
        assert breaker(node) is State.OPEN
        for number in range(20):
            with within(0.0):
                receipt = await put(node, number)
                assert (receipt.backend, receipt.is_replicated) == (Backend.MOCK, False)
            with within(0.0):
                assert (await get(node, number)).heads
            with within(0.0), pytest.raises(Unavailable):
                await get(node, "unknown")
            with within(0.0), pytest.raises(Unavailable):
                await get(node, number, Consistency.SWARM)
        await trio.sleep(rng.choice((0.5, 2.0, 4.5)))
        for machine in others:
            swarm.net.thaw(machine.peer)
        await until(lambda: breaker(node) is State.CLOSED, seconds=2.0, what="the breaker is closed")
        await paid(swarm, seconds=5.0)
        assert (await put(node, "after")).is_replicated


def test_the_breaker_opens_after_three_and_closes_soon_after_the_swarm_is_back() -> None:
    over_seeds(breaker_opens_and_closes)


async def long_frozen(seed: int) -> None:
    rng = random.Random(seed)
    async with swarm_of(seed, 4) as swarm:
        node = swarm["n1"].running
        others = [m for m in swarm.nodes.values() if m.name != "n1"]
        for machine in others:
            swarm.net.freeze(machine.peer)
        for number in range(8):
            with within(DEADLINE):
                await put(node, number)
        await trio.sleep(20.0 + rng.random() * 40.0)
        for machine in others:
            swarm.net.thaw(machine.peer)
        back = await until(lambda: any(p.is_connected for p in node.peers()), seconds=6.0, what="somebody is back")
        assert back <= 6.0
        await until(lambda: breaker(node) is State.CLOSED, seconds=2.0, what="the breaker is closed")
        await paid(swarm, seconds=10.0)


def test_a_swarm_that_was_gone_for_long_is_taken_up_again() -> None:
    over_seeds(long_frozen)
