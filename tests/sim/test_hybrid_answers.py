"""What hybrid answers under faults: absent, unavailable or marked, and never more than the node knows."""

import contextlib
import random

import pytest

from netsim.virtual.links import Link
from netsim.virtual.nodes import VirtualSwarm
from node.dht.base import Backend, Consistency
from protocols.envelope import Envelope
from protocols.errors import NotFound, Unavailable
from protocols.placement import nearest
from protocols.policy.breaker import BreakerState
from protocols.ucxl import parse
from tests.sim.swarms import (
    Disk,
    breaker_state,
    content,
    get,
    heads_at,
    hints_delivered,
    key,
    over_seeds,
    put,
    running,
    swarm_of,
    thing,
    within,
)
from tests.until import until

DEADLINE = 0.1


# -- absent, unavailable, marked --------------------------------------------------------------------------------------


async def lone_node(seed: int) -> None:
    """A node that never had a peer answers with what it has, degraded; of the rest it cannot say that it is absent."""
    async with swarm_of(seed, 1) as swarm:
        node = swarm["n1"].running
        with within(0.0):
            receipt = await put(node)
        assert (receipt.backend, receipt.acknowledged, receipt.wanted) == (Backend.MOCK, 0, 0)
        with within(0.0):
            answer = await get(node)
        assert answer.provenance.is_degraded
        for number, consistency in ((1, Consistency.AUTO), (0, Consistency.SWARM), (1, Consistency.SWARM)):
            with within(0.0), pytest.raises(Unavailable):
                await get(node, number, consistency)
        swarm.add("n2")
        other = await swarm.start("n2")
        await until(lambda: other.store.last_sequence, seconds=5.0, what="the write arrives")
        assert await heads_at(other) == [b"content"]
        assert not (await get(node, 0, Consistency.SWARM)).provenance.is_degraded
        assert (await get(node, 1)).heads == ()


def test_answers_of_a_lone_node_are_degraded() -> None:
    over_seeds(lone_node)


async def absent(seed: int) -> None:
    """A key is absent only when a majority of its holders has nothing."""
    rng = random.Random(seed)
    count = rng.choice((2, 3, 4, 5, 7))
    replication = rng.choice((1, 2, 3, 5, 20))
    async with swarm_of(seed, count, replication=replication) as swarm:
        node = swarm["n1"].running
        others = [machine.peer for machine in swarm.nodes.values()][1:]
        for number in range(10):
            for consistency in (Consistency.AUTO, Consistency.SWARM):
                with within(DEADLINE):
                    answer = await get(node, f"nothing{number}", consistency)
                assert (answer.heads, answer.provenance.replicas) == ((), 0)
                assert not answer.provenance.is_degraded
            with pytest.raises(NotFound):
                await node.resolver.resolve(thing(f"nothing{number}"))
            with pytest.raises(NotFound):
                await node.resolver.history(thing(f"nothing{number}"))
        gone = rng.sample(others, rng.randrange(1, count))
        for peer in gone:
            swarm.net.freeze(peer)
        for number in range(10):
            with within(DEADLINE):
                try:
                    answer = await get(node, f"nothing{number}")
                except Unavailable:
                    continue
            assert answer.heads == ()
            wanted = holders(swarm, f"nothing{number}", replication)
            answering = [peer for peer in wanted if peer not in gone]
            assert 2 * len(answering) > len(wanted), "called absent by fewer than a majority of its holders"


def holders(swarm: VirtualSwarm, number: object, replication: int) -> tuple[str, ...]:
    """The wanted holders of an address, as n1 sees them."""
    others = [machine.peer for machine in swarm.nodes.values() if machine.name != "n1"]
    return nearest(key(number), others, replication)


def test_absent_means_that_a_majority_of_the_holders_has_nothing() -> None:
    over_seeds(absent, range(6))


async def cannot_store(seed: int) -> None:
    """A version that the holders have and this node cannot store, because of its disk or clock, is not absent."""
    rng = random.Random(seed)
    async with swarm_of(seed, 4, replication=2) as swarm:
        number = next(n for n in range(100) if swarm["n1"].peer in farthest(swarm, n))
        await put(swarm["n2"].running, number)
        await hints_delivered(swarm)
        reader = swarm["n1"].running
        assert await heads_at(reader, number) == []
        is_clock = rng.random() < 0.5
        if is_clock:
            swarm["n1"].clock.jump(-120_000)
        else:
            Disk.under(swarm["n1"].store).is_full = True
        for consistency in (Consistency.AUTO, Consistency.SWARM):
            with within(DEADLINE), pytest.raises(Unavailable):
                await get(reader, number, consistency)
        for _ in range(4):
            with within(DEADLINE), pytest.raises((Unavailable, NotFound)) as raised:
                await reader.resolver.history(thing(number))
            assert raised.type is Unavailable
        head = (await swarm["n2"].running.store.heads(key(number)))[0]
        if not is_clock:
            answer = await reader.dht.get_version(key(number), head.digest)
            assert answer.heads == (head,), "a version that is named may be shown without being stored"
            assert answer.provenance.is_degraded
        assert breaker_state(reader) is BreakerState.CLOSED


def farthest(swarm: VirtualSwarm, number: object) -> tuple[str, ...]:
    peers = [machine.peer for machine in swarm.nodes.values()]
    return nearest(key(number), peers, len(peers))[-1:]


