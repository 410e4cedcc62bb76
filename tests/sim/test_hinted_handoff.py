"""Hints are paid: each once in effect, in order for each address, whatever happens to holders, writers and disks."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import trio

from netsim.virtual.links import Link
from netsim.virtual.nodes import VirtualNode, VirtualSwarm
from node.config.settings import Settings
from node.dht.circuit_breaker import Transition
from node.node import Node
from protocols.envelope import Envelope, decode
from protocols.errors import BzzzError, Indeterminate, InvalidPayload, Rejected, TooLarge, Unavailable
from protocols.policy.breaker import BreakerState
from tests.sim.swarms import (
    Disk,
    answer_late,
    content,
    counted,
    envelope,
    heads_at,
    key,
    met,
    names,
    over_seeds,
    paid,
    put,
    running,
    swarm_of,
    until,
    within,
)

HOUR = 3600.0


async def order_of_arrival(node: Node, number: object) -> list[int]:
    """The versions of one address in the order in which a node took them in."""
    wanted = key(number)
    return [change.version for change in await node.store.log(after=0, limit=100_000) if change.key == wanted]


async def assert_once_and_in_order(node: Node, numbers: range | list[int]) -> None:
    for number in numbers:
        arrived = await order_of_arrival(node, number)
        assert len(set(arrived)) == len(arrived), f"{number} was taken in twice"
        assert arrived == sorted(arrived), f"{number} came out of order at {node.name}: {arrived}"


# -- order, once in effect ------------------------------------------------------------------------------------------


async def written_alone(seed: int) -> None:
    """One writer is cut off, freezes and is healed over and over while it writes chains of a few addresses."""
    rng = random.Random(seed)
    async with swarm_of(seed, 3) as swarm:
        writer = swarm["n1"].running
        if seed % 2:
            answer_late(swarm["n1"].store, rng)
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
        await paid(swarm)
        for machine in swarm.nodes.values():
            await assert_once_and_in_order(machine.running, list(last))
            for number, digest in last.items():
                assert [head.digest for head in await machine.running.store.heads(key(number))] == [digest]


def test_what_was_written_in_a_chain_arrives_in_that_order_once() -> None:
    over_seeds(written_alone)


async def many_at_once(seed: int) -> None:
    """Writes that share a commit come back to their callers in any order; none is left behind."""
    rng = random.Random(seed)
    async with swarm_of(seed, 3) as swarm:
        writer = swarm["n1"].running
        disk = Disk.under(swarm["n1"].store)
        disk.seconds = 0.004
        if seed % 2:
            answer_late(swarm["n1"].store, rng)
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
        assert not late, f"{len(late)} of 900 writes were acknowledged by nobody in time, though all peers were here"
        await paid(swarm, seconds=2.0)


def test_of_writes_that_share_a_commit_none_waits_for_the_next_look() -> None:
    over_seeds(many_at_once, (0, 1, 25))


async def known_already(seed: int) -> None:
    """A client hands the same envelope to one node after the other."""
    async with swarm_of(seed, 4) as swarm:
        for number in range(4):
            one = envelope(number)
            for name in ("n1", "n2", "n3"):
                node = swarm[name].running
                with within(0.05):
                    receipt = await node.author.write_envelope(one.encoded)
                assert receipt.is_replicated, f"{name} says that nobody has it"
                assert node.breaker is not None
                assert node.breaker.state is BreakerState.CLOSED
        await paid(swarm, seconds=2.0)
        for machine in swarm.nodes.values():
            await assert_once_and_in_order(machine.running, range(4))


def test_an_envelope_that_came_from_a_peer_first_is_paid_at_once_when_it_is_written_here() -> None:
    over_seeds(known_already)


async def a_backlog(seed: int) -> None:
    """While a long backlog is paid, what is new goes ahead of it, and what is new of an address that is still owed
    waits behind it; that is no failure of the swarm."""
    async with swarm_of(seed, 3) as swarm:
        writer = swarm["n1"].running
        swarm.net.partition(swarm.peers("n1"), swarm.peers("n2", "n3"))
        for number in range(2000):
            await put(writer, number, bytes(2000), timeout=0.001 if number % 100 else None)
        await until(lambda: not any(p.is_connected for p in writer.peers()))
        assert writer.breaker is not None
        swarm.net.set_link(Link(bytes_per_second=2e6))
        swarm.net.heal()
        await until(lambda: all(p.is_connected for p in writer.peers()))
        await until(lambda: writer.breaker is not None and writer.breaker.state is BreakerState.CLOSED)
        transitions: list[Transition] = []
        writer.breaker.subscribe(on_change=transitions.append)
        number = 0
        while writer.store.pending().count:
            with within(0.1):
                receipt = await put(writer, f"new{number}")
            assert receipt.is_replicated, f"what is new waited behind {writer.store.pending().count} hints"
            with within(0.1):
                await put(writer, 1999 - number)
            number += 1
            await trio.sleep(0.01)
        assert number > 3, "the backlog was paid before anything could wait behind it"
        assert not transitions, writer.breaker.why
        for machine in swarm.nodes.values():
            await assert_once_and_in_order(machine.running, range(1999 - number, 2000))


def test_a_backlog_is_no_failure_of_the_swarm() -> None:
    over_seeds(a_backlog, range(1))


# -- crashes --------------------------------------------------------------------------------------------------------


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
        await paid(swarm)
        for machine in swarm.nodes.values():
            await assert_once_and_in_order(machine.running, list(last))
            for number, digest in last.items():
                assert [head.digest for head in await machine.running.store.heads(key(number))] == [digest]


def test_what_was_acknowledged_survives_crashes_of_holders_and_of_the_writer() -> None:
    over_seeds(holders_crash, range(4))


async def writer_crashes(seed: int) -> None:
    """It wrote alone and was killed at once; started again with its disk, it pays."""
    rng = random.Random(seed)
    async with swarm_of(seed, 3) as swarm:
        swarm.net.partition(swarm.peers("n1"), swarm.peers("n2", "n3"))
        written = {number: (await put(swarm["n1"].running, number)).digest for number in range(rng.randrange(1, 600))}
        await swarm["n1"].crash()
        swarm.net.heal()
        await trio.sleep(rng.random() * 10)
        await swarm.start("n1")
        await paid(swarm)
        for name in ("n2", "n3"):
            store = swarm[name].running.store
            for digest in written.values():
                assert isinstance(await store.by_digest(digest), Envelope)


def test_a_writer_that_was_killed_pays_when_it_is_back() -> None:
    over_seeds(writer_crashes)


# -- members come and go --------------------------------------------------------------------------------------------


async def first_peer_that_comes(seed: int) -> None:
    """A lone node writes, also while the first peer is just coming, with a slow disk."""
    rng = random.Random(seed)
    async with VirtualSwarm.open(seed, ("n1",), settings=Settings()) as swarm:
        lone = swarm["n1"].running
        disk = Disk.under(swarm["n1"].store)
        disk.seconds = rng.choice((0.0, 0.01, 0.09))
        written: list[bytes] = []
        is_over = False

        async def write() -> None:
            while not is_over:
                try:
                    with within(0.1):
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
                disk.turn()
            await trio.sleep(1.0)
            is_over = True
        disk.seconds = 0.0
        await paid(swarm)
        await trio.sleep(11.0)
        await paid(swarm)
        for digest in written:
            assert isinstance(await swarm["n2"].running.store.by_digest(digest), Envelope)


def test_what_a_lone_node_wrote_reaches_the_first_peer_that_comes() -> None:
    over_seeds(first_peer_that_comes)


async def forgotten(seed: int) -> None:
    """A holder is gone for longer than the horizon, with a disk that is full at the wrong moment, and comes again."""
    rng = random.Random(seed)
    async with swarm_of(seed, 5, replication=2, forget_after_hours=60 / HOUR) as swarm:
        writer = swarm["n1"].running
        before = [(await put(writer, f"before{number}")).digest for number in range(20)]
        await paid(swarm)
        gone = swarm["n5"]
        await gone.crash()
        during = [(await put(writer, f"during{number}")).digest for number in range(40)]
        owed = writer.store.hint_counts()[gone.peer]
        assert owed
        disk = Disk.under(swarm["n1"].store)
        disk.is_full = True
        await until(lambda: len(writer.peers()) == 3, seconds=90, what="it is forgotten")
        await trio.sleep(rng.random() * 10)
        disk.is_full = False
        await paid(swarm, seconds=20)
        for number, digest in enumerate(during):
            standing = await writer.store.standing(digest=digest)
            assert standing is not None
            assert standing.wanted == len(standing.acknowledged) >= 2, f"during{number} is held by too few"
            assert gone.peer not in standing.acknowledged
        gone.lose_disk()
        await swarm.start("n5")
        await met(swarm)
        await paid(swarm, seconds=20)
        await trio.sleep(11)
        await paid(swarm, seconds=20)
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


def test_what_a_forgotten_holder_was_owed_others_get_and_it_too_when_it_comes_again() -> None:
    over_seeds(forgotten, range(2))


# -- refusals -------------------------------------------------------------------------------------------------------


@contextmanager
def refusing(verdict: dict[bytes, BzzzError]) -> Iterator[list[bytes]]:
    """Whatever is brought to a node is refused when its digest is judged here; gives the digests, as they come."""
    came: list[bytes] = []

    def judged(encoded: bytes) -> Envelope:
        envelope = decode(encoded)
        came.append(envelope.digest)
        if envelope.digest in verdict:
            raise verdict[envelope.digest]
        return envelope

    with mock.patch("node.services.writes.peer_server.decode", judged):
        yield came


async def refused_for_good(seed: int) -> None:
    rng = random.Random(seed)
    bad = envelope("bad")
    verdict: dict[bytes, BzzzError] = {bad.digest: rng.choice((Rejected("no"), InvalidPayload("no"), TooLarge("no")))}
    async with swarm_of(seed, 2) as swarm:
        with refusing(verdict) as came:
            writer, holder = swarm["n1"].running, swarm["n2"]
            disk = Disk.under(swarm["n1"].store)
            disk.seconds = 0.05
            await writer.author.write_envelope(bad.encoded)
            disk.stall()
            with counted(at_most=2000):
                await trio.sleep(5.0)
            disk.seconds = 0.0
            disk.turn()
            for number in range(20):
                assert (await put(writer, number)).is_replicated, "the others do not wait for what was refused"
            await until(lambda: writer.store.pending().refused == 1)
            assert writer.store.pending().count == 0
            assert came.count(bad.digest) == 1, "what is refused for good is not sent again and again"
            (hint,) = await writer.store.hints(is_refused=True)
            assert (hint.digest, hint.holder, hint.refusal) == (bad.digest, holder.peer, "no")
            report = writer.health()
            assert report.status == "degraded"
            assert any("refused" in reason for reason in report.reasons)
            assert isinstance(await writer.store.by_digest(bad.digest), Envelope)
            await swarm["n1"].crash()
            await swarm.start("n1")
            await met(swarm)
            writer = swarm["n1"].running
            assert writer.store.pending().refused == 1
            verdict.clear()
            assert await writer.retry_quarantined(author="ada", reason="repaired") == 1
            await paid(swarm, seconds=5.0)
            assert await heads_at(holder.running, "bad") == [b"content"]


def test_what_is_refused_for_good_goes_to_quarantine_and_is_never_lost() -> None:
    over_seeds(refused_for_good)


def test_many_that_are_refused_for_good_are_one_line_and_all_of_them_are_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    verdict: dict[bytes, BzzzError] = {}

    async def many_refused(seed: int) -> None:
        async with swarm_of(seed, 2) as swarm:
            with refusing(verdict):
                writer, holder = swarm["n1"].running, swarm["n2"]
                for number in range(30):
                    bad = envelope(number)
                    verdict[bad.digest] = Rejected("no")
                    await writer.author.write_envelope(bad.encoded)
                await until(lambda: writer.store.pending().refused == 30)
                said = [line for line in map(logging.LogRecord.getMessage, caplog.records) if "for good" in line]
                (line,) = said
                assert line.startswith(f"{holder.peer}: refused ucxl://")
                assert line.endswith(" for good: no; `bzzz pending --refused` shows all that was")
                assert writer.counters()["hints_refused"] == 30
                assert len(await writer.store.hints(is_refused=True)) == 30

    over_seeds(many_refused, [1])


async def ahead_of_one(seed: int) -> None:
    """A version that is too far ahead for one holder alone waits there, and nothing else does."""
    async with swarm_of(seed, 3) as swarm:
        writer, slow = swarm["n1"].running, swarm["n2"]
        slow.clock.jump(-40_000)
        ahead = envelope("ahead", at_ms=50_000)
        receipt = await writer.author.write_envelope(ahead.encoded)
        assert receipt.is_replicated, "the other holder takes it"
        for number in range(50):
            with within(0.1):
                assert (await writer.author.write_envelope(envelope(number).encoded)).is_replicated
        await until(lambda: writer.store.hint_counts() == {slow.peer: 1}, seconds=2.0)
        (hint,) = await writer.store.hints()
        assert hint.digest == ahead.digest
        assert "ahead" in hint.refusal
        assert writer.store.pending().refused == 0
        assert writer.breaker is not None
        assert writer.breaker.state is BreakerState.CLOSED
        with counted(at_most=12_000):
            spent = await paid(swarm, seconds=70.0)
        assert spent > 25.0
        assert await heads_at(slow.running, "ahead") == [b"content"]


def test_a_version_too_far_ahead_parks_its_own_hint_alone() -> None:
    over_seeds(ahead_of_one)


async def own_clock_ahead(seed: int) -> None:
    """Every holder refuses: that is an answer, and no failure of the swarm."""
    async with swarm_of(seed, 3) as swarm:
        writer = swarm["n1"].running
        assert writer.breaker is not None
        swarm["n1"].clock.jump(120_000)
        for number in range(10):
            with within(0.1):
                receipt = await put(writer, number)
            assert not receipt.is_replicated
            assert writer.breaker.state is BreakerState.CLOSED, writer.breaker.why
        await paid(swarm, seconds=130.0)
        assert await content(swarm["n3"].running, 9) == b"content"


def test_a_refusal_is_an_answer_and_no_failure_of_the_swarm() -> None:
    over_seeds(own_clock_ahead)


# -- disks ----------------------------------------------------------------------------------------------------------


async def holder_is_full(seed: int) -> None:
    """One holder's disk is full, or all of them; the writer is told, waits for nobody for long, and pays later."""
    rng = random.Random(seed)
    async with swarm_of(seed, 3) as swarm:
        writer = swarm["n1"].running
        assert writer.breaker is not None
        full = [swarm["n2"]] if rng.random() < 0.5 else [swarm["n2"], swarm["n3"]]
        disks = [Disk.under(machine.store) for machine in full]
        for disk in disks:
            disk.is_full = True
        last = {}
        for _ in range(60):
            number = rng.randrange(3)
            with within(0.1):
                receipt = await put(writer, number, rng.randbytes(30))
            last[number] = receipt.digest
            assert receipt.is_replicated == (len(full) == 1)
            assert writer.breaker.state is BreakerState.CLOSED, writer.breaker.why
            await trio.sleep(rng.random() * 0.2)
        for machine in full:
            assert machine.running.health().status == "failed"
        with counted(at_most=20_000):
            await trio.sleep(60.0)
        assert set(writer.store.hint_counts()) == {machine.peer for machine in full}
        assert all("room" in hint.refusal for hint in await writer.store.hints() if hint.attempts)
        assert writer.store.pending().refused == 0
        for disk in disks:
            disk.is_full = False
        await paid(swarm, seconds=15.0)
        for machine in swarm.nodes.values():
            await assert_once_and_in_order(machine.running, list(last))
            for number, digest in last.items():
                assert [head.digest for head in await machine.running.store.heads(key(number))] == [digest]


