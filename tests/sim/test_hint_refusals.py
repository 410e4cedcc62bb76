"""Hints that a holder refuses, or cannot take for its disk: none is lost, and the others are delivered meanwhile."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import trio

from netsim.virtual.links import Link
from netsim.virtual.nodes import VirtualSwarm
from node.config.settings import Settings
from protocols.envelope import Envelope, decode
from protocols.errors import BzzzError, InvalidPayload, Rejected, TooLarge
from protocols.policy.breaker import BreakerState
from tests.sim.swarms import (
    Disk,
    content,
    counted,
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
from tests.sim.writing import assert_once_and_in_order, order_of_arrival
from tests.until import until

# -- refusals ---------------------------------------------------------------------------------------------------------


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


# -- disks ------------------------------------------------------------------------------------------------------------


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
