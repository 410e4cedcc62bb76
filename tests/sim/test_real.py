"""The real backend under faults: a write happened, did not happen, or is indeterminate, and the answer says which."""

import contextlib
import random

import pytest
import trio

from netsim.virtual.links import Link
from netsim.virtual.nodes import VirtualSwarm
from node.dht.base import Backend, Consistency, Durability
from node.node import Node
from protocols.envelope import Envelope
from protocols.errors import BzzzError, ClockAhead, Indeterminate, NotFound, StorageFull, Unavailable
from protocols.placement import nearest
from tests.sim.swarms import (
    Disk,
    content,
    counted,
    envelope,
    get,
    heads_at,
    hints_delivered,
    key,
    met,
    names,
    over_seeds,
    put,
    running,
    swarm_of,
    thing,
    within,
)
from tests.until import until

DEADLINE = 1.0
STORE_DEADLINE_MS = 500
WITH_DISK = DEADLINE + 3 * STORE_DEADLINE_MS / 1000.0
"""How long a call may take that waits for this machine's disk too, up to three times."""


async def knows(node: Node, digest: bytes) -> bool:
    return isinstance(await node.store.by_digest(digest), Envelope)


# -- refused, unavailable, indeterminate ----------------------------------------------------------------------------


async def too_few(seed: int) -> None:
    """Fewer members than the quorum: refused at once, with both numbers, and nothing is left behind."""
    quorum = random.Random(seed).choice((2, 3, 4))
    async with swarm_of(seed, quorum, backend="real", write_quorum=quorum) as swarm:
        node = swarm["n1"].running
        written = envelope()
        with within(0.0), pytest.raises(Unavailable) as raised:
            await node.author.write_envelope(written.encoded, idempotency_key="key")
        assert (raised.value.details["members"], raised.value.details["write_quorum"]) == (quorum - 1, quorum)
        assert str(quorum - 1) in raised.value.message
        assert str(quorum) in raised.value.message
        await trio.sleep(5.0)
        for each in running(swarm):
            assert each.store.last_sequence == 0
            assert await each.store.staged_under("key") is None
        swarm.add("more")
        await swarm.start("more")
        await met(swarm)
        receipt = await node.author.write_envelope(written.encoded)
        assert receipt.backend is Backend.REAL
        assert receipt.acknowledged >= quorum


def test_fewer_members_than_the_quorum_is_refused_at_once_with_both_numbers() -> None:
    over_seeds(too_few, range(3))


async def no_holder_connected(seed: int) -> None:
    """No holder is connected: nothing is written, also not when the holders come back."""
    async with swarm_of(seed, 3, backend="real") as swarm:
        node = swarm["n1"].running
        swarm.net.partition(swarm.peers("n1"), swarm.peers("n2", "n3"))
        await until(lambda: not any(p.is_connected for p in node.peers()))
        written = envelope()
        with within(0.0), pytest.raises(Unavailable) as raised:
            await node.author.write_envelope(written.encoded, idempotency_key="key")
        assert "nothing was written" in raised.value.message
        with within(DEADLINE), pytest.raises(Unavailable):
            await content(node)
        with within(DEADLINE), pytest.raises(Unavailable):
            await node.resolver.history(thing())
        assert await node.store.staged_under("key") is None
        swarm.net.heal()
        await met(swarm)
        await trio.sleep(15.0)
        for each in running(swarm):
            assert not await knows(each, written.digest)
        with pytest.raises(NotFound):
            await content(node)
        assert node.store.pending().count == 0


def test_when_no_holder_is_connected_nothing_is_written() -> None:
    over_seeds(no_holder_connected)


