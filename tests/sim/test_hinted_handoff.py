"""Hints are delivered: in order for each address, in effect once, whatever happens to holders and writers."""

import random

import trio

from netsim.virtual.links import Link
from netsim.virtual.nodes import VirtualNode, VirtualSwarm
from node.config.settings import Settings
from node.dht.circuit_breaker import Transition
from protocols.envelope import Envelope
from protocols.errors import Indeterminate, Unavailable
from protocols.policy.breaker import BreakerState
from tests.sim.swarms import (
    Disk,
    counted,
    delay_reads,
    envelope,
    hints_delivered,
    key,
    met,
    over_seeds,
    put,
    running,
    swarm_of,
    within,
)
from tests.sim.writing import assert_once_and_in_order
from tests.until import until

HOUR = 3600.0


# -- order, once in effect --------------------------------------------------------------------------------------------


async def written_alone(seed: int) -> None:
    """A writer loses its peers and gets them back over and over while it writes chains to a few addresses."""
    rng = random.Random(seed)
    async with swarm_of(seed, 3) as swarm:
        writer = swarm["n1"].running
        if seed % 2:
            delay_reads(swarm["n1"].store, rng)
        last: dict[int, bytes] = {}
        for _ in range(rng.randrange(2, 5)):
            fault = rng.randrange(3)
            if fault == 0:
                swarm.net.partition(swarm.peers("n1"), swarm.peers("n2", "n3"))
            elif fault == 1:
                swarm.net.freeze(swarm["n2"].peer)
            else:
                swarm.net.cut(swarm["n1"].peer, swarm["n3"].peer)
            for _ in range(rng.randrange(5, 60)):
                number = rng.randrange(4)
                receipt = await put(writer, number, rng.randbytes(rng.choice((10, 3000, 60_000))))
                last[number] = receipt.digest
                await trio.sleep(rng.choice((0.0, 0.0, 0.02, 0.3)))
            await trio.sleep(rng.random() * 8)
            swarm.net.heal()
            swarm.net.thaw(swarm["n2"].peer)
            if rng.random() < 0.5:
                await trio.sleep(rng.random())
        await hints_delivered(swarm)
        for machine in swarm.nodes.values():
            await assert_once_and_in_order(machine.running, list(last))
            for number, digest in last.items():
                assert [head.digest for head in await machine.running.store.heads(key(number))] == [digest]


def test_a_chain_of_writes_arrives_in_order_and_once() -> None:
    over_seeds(written_alone)


async def many_at_once(seed: int) -> None:
    """Writes that share a commit return to their callers in any order; none is left behind."""
    rng = random.Random(seed)
    async with swarm_of(seed, 3) as swarm:
        writer = swarm["n1"].running
        disk = Disk.under(swarm["n1"].store)
        disk.seconds = 0.004
        if seed % 2:
            delay_reads(swarm["n1"].store, rng)
        late: list[int] = []

        async def write(number: int) -> None:
            await trio.sleep(rng.random() * 0.01)
            for _ in range(15):
                receipt = await put(writer, number)
                if not receipt.is_replicated:
                    late.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(write, number)
        assert not late, f"{len(late)} of 900 writes were not acknowledged in time, though all peers were connected"
        await hints_delivered(swarm, seconds=2.0)


def test_no_write_of_a_shared_commit_waits_for_the_next_scan() -> None:
    over_seeds(many_at_once, (0, 1, 25))


async def known_already(seed: int) -> None:
    """A client writes the same envelope through one node after the other."""
    async with swarm_of(seed, 4) as swarm:
        for number in range(4):
            one = envelope(number)
            for name in ("n1", "n2", "n3"):
                node = swarm[name].running
                with within(0.05):
                    receipt = await node.author.write_envelope(one.encoded)
                assert receipt.is_replicated, f"{name} says that no peer has it"
                assert node.breaker is not None
                assert node.breaker.state is BreakerState.CLOSED
        await hints_delivered(swarm, seconds=2.0)
        for machine in swarm.nodes.values():
            await assert_once_and_in_order(machine.running, range(4))


def test_an_envelope_that_a_peer_sent_first_is_delivered_at_once_when_it_is_written_here() -> None:
    over_seeds(known_already)


