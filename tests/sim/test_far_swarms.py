"""Far swarms: long round trips are no failure, and make no peer suspect."""

import random

import pytest
import trio

from netsim.virtual.links import Link
from netsim.virtual.nodes import VirtualSwarm
from node.config.settings import Settings
from node.dht.base import Consistency
from node.dht.circuit_breaker import Transition
from node.node import Node
from protocols.errors import Unavailable
from protocols.policy.breaker import BreakerState
from tests.sim.swarms import content, get, hints_delivered, met, names, over_seeds, put, running, within
from tests.until import until

DEADLINE = 0.1
FAR = Link(latency_seconds=0.075, jitter_seconds=0.01)
"""Round trips of 150 ms and a little more, as across an ocean."""
FARTHEST = Link(latency_seconds=0.25, jitter_seconds=0.05)
"""And half a second, as by satellite."""


def watch(node: Node, seen: list[str]) -> None:
    """Record every change of the breaker in `seen`."""
    assert node.breaker is not None
    node.breaker.subscribe(on_change=lambda transition: seen.append(f"{node.name}: {transition.text}"))


async def record_suspects(swarm: VirtualSwarm, seen: list[str]) -> None:
    while True:
        for node in running(swarm):
            seen += [f"{node.name} suspects {peer.name}" for peer in node.peers() if peer.is_suspect]
        await trio.sleep(0.01)


async def hybrid_from_afar(seed: int) -> None:
    """Calls keep their deadline, which is shorter than one round trip; the swarm is judged by its round trips."""
    rng = random.Random(seed)
    link = (FAR, FARTHEST)[seed % 2]
    async with VirtualSwarm.open(seed, names(5), settings=Settings(), link=link) as swarm:
        await met(swarm)
        seen: list[str] = []
        for node in running(swarm):
            watch(node, seen)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(record_suspects, swarm, seen)
            for number in range(120):
                node = swarm[rng.choice(names(5))].running
                with within(DEADLINE):
                    await put(node, number % 20, b"%d" % number)
                with within(DEADLINE):
                    await get(node, number % 20)
                await trio.sleep(rng.choice((0.0, 0.01, 0.3)))
            await hints_delivered(swarm, seconds=10.0)
            await trio.sleep(20.0)
            for number in range(20):
                answers = [await content(node, number) for node in running(swarm)]
                assert len(set(answers)) == 1
            nursery.cancel_scope.cancel()
        assert seen == []
        for node in running(swarm):
            assert node.breaker is not None
            assert node.breaker.state is BreakerState.CLOSED
            assert node.health().status == "healthy", node.health().reasons


def test_a_far_swarm_is_neither_failed_nor_suspect() -> None:
    over_seeds(hybrid_from_afar, range(4))


async def real_from_afar(seed: int) -> None:
    link, deadline_ms = ((FAR, 1_000), (FARTHEST, 400))[seed % 2]  # 400 ms are less than one round trip
    settings = Settings(backend="real", replication=3, real_deadline_ms=deadline_ms)
    async with VirtualSwarm.open(seed, names(5), settings=settings, link=link) as swarm:
        await met(swarm)
        await until(lambda: all(peer.round_trip_ms for node in running(swarm) for peer in node.peers()), seconds=10.0)
        for number in range(10):
            writer, reader = swarm[f"n{number % 5 + 1}"].running, swarm[f"n{(number + 2) % 5 + 1}"].running
            assert (await put(writer, number, b"far %d" % number)).is_replicated
            assert await content(reader, number, Consistency.SWARM) == b"far %d" % number
            answer = await get(reader, number, Consistency.SWARM)
            assert not answer.provenance.is_degraded, answer.provenance.reason
        assert not [peer for node in running(swarm) for peer in node.peers() if peer.is_suspect]


def test_the_real_backend_answers_with_long_round_trips() -> None:
    over_seeds(real_from_afar, range(4))


async def frozen_afar(seed: int) -> None:
    """The loss of a far swarm is noticed, with names, though no call waits as long as one round trip."""
    async with VirtualSwarm.open(seed, names(4), settings=Settings(), link=FAR) as swarm:
        await met(swarm)
        node = swarm["n1"].running
        breaker = node.breaker
        assert breaker is not None
        await put(node)
        transitions: list[Transition] = []
        breaker.subscribe(on_change=transitions.append)
        await trio.sleep(3.0)
        assert (breaker.openings, transitions) == (0, [])
        for name in ("n2", "n3", "n4"):
            swarm.net.freeze(swarm[name].peer)
        for number in range(100):
            with within(DEADLINE):
                await put(node, number)
            if breaker.state is not BreakerState.CLOSED:
                break
        opening = transitions[0]
        assert opening.text.startswith("opened: 3 operations unanswered in ")
        assert "asked n" in opening.text
        assert set(opening.text.partition("asked ")[2].partition(";")[0].split(", ")) <= {"n2", "n3", "n4"}
        with within(0.0):
            assert not (await put(node, "open")).is_replicated
        with within(0.0), pytest.raises(Unavailable):
            await get(node, "nothing", Consistency.SWARM)
        await trio.sleep(random.Random(seed).random() * 20)
        for name in ("n2", "n3", "n4"):
            swarm.net.thaw(swarm[name].peer)
        took = await until(lambda: breaker.state is BreakerState.CLOSED, what="the breaker closes")
        assert took < 12.0
        assert "answered a ping in" in breaker.why
        await met(swarm)
        await hints_delivered(swarm)


def test_the_loss_of_a_far_swarm_is_noticed_and_so_is_its_return() -> None:
    over_seeds(frozen_afar)


async def becomes_far(seed: int) -> None:
    """Round trips become long at once: every peer is late for a moment, then the new round trips are known."""
    rng = random.Random(seed)
    async with VirtualSwarm.open(seed, names(4), settings=Settings()) as swarm:
        await met(swarm)
        node = swarm["n1"].running
        for number in range(50):
            assert (await put(node, number)).is_replicated
        swarm.net.set_link(FAR)
        for _ in range(40):
            with within(DEADLINE):
                await put(node, rng.randrange(50))
            await trio.sleep(0.2)
        await met(swarm)
        seen: list[str] = []
        watch(node, seen)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(record_suspects, swarm, seen)
            for _ in range(60):
                with within(DEADLINE):
                    await put(node, rng.randrange(50))
                await trio.sleep(0.2)
            nursery.cancel_scope.cancel()
        assert seen == []
        assert node.breaker is not None
        assert node.breaker.state is BreakerState.CLOSED
        await hints_delivered(swarm)


def test_round_trips_that_become_long_are_learned() -> None:
    over_seeds(becomes_far)