async def indeterminate(seed: int) -> None:
    """Holders freeze during a put: it is `Indeterminate` in time, the staged envelope is not shown, and the same
    envelope sent again takes effect once."""
    rng = random.Random(seed)
    async with swarm_of(seed, 4, backend="real") as swarm:
        node = swarm["n1"].running
        await put(node, 0, b"before")
        await trio.sleep(0.1)
        frozen = rng.sample(("n2", "n3", "n4"), rng.choice((2, 3)))
        written = envelope(0, b"indeterminate", parents=[(await node.store.heads(key()))[0].digest], at_ms=10)
        if rng.random() < 0.5:
            for name in frozen:
                swarm.net.freeze(swarm[name].peer)
        else:  # they merge it, and their answer does not arrive
            for name in frozen:
                swarm.net.cut(swarm[name].peer, swarm["n1"].peer)
        with within(DEADLINE), pytest.raises(Indeterminate) as raised:
            await node.author.write_envelope(written.encoded, idempotency_key="key")
        assert raised.value.details["digest"] == written.digest.hex()
        assert not await knows(node, written.digest)
        assert await node.store.staged_under("key") == written
        assert await content(node, 0, Consistency.LOCAL) == b"before"
        with within(DEADLINE):
            try:
                answer = await get(node)
            except Unavailable:
                pass
            else:
                assert {head.digest for head in answer.heads} & {written.digest} == (
                    {written.digest} if await knows(node, written.digest) else set()
                )
        with pytest.raises(NotFound):
            await node.receipts.find(digest=written.digest)
        for name in frozen:
            swarm.net.thaw(swarm[name].peer)
        swarm.net.heal()
        await met(swarm)
        if rng.random() < 0.5:
            await swarm["n1"].crash()
            await swarm.start("n1")
            await met(swarm)
            node = swarm["n1"].running
        for _ in range(3):
            receipt = await node.author.write_envelope(written.encoded)
            assert receipt.is_replicated
            assert receipt.digest == written.digest
        await hints_delivered(swarm)
        for each in running(swarm):
            assert await heads_at(each) == [b"indeterminate"]
            log = await each.store.log(after=0)
            assert sum(change.digest == written.digest for change in log) == 1, "once in effect"
        assert await node.store.staged_under("key") is None


def test_an_indeterminate_write_is_not_shown_until_the_same_envelope_is_sent_again() -> None:
    over_seeds(indeterminate, range(5))


async def refused(seed: int) -> None:
    """A refusal is an answer: the caller gets its reason, and nothing is left behind."""
    rng = random.Random(seed)
    async with swarm_of(seed, 4, backend="real") as swarm:
        node = swarm["n1"].running
        if rng.random() < 0.5:
            swarm["n1"].clock.jump(5 * 60 * 1000)
            expected: type[BzzzError] = ClockAhead
        else:
            for name in ("n2", "n3", "n4"):
                Disk.under(swarm[name].store).is_full = True
            expected = StorageFull
        with within(DEADLINE):
            try:
                await put(node)
            except Indeterminate:
                pytest.fail("every holder refused: it cannot have been written")
            except BzzzError as error:
                assert type(error) is expected or isinstance(error, Indeterminate)
        assert await heads_at(node) == []
        await trio.sleep(5.0)
        assert node.store.pending().count == 0
        for each in running(swarm):
            assert each.store.last_sequence == 0


def test_when_all_holders_refuse_their_reason_is_the_error() -> None:
    over_seeds(refused)


# -- any fault at all -----------------------------------------------------------------------------------------------


async def fault_and_repair(swarm: VirtualSwarm, rng: random.Random) -> None:
    """Any one fault at one node, for up to three seconds."""
    victim = rng.choice(names(5))
    disk = Disk.under(swarm[victim].store)
    match rng.randrange(5):
        case 0:
            swarm.net.partition(swarm.peers(victim))
        case 1:
            swarm.net.freeze(swarm[victim].peer)
        case 2:
            swarm.net.set_link(Link(loss=0.2, duplication=0.1, reordering=0.2))
        case 3:
            disk.seconds = 0.5
        case 4:
            disk.is_full = True
    await trio.sleep(rng.random() * 3)
    swarm.net.heal()
    swarm.net.thaw(swarm[victim].peer)
    swarm.net.set_link(Link())
    disk.is_full, disk.seconds = False, 0.0


async def anything(seed: int) -> None:
    """Writes under every fault: each call ends in time; an acknowledged write is everywhere in the end, and a write
    that failed with `Unavailable` is nowhere."""
    rng = random.Random(seed)
    async with swarm_of(
        seed, 5, backend="real", replication=rng.choice((3, 20)), store_deadline_ms=STORE_DEADLINE_MS
    ) as swarm:
        acknowledged: list[tuple[int, bytes]] = []
        unwritten: list[bytes] = []
        is_over = False

        async def write(name: str) -> None:
            node = swarm[name].running
            count = 0
            while not is_over:
                number = rng.randrange(3)
                count += 1
                written = envelope(number, f"{name} {count}".encode(), counter=rng.randrange(1 << 16))
                with within(WITH_DISK):
                    try:
                        receipt = await node.author.write_envelope(written.encoded)
                    except Indeterminate:
                        pass
                    except (Unavailable, ClockAhead, StorageFull):
                        unwritten.append(written.digest)
                    else:
                        assert receipt.is_replicated
                        acknowledged.append((number, written.digest))
                await trio.sleep(rng.random() * 0.3)

        async def read(name: str) -> None:
            while not is_over:
                with within(WITH_DISK), contextlib.suppress(Unavailable):
                    await get(swarm[name].running, rng.randrange(4))
                await trio.sleep(rng.random() * 0.3)

        async with trio.open_nursery() as nursery:
            for name in ("n1", "n2"):
                nursery.start_soon(write, name)
                nursery.start_soon(read, name)
            for _ in range(6):
                await fault_and_repair(swarm, rng)
            is_over = True
        await met(swarm)
        await trio.sleep(12.0)
        await hints_delivered(swarm)
        assert acknowledged
        for node in running(swarm):
            assert node.store.pending().refused == 0
        for number, digest in acknowledged:
            for node in running(swarm):
                answer = await node.dht.get_version(key(number), digest)
                assert [head.digest for head in answer.heads] == [digest], "an acknowledged write is gone"
        for digest in unwritten:
            for node in running(swarm):
                assert not await knows(node, digest), "a write that failed is there"