def test_a_holder_whose_disk_is_full_gets_it_in_order_when_there_is_room() -> None:
    over_seeds(holder_is_full)


async def holder_stalls(seed: int) -> None:
    """A holder whose disk hangs is not flooded with the same envelopes again and again."""
    async with swarm_of(seed, 2) as swarm:
        writer, holder = swarm["n1"].running, swarm["n2"]
        swarm.net.partition(swarm.peers("n1"), swarm.peers("n2"))
        for number in range(600):
            await put(writer, number % 7, bytes(5000), timeout=0.001)
        disk = Disk.under(holder.store)
        disk.stall()
        with refusing({}) as came:
            swarm.net.heal()
            with counted(at_most=30_000):
                await trio.sleep(60.0)
            assert len(came) <= 256 + 30, f"{len(came)} envelopes were sent to a disk that hangs"
        disk.turn()
        await paid(swarm, seconds=15.0)
        await assert_once_and_in_order(holder.running, range(7))


def test_a_holder_whose_disk_hangs_is_left_in_peace() -> None:
    over_seeds(holder_stalls, range(2))


async def parked_by_a_wrong_clock(seed: int) -> None:
    """Hints that were parked while the clock was a year ahead are due when it is right again."""
    rng = random.Random(seed)
    async with swarm_of(seed, 2) as swarm:
        writer, holder = swarm["n1"].running, swarm["n2"]
        disk = Disk.under(holder.store)
        disk.is_full = True
        await put(writer, "before")
        swarm["n1"].clock.jump(365 * 24 * 3600 * 1000)
        await trio.sleep(20.0)
        if rng.random() < 0.5:
            swarm["n1"].clock.jump(-365 * 24 * 3600 * 1000)
        else:
            await swarm["n1"].crash()
            swarm["n1"].clock.jump(-365 * 24 * 3600 * 1000)
            await swarm.start("n1")
        disk.is_full = False
        await paid(swarm, seconds=20.0)
        assert await heads_at(holder.running, "before") == [b"content"]


