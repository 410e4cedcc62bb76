"""Hints are delivered: in order for each address, in effect once, whatever happens to holders, writers and disks."""

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
    content,
    counted,
    delay_reads,
    envelope,
    heads_at,
    hints_delivered,
    key,
    met,
    names,
    over_seeds,
    put,
    running,
    swarm_of,
    within,
)
from tests.until import until

HOUR = 3600.0


async def order_of_arrival(node: Node, number: object) -> list[int]:
    """The versions of one address in the order in which a node merged them."""
    wanted = key(number)
    return [change.version for change in await node.store.log(after=0, limit=100_000) if change.key == wanted]


async def assert_once_and_in_order(node: Node, numbers: range | list[int]) -> None:
    for number in numbers:
        arrived = await order_of_arrival(node, number)
        assert len(set(arrived)) == len(arrived), f"{number} was merged twice"
        assert arrived == sorted(arrived), f"{number} received out of order at {node.name}: {arrived}"


# -- order, once in effect ------------------------------------------------------------------------------------------


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


# -- members come and go --------------------------------------------------------------------------------------------


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


# -- refusals -------------------------------------------------------------------------------------------------------


@contextmanager
def refusing(verdict: dict[bytes, BzzzError]) -> Iterator[list[bytes]]:
    """Nodes refuse an envelope whose digest is in `verdict`; gives the digests of all envelopes sent to them."""
    received: list[bytes] = []

    def decode_or_refuse(encoded: bytes) -> Envelope:
        envelope = decode(encoded)
        received.append(envelope.digest)
        if envelope.digest in verdict:
            raise verdict[envelope.digest]
        return envelope

    with mock.patch("node.services.writes.envelope_inspector.decode", decode_or_refuse):
        yield received


async def refused_for_good(seed: int) -> None:
    rng = random.Random(seed)
    bad = envelope("bad")
    verdict: dict[bytes, BzzzError] = {bad.digest: rng.choice((Rejected("no"), InvalidPayload("no"), TooLarge("no")))}
    async with swarm_of(seed, 2) as swarm:
        with refusing(verdict) as received:
            writer, holder = swarm["n1"].running, swarm["n2"]
            disk = Disk.under(swarm["n1"].store)
            disk.seconds = 0.05
            await writer.author.write_envelope(bad.encoded)
            disk.stall()
            with counted(at_most=2000):
                await trio.sleep(5.0)
            disk.seconds = 0.0
            disk.resume()
            for number in range(20):
                assert (await put(writer, number)).is_replicated, "the others do not wait for the refused one"
            await until(lambda: writer.store.pending().refused == 1)
            assert writer.store.pending().count == 0
            assert received.count(bad.digest) == 1, "a write that is refused for good was sent again"
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
            await hints_delivered(swarm, seconds=5.0)
            assert await heads_at(holder.running, "bad") == [b"content"]


def test_a_hint_that_is_refused_for_good_goes_to_quarantine_and_is_not_lost() -> None:
    over_seeds(refused_for_good)


def test_many_hints_refused_for_good_are_one_log_line_and_all_are_listed(
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
                (line,) = [text for text in map(logging.LogRecord.getMessage, caplog.records) if "for good" in text]
                assert line.startswith(f"{holder.peer}: refused ucxl://")
                assert line.endswith(" for good: no; `bzzz pending --refused` shows all that was")
                assert writer.counters()["hints_refused"] == 30
                assert len(await writer.store.hints(is_refused=True)) == 30

    over_seeds(many_refused, [1])


async def ahead_of_one(seed: int) -> None:
    """A version that is too far ahead for one holder waits there, and nothing else does."""
    async with swarm_of(seed, 3) as swarm:
        writer, slow = swarm["n1"].running, swarm["n2"]
        slow.clock.jump(-40_000)
        ahead = envelope("ahead", at_ms=50_000)
        receipt = await writer.author.write_envelope(ahead.encoded)
        assert receipt.is_replicated, "the other holder accepts it"
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
            spent = await hints_delivered(swarm, seconds=70.0)
        assert spent > 25.0
        assert await heads_at(slow.running, "ahead") == [b"content"]


def test_a_version_too_far_ahead_postpones_its_own_hint_alone() -> None:
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
        await hints_delivered(swarm, seconds=130.0)
        assert await content(swarm["n3"].running, 9) == b"content"


def test_a_refusal_is_an_answer_and_no_failure_of_the_swarm() -> None:
    over_seeds(own_clock_ahead)


# -- disks ----------------------------------------------------------------------------------------------------------


async def holder_is_full(seed: int) -> None:
    """The disks of one holder or of all are full: no call of the writer waits long, and hints are delivered later."""
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
        await hints_delivered(swarm, seconds=15.0)
        for machine in swarm.nodes.values():
            await assert_once_and_in_order(machine.running, list(last))
            for number, digest in last.items():
                assert [head.digest for head in await machine.running.store.heads(key(number))] == [digest]


def test_a_holder_with_a_full_disk_gets_all_writes_in_order_once_it_has_room() -> None:
    over_seeds(holder_is_full)


async def holder_stalls(seed: int) -> None:
    """A holder with a stalled disk does not get the same envelopes again and again."""
    async with swarm_of(seed, 2) as swarm:
        writer, holder = swarm["n1"].running, swarm["n2"]
        swarm.net.partition(swarm.peers("n1"), swarm.peers("n2"))
        for number in range(600):
            await put(writer, number % 7, bytes(5000), timeout=0.001)
        disk = Disk.under(holder.store)
        disk.stall()
        with refusing({}) as received:
            swarm.net.heal()
            with counted(at_most=30_000):
                await trio.sleep(60.0)
            assert len(received) <= 256 + 30, f"{len(received)} envelopes were sent to a stalled disk"
        disk.resume()
        await hints_delivered(swarm, seconds=15.0)
        await assert_once_and_in_order(holder.running, range(7))


def test_a_holder_with_a_stalled_disk_is_not_flooded() -> None:
    over_seeds(holder_stalls, range(2))


async def postponed_by_a_wrong_clock(seed: int) -> None:
    """Hints that were postponed while the clock was a year ahead are due when it is right again."""
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
        await hints_delivered(swarm, seconds=20.0)
        assert await heads_at(holder.running, "before") == [b"content"]


def test_hints_postponed_under_a_wrong_clock_are_due_when_it_is_right() -> None:
    over_seeds(postponed_by_a_wrong_clock)


async def a_bad_network(seed: int) -> None:
    """Frames are lost, duplicated and late: everything arrives, in effect once, and nothing is refused for good."""
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
        await trio.sleep(15.0)  # all nodes are connected by now, and hints were assigned to each
        await hints_delivered(swarm)
        for machine in swarm.nodes.values():
            assert machine.running.store.pending().refused == 0
            for number, digest in last.items():
                assert [head.digest for head in await machine.running.store.heads(key(number))] == [digest]
                arrived = await order_of_arrival(machine.running, number)
                assert len(set(arrived)) == len(arrived)


def test_lost_and_duplicated_frames_lose_and_duplicate_no_write() -> None:
    over_seeds(a_bad_network, range(4))


# -- nothing spins --------------------------------------------------------------------------------------------------


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