def test_every_answer_of_the_real_backend_is_true() -> None:
    over_seeds(anything, range(4))


# -- repair ---------------------------------------------------------------------------------------------------------


async def laggards(seed: int) -> None:
    """A holder that has lost its disk gets a head back when any node reads it."""
    rng = random.Random(seed)
    async with swarm_of(seed, 4, backend="real", replication=3) as swarm:
        for number in range(10):
            receipt = await put(swarm["n1"].running, number, b"first")
            await put(swarm["n1"].running, number, b"second")
            assert receipt.durability in (Durability.REPLICATED, Durability.AT_RISK)
        await hints_delivered(swarm)
        laggard = rng.choice(("n2", "n3", "n4"))
        await swarm[laggard].crash()
        swarm[laggard].lose_disk()
        await swarm.start(laggard)
        await met(swarm)
        for number in range(10):
            others = [machine.peer for machine in swarm.nodes.values() if machine.name != "n1"]
            first_asked = nearest(key(number), others, 3)[:2]
            answer = await get(swarm["n1"].running, number)
            assert [head.content for head in answer.heads if isinstance(head, Envelope)] == [b"second"]
            await trio.sleep(0.1)
            if swarm[laggard].peer in first_asked:
                assert await heads_at(swarm[laggard].running, number) == [b"second"], "it was asked, and is repaired"
        fresh = swarm[laggard].running
        for number in range(10):
            assert await content(fresh, number) == b"second"
        with counted(at_most=4000):
            await trio.sleep(30.0)


def test_a_lagging_holder_is_repaired_by_a_read() -> None:
    over_seeds(laggards)


async def late_holders(seed: int) -> None:
    """Holders that are slower than the quorum get the write too, and count in the receipt once they have it."""
    async with swarm_of(seed, 5, backend="real", replication=3) as swarm:
        node = swarm["n1"].running
        wanted = nearest(key(), [machine.peer for machine in swarm.nodes.values()][1:], 3)
        for peer in wanted[2:]:
            swarm.net.freeze(peer)
        receipt = await put(node)
        assert (receipt.acknowledged, receipt.wanted, receipt.durability) == (2, 3, Durability.AT_RISK)
        for peer in wanted[2:]:
            swarm.net.thaw(peer)
        await hints_delivered(swarm)
        receipt = await node.receipts.find(digest=receipt.digest)
        assert (receipt.acknowledged, receipt.wanted, receipt.durability) == (3, 3, Durability.REPLICATED)


def test_holders_slower_than_the_quorum_get_the_write_and_count_later() -> None:
    over_seeds(late_holders)


async def heads_unite(seed: int) -> None:
    """The heads of all holders are united: two writers in a partition make siblings that every reader sees."""
    rng = random.Random(seed)
    async with swarm_of(seed, 6, backend="real") as swarm:
        left, right = names(6)[:3], names(6)[3:]
        swarm.net.partition(swarm.peers(*left), swarm.peers(*right))
        await trio.sleep(rng.random() * 6)
        await put(swarm["n1"].running, 0, b"left")
        await put(swarm["n4"].running, 0, b"right")
        swarm.net.heal()
        await met(swarm)
        await hints_delivered(swarm)
        for name in names(6):
            answer = await get(swarm[name].running)
            contents = sorted(head.content for head in answer.heads if isinstance(head, Envelope))
            assert contents == [b"left", b"right"]
            assert answer.provenance.siblings == 1


def test_heads_of_all_holders_are_united() -> None:
    over_seeds(heads_unite)