def test_hints_parked_under_a_wrong_clock_do_not_wait_for_that_time() -> None:
    over_seeds(parked_by_a_wrong_clock)


async def a_bad_network(seed: int) -> None:
    """Frames are lost, doubled and late: everything arrives, once in effect, and nobody is refused for good."""
    rng = random.Random(seed)
    link = Link(loss=0.1, duplication=0.1, reordering=0.2, jitter_seconds=0.01)
    async with VirtualSwarm.open(seed, names(3), settings=Settings(), link=link) as swarm:
        await until(lambda: all(any(p.is_connected for p in node.peers()) for node in running(swarm)))
        last: dict[int, bytes] = {}
        for _ in range(100):
            writer = rng.randrange(3)
            number = rng.randrange(3) * 3 + writer
            with within(0.1):
                last[number] = (await put(swarm[f"n{writer + 1}"].running, number, rng.randbytes(40))).digest
            await trio.sleep(rng.random() * 0.1)
        await trio.sleep(15.0)  # everybody has met everybody by now, and was swept
        await paid(swarm)
        for machine in swarm.nodes.values():
            assert machine.running.store.pending().refused == 0
            for number, digest in last.items():
                assert [head.digest for head in await machine.running.store.heads(key(number))] == [digest]
                arrived = await order_of_arrival(machine.running, number)
                assert len(set(arrived)) == len(arrived)


def test_a_network_that_loses_and_doubles_frames_loses_and_doubles_no_write() -> None:
    over_seeds(a_bad_network, range(4))


# -- nothing spins --------------------------------------------------------------------------------------------------


async def quiet(seed: int) -> None:
    """What a node does while nothing happens: alone, in a swarm, owing to the frozen, owing to the gone."""
    async with swarm_of(seed, 3) as swarm:
        writer = swarm["n1"].running
        await paid(swarm)
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