def test_a_version_that_this_node_cannot_store_is_not_reported_absent() -> None:
    over_seeds(cannot_store)


# -- few holders ------------------------------------------------------------------------------------------------------


async def two_of_five(seed: int) -> None:
    """Each address is held by two of five nodes; every node finds it, and may write the next version."""
    rng = random.Random(seed)
    async with swarm_of(seed, 5, replication=2) as swarm:
        for number in range(12):
            writer = rng.choice(list(swarm.nodes.values())).running
            receipt = await put(writer, number, b"one")
            assert receipt.wanted == 2
            await hints_delivered(swarm)
            holding = [node.peer_id for node in running(swarm) if await heads_at(node, number)]
            assert len(holding) in (2, 3), "the holders have it, and the writer"
            for machine in swarm.nodes.values():
                with within(DEADLINE):
                    assert await content(machine.running, number) == b"one"
            assert (await put(rng.choice(list(swarm.nodes.values())).running, number, b"two")).is_replicated
            await hints_delivered(swarm)
            for machine in swarm.nodes.values():
                answer = await get(machine.running, number, Consistency.SWARM)
                assert [head.content for head in answer.heads if isinstance(head, Envelope)] == [b"two"]
                history = await machine.running.resolver.history(thing(number), consistency=Consistency.SWARM)
                assert history.is_complete
                assert history.total == 2
                first = await machine.running.resolver.resolve(parse(str(thing(number)).replace("*^", "*~")))
                assert isinstance(first.heads[0], Envelope)
                assert first.heads[0].content == b"one"


def test_every_node_finds_what_two_of_five_hold() -> None:
    over_seeds(two_of_five)


async def dead_holders(seed: int) -> None:
    """The holders of one address are gone; the holders of others may still be asked."""
    async with swarm_of(seed, 5, replication=2, forget_after_hours=24) as swarm:
        node = swarm["n1"].running
        dead = holders(swarm, 0, 2)
        for machine in swarm.nodes.values():
            if machine.peer in dead:
                await machine.crash()
        await until(lambda: sum(p.is_connected for p in node.peers()) == 2)
        for _ in range(10):
            with within(0.0):
                assert not (await put(node, 0)).is_replicated
            assert breaker_state(node) is BreakerState.CLOSED
            with within(DEADLINE), pytest.raises(Unavailable):
                await get(node, 0, Consistency.SWARM)
            assert breaker_state(node) is BreakerState.CLOSED, "no peer was asked, so none failed"


def test_the_breaker_stays_closed_when_only_the_holders_of_one_key_are_gone() -> None:
    over_seeds(dead_holders)


async def short_timeout(seed: int) -> None:
    """A call with a timeout of a millisecond is no evidence about the peers."""
    async with swarm_of(seed, 4) as swarm:
        swarm.net.set_link(Link(latency_seconds=0.005))
        node = swarm["n1"].running
        for number in range(20):
            with within(0.016), contextlib.suppress(Unavailable):
                await node.dht.get(key(number), consistency=Consistency.SWARM, timeout=0.016)
            with within(0.016):
                await put(node, number, timeout=0.016)
            assert breaker_state(node) is BreakerState.CLOSED
            assert not any(p.is_suspect for p in node.peers())
        await hints_delivered(swarm)


def test_a_short_timeout_makes_no_peer_suspect() -> None:
    over_seeds(short_timeout)


# -- what a node knows that holds little ------------------------------------------------------------------------------


async def gaps(seed: int) -> None:
    """A node that is no holder sees only some versions of an address; it reports the siblings that there are, and no
    others, and its If-Match holds."""
    rng = random.Random(seed)
    async with swarm_of(seed, 5, replication=2) as swarm:
        nodes = [machine.peer for machine in swarm.nodes.values()]
        near = nearest(key(), nodes, 5)
        by_peer = {machine.peer: machine.running for machine in swarm.nodes.values()}
        holder, reader, other = by_peer[near[0]], by_peer[near[4]], by_peer[near[3]]
        for length in (1, rng.randrange(2, 20), 63, 64, 65, rng.randrange(66, 200)):
            await put(holder, 0, b"seen")
            await hints_delivered(swarm)
            assert await content(reader) == b"seen"
            for number in range(length):
                writer = holder if rng.random() < 0.9 else by_peer[near[1]]
                await put(writer, 0, b"unseen %d" % number, timeout=0.02)
                await hints_delivered(swarm)
            with within(DEADLINE):
                answer = await get(reader)
            assert answer.provenance.siblings == 0, f"after {length} versions that the reader did not see"
            assert not answer.provenance.is_degraded
            head = answer.heads[0]
            await put(reader, 0, b"mine", if_match=(head.digest,))
            await hints_delivered(swarm)
            assert await heads_at(holder) == [b"mine"]
        first = (await get(other)).heads[0]
        await put(holder, 0, b"left", parents=(first.digest,))
        await put(holder, 0, b"right", parents=(first.digest,))
        await hints_delivered(swarm)
        for node in by_peer.values():
            answer = await get(node, 0, Consistency.SWARM)
            assert sorted(h.content for h in answer.heads if isinstance(h, Envelope)) == [b"left", b"right"]


def test_a_node_that_holds_few_versions_reports_no_false_siblings() -> None:
    over_seeds(gaps, range(2))