async def a_backlog(seed: int) -> None:
    """While a long backlog is delivered, new writes go ahead of it, except those to addresses that are in it; none of
    that is a failure of the swarm."""
    async with swarm_of(seed, 3) as swarm:
        writer = swarm["n1"].running
        swarm.net.partition(swarm.peers("n1"), swarm.peers("n2", "n3"))
        for number in range(2000):
            await put(writer, number, bytes(2000), timeout=0.001 if number % 100 else None)
        await until(lambda: not any(p.is_connected for p in writer.peers()))
        breaker = writer.breaker
        assert breaker is not None
        swarm.net.set_link(Link(bytes_per_second=2e6))
        swarm.net.heal()
        await until(lambda: all(p.is_connected for p in writer.peers()))
        await until(lambda: breaker.is_closed)
        transitions: list[Transition] = []
        breaker.subscribe(on_change=transitions.append)
        number = 0
        while writer.store.pending().count:
            with within(0.1):
                receipt = await put(writer, f"new{number}")
            assert receipt.is_replicated, f"a new write waited behind {writer.store.pending().count} hints"
            with within(0.1):
                await put(writer, 1999 - number)
            number += 1
            await trio.sleep(0.01)
        assert number > 3, "the backlog was delivered before anything could wait behind it"
        assert not transitions, breaker.why
        for machine in swarm.nodes.values():
            await assert_once_and_in_order(machine.running, range(1999 - number, 2000))


def test_a_backlog_is_no_failure_of_the_swarm() -> None:
    over_seeds(a_backlog, range(1))


# -- crashes ----------------------------------------------------------------------------------------------------------


async def holders_crash(seed: int) -> None:
    """Holders crash and start again, some with an empty disk, while two writers go on; one of those crashes too."""
    rng = random.Random(seed)
    async with swarm_of(seed, 4) as swarm:
        last: dict[int, bytes] = {}
        is_over = False

        async def write(machine: VirtualNode, numbers: range) -> None:
            while not is_over:
                number = rng.choice(numbers)
                if machine.node is not None:
                    last[number] = (await put(machine.running, number, rng.randbytes(20))).digest
                await trio.sleep(rng.random() * 0.2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, swarm["n1"], range(5))
            nursery.start_soon(write, swarm["n2"], range(5, 10))
            for _ in range(4):
                await trio.sleep(rng.random() * 2)
                name = rng.choice(("n3", "n4"))
                await swarm[name].crash()
                await trio.sleep(rng.random() * 3)
                await swarm.start(name)
            is_over = True
        await trio.sleep(0.2)
        await swarm["n1"].crash()
        await trio.sleep(rng.random() * 3)
        await swarm.start("n1")
        await met(swarm)
        await hints_delivered(swarm)
        for machine in swarm.nodes.values():
            await assert_once_and_in_order(machine.running, list(last))
            for number, digest in last.items():
                assert [head.digest for head in await machine.running.store.heads(key(number))] == [digest]


def test_acknowledged_writes_survive_crashes_of_holders_and_of_the_writer() -> None:
    over_seeds(holders_crash, range(4))


async def writer_crashes(seed: int) -> None:
    """A node that wrote alone is killed at once; started again with its disk, it delivers its hints."""
    rng = random.Random(seed)
    async with swarm_of(seed, 3) as swarm:
        swarm.net.partition(swarm.peers("n1"), swarm.peers("n2", "n3"))
        written = {number: (await put(swarm["n1"].running, number)).digest for number in range(rng.randrange(1, 600))}
        await swarm["n1"].crash()
        swarm.net.heal()
        await trio.sleep(rng.random() * 10)
        await swarm.start("n1")
        await hints_delivered(swarm)
        for name in ("n2", "n3"):
            store = swarm[name].running.store
            for digest in written.values():
                assert isinstance(await store.by_digest(digest), Envelope)


def test_a_killed_writer_delivers_its_hints_after_its_restart() -> None:
    over_seeds(writer_crashes)


# -- members come and go ----------------------------------------------------------------------------------------------


async def first_peer(seed: int) -> None:
    """A lone node writes, also while its first peer joins, with a slow disk."""
    rng = random.Random(seed)
    async with VirtualSwarm.open(seed, ("n1",), settings=Settings(store_deadline_ms=200)) as swarm:
        lone = swarm["n1"].running
        disk = Disk.under(swarm["n1"].store)
        disk.seconds = rng.choice((0.0, 0.01, 0.09))
        written: list[bytes] = []
        is_over = False

        async def write() -> None:
            while not is_over:
                try:
                    with within(0.1 + 2 * 0.2):  # and the disk, under the write before and under its own
                        written.append((await put(lone, rng.randrange(50), rng.randbytes(20))).digest)
                except Indeterminate as error:
                    written.append(bytes.fromhex(error.details["digest"]))
                except Unavailable:
                    pass  # nothing was written
                await trio.sleep(rng.random() * 0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.sleep(1.0)
            swarm.add("n2")
            await swarm.start("n2")
            if rng.random() < 0.5:
                disk.stall()
                await trio.sleep(rng.random() * 15)
                disk.resume()
            await trio.sleep(1.0)
            is_over = True
        disk.seconds = 0.0
        await hints_delivered(swarm)
        await trio.sleep(11.0)
        await hints_delivered(swarm)
        for digest in written:
            assert isinstance(await swarm["n2"].running.store.by_digest(digest), Envelope)


def test_writes_of_a_lone_node_reach_the_first_peer_that_joins() -> None:
    over_seeds(first_peer)


async def forgotten(seed: int) -> None:
    """A holder is gone for longer than the horizon, while the writer's disk is full for a time, and comes back."""
    rng = random.Random(seed)
    async with swarm_of(seed, 5, replication=2, forget_after_hours=60 / HOUR) as swarm:
        writer = swarm["n1"].running
        before = [(await put(writer, f"before{number}")).digest for number in range(20)]
        await hints_delivered(swarm)
        gone = swarm["n5"]
        await gone.crash()
        during = [(await put(writer, f"during{number}")).digest for number in range(40)]
        assert writer.store.hint_counts()[gone.peer]
        disk = Disk.under(swarm["n1"].store)
        disk.is_full = True
        await until(lambda: len(writer.members) == 3, seconds=90, what="it is forgotten")
        await trio.sleep(rng.random() * 10)
        disk.is_full = False
        await hints_delivered(swarm, seconds=20)
        for number, digest in enumerate(during):
            standing = await writer.store.standing(digest=digest)
            assert standing is not None
            assert standing.wanted == len(standing.acknowledged) >= 2, f"during{number} is held by too few"
            assert gone.peer not in standing.acknowledged
        gone.lose_disk()
        await swarm.start("n5")
        await met(swarm)
        await hints_delivered(swarm, seconds=20)
        await trio.sleep(11)
        await hints_delivered(swarm, seconds=20)
        members = [node.peer_id for node in running(swarm)]
        wanted = writer.members.wanted
        for prefix, digests in (("before", before), ("during", during)):
            for number, digest in enumerate(digests):
                standing = await writer.store.standing(digest=digest)
                assert standing is not None
                for holder in wanted(key(f"{prefix}{number}")):
                    assert holder in standing.acknowledged
                    if holder == gone.peer and prefix == "during":
                        assert isinstance(await gone.running.store.by_digest(digest), Envelope)
        assert len(members) == 5


def test_hints_of_a_forgotten_holder_go_to_others_and_to_it_when_it_returns() -> None:
    over_seeds(forgotten, range(2))


# -- nothing spins ----------------------------------------------------------------------------------------------------


async def quiet(seed: int) -> None:
    """What a node does while nothing happens: alone, in a swarm, with hints for frozen peers and for absent ones."""
    async with swarm_of(seed, 3) as swarm:
        writer = swarm["n1"].running
        await hints_delivered(swarm)
        with counted(at_most=5000):
            await trio.sleep(60.0)
        for name in ("n2", "n3"):
            swarm.net.freeze(swarm[name].peer)
        for number in range(300):
            await put(writer, number)
        with counted(at_most=8000):
            await trio.sleep(60.0)
        await swarm["n2"].crash()
        await swarm["n3"].crash()
        with counted(at_most=5000):
            await trio.sleep(60.0)


def test_no_task_spins_while_nothing_happens() -> None:
    over_seeds(quiet, range(2))
