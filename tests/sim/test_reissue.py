"""A node whose clock ran ahead: its writes are late, and not lost."""

import random

import pytest
import trio

from netsim.virtual.nodes import VirtualNode, VirtualSwarm
from node.dht.base import Consistency, Receipt
from node.node import Node
from protocols.clock import AHEAD_MS_MAX, ahead_ms
from protocols.envelope import Envelope, seal
from protocols.errors import Indeterminate, NotFound
from protocols.header import ENCODED_BYTES_MAX
from tests.sim.swarms import (
    CLIENT,
    Disk,
    content,
    counted,
    envelope,
    get,
    heads_at,
    hints_delivered,
    key,
    met,
    over_seeds,
    put,
    running,
    swarm_of,
    thing,
    within,
)
from tests.until import until

MINUTES_2 = 2 * 60 * 1000
YEAR = 365 * 24 * 3600 * 1000


async def assert_right(swarm: VirtualSwarm, contents: dict[object, bytes]) -> None:
    """Every node has exactly these heads, and none is ahead of the time."""
    for node in running(swarm):
        for number, expected in contents.items():
            heads = await node.store.heads(key(number))
            contents_there = [head.content for head in heads if isinstance(head, Envelope)]
            assert contents_there == [expected], f"{number} at {node.name}"
            assert ahead_ms(heads[0].version, node.now_ms()) <= AHEAD_MS_MAX


async def assert_receipt_follows(machine: VirtualNode, number: object, receipt: Receipt) -> None:
    now = await machine.running.receipts.find(digest=receipt.digest)
    assert now.is_replicated, "the receipt follows"
    assert now.reissued_as in (None, now.digest)
    assert ahead_ms(now.version, machine.clock.now_ms()) <= AHEAD_MS_MAX
    held = await machine.running.store.by_digest(now.digest)
    assert isinstance(held, Envelope)
    assert held.address == thing(number).canonical
    if now.reissued_as is not None:
        assert "reissues" in held.meta


async def assert_no_more_is_written(machine: VirtualNode) -> None:
    log = machine.running.store.last_sequence
    await trio.sleep(60.0)
    assert machine.running.store.last_sequence == log, "writes are reissued without end"


async def ahead_then_right(seed: int) -> None:
    """A clock jumps ahead by two minutes or a year, writes go on, and it is set right, with or without a restart, in a
    swarm or alone: every write reaches every node once and in order."""
    rng = random.Random(seed)
    by_ms = rng.choice((MINUTES_2, YEAR))
    async with swarm_of(seed, 3) as swarm:
        machine = swarm["n1"]
        contents: dict[object, bytes] = {}
        receipts: list[tuple[object, Receipt]] = []

        async def write(count: int) -> None:
            for _ in range(count):
                number = rng.randrange(5)
                contents[number] = rng.randbytes(12)
                with within(0.1):
                    receipts.append((number, await put(machine.running, number, contents[number])))
                head = (await machine.running.store.heads(key(number)))[0]
                assert isinstance(head, Envelope)
                assert head.content == contents[number], "a writer does not read its last write"
                await trio.sleep(rng.random() * 0.1)

        await write(5)
        machine.clock.jump(by_ms)
        if rng.random() < 0.4:
            swarm.net.partition(swarm.peers("n1"), swarm.peers("n2", "n3"))
        await write(rng.randrange(1, 30))
        disk = Disk.under(machine.store)
        disk.seconds = rng.choice((0.0, 0.01))
        is_over = False

        async def write_on() -> None:
            while not is_over:
                await write(1)

        async with trio.open_nursery() as nursery:
            if rng.random() < 0.5:
                nursery.start_soon(write_on)
            await trio.sleep(rng.random() * 3)
            if rng.random() < 0.5:
                machine.clock.jump(-by_ms)
                await trio.sleep(rng.random() * 2)
                is_over = True
            else:
                is_over = True
                await trio.sleep(0.2)
                await machine.crash()
                machine.clock.jump(-by_ms)
                await swarm.start("n1")
        swarm.net.heal()
        await met(swarm)
        await write(3)
        await until(lambda: ahead_ms(machine.running.author.clock.latest, machine.clock.now_ms()) <= AHEAD_MS_MAX)
        await trio.sleep(6.0)
        await hints_delivered(swarm, seconds=60.0)
        await assert_right(swarm, contents)
        for number, receipt in receipts:
            await assert_receipt_follows(machine, number, receipt)
        with counted(at_most=4000):
            await trio.sleep(30.0)
        await assert_no_more_is_written(machine)


def test_writes_made_under_a_clock_that_ran_ahead_are_late_and_not_lost() -> None:
    over_seeds(ahead_then_right, range(6))


async def history_stays(seed: int) -> None:
    """A history has each version once, in the order of writing, also those from before and after."""
    async with swarm_of(seed, 2) as swarm:
        machine = swarm["n1"]
        node = machine.running
        await put(node, 0, b"before")
        machine.clock.jump(YEAR)
        await put(node, 0, b"ahead one")
        await put(node, 0, b"ahead two")
        machine.clock.jump(-YEAR)
        await trio.sleep(2.0)
        await put(node, 0, b"after")
        await hints_delivered(swarm)
        for each in running(swarm):
            assert await heads_at(each) == [b"after"]
            digests = [
                version.digest
                for version in (await each.resolver.history(thing(), consistency=Consistency.LOCAL)).versions
                if version.reissued_as is None
            ]
            contents = []
            for digest in digests:
                held = await each.store.by_digest(digest)
                assert isinstance(held, Envelope)
                contents.append(held.content)
            assert contents == [b"before", b"ahead one", b"ahead two", b"after"]


def test_the_history_shows_each_version_once_in_the_order_of_writing() -> None:
    over_seeds(history_stays)


async def foreign_authors(seed: int) -> None:
    """A version of a client cannot be signed again here: it stays postponed and visible, as do the versions on top of
    it. None of them is copied again and again; all others are reissued."""
    async with swarm_of(seed, 2) as swarm:
        machine = swarm["n1"]
        node = machine.running
        machine.clock.jump(YEAR)
        foreign = envelope("foreign", b"foreign", at_ms=YEAR)
        await node.author.write_envelope(foreign.encoded)
        on_top = await put(node, "foreign", b"on top")
        own = await put(node, "own", b"own")
        machine.clock.jump(-YEAR)
        await until(lambda: node.store.hint_counts() == {swarm["n2"].peer: 2}, seconds=60.0, what="own is delivered")
        assert await heads_at(swarm["n2"].running, "own") == [b"own"]
        assert (await node.receipts.find(digest=own.digest)).reissued_as is not None
        assert (await node.receipts.find(digest=on_top.digest)).reissued_as is None
        log = node.store.last_sequence
        with counted(at_most=25_000):
            await trio.sleep(120.0)
        assert node.store.last_sequence == log, "versions that cannot be reissued are written again"
        assert await heads_at(node, "foreign") == [b"on top"]
        held = await node.store.by_digest(foreign.digest)
        assert isinstance(held, Envelope)
        assert held.author == CLIENT.peer_id
        hints = await node.store.hints()
        assert {hint.digest for hint in hints} == {foreign.digest, on_top.digest}
        assert all("ahead" in hint.refusal for hint in hints)
        assert node.store.pending().refused == 0
        assert (await put(node, "next")).is_replicated


def test_versions_of_another_author_are_not_reissued() -> None:
    over_seeds(foreign_authors)


async def without_room_for_the_note(seed: int) -> None:
    """A write without room for `meta.reissues` is issued again without it, and delays no other."""
    async with swarm_of(seed, 2) as swarm:
        machine = swarm["n1"]
        node = machine.running
        machine.clock.jump(YEAR)
        empty = seal(
            machine.key,
            address=thing("large").canonical,
            content=b"",
            content_type="application/octet-stream",
            version=1 << 60,
            parents=(),
        )
        room = ENCODED_BYTES_MAX - empty.encoded_size - 7  # the lengths of the content take seven bytes more
        large = b"x" * room
        await put(node, "large", large)
        await put(node, "many", meta={f"name{number}": "value" for number in range(64)})
        await put(node, "small", b"small")
        machine.clock.jump(-YEAR)
        await hints_delivered(swarm, seconds=60.0)
        assert await heads_at(swarm["n2"].running, "large") == [large]
        assert await heads_at(swarm["n2"].running, "many") == [b"content"]
        assert await heads_at(swarm["n2"].running, "small") == [b"small"]


def test_a_write_without_room_for_the_reissue_note_is_issued_again() -> None:
    over_seeds(without_room_for_the_note, range(1))


async def full_disk(seed: int) -> None:
    """The disk is full when the clock is set right: writes are reissued once there is room."""
    async with swarm_of(seed, 2) as swarm:
        machine = swarm["n1"]
        node = machine.running
        machine.clock.jump(YEAR)
        for number in range(20):
            await put(node, number)
        disk = Disk.under(machine.store)
        disk.is_full = True
        machine.clock.jump(-YEAR)
        with counted(at_most=4000):
            await trio.sleep(10.0)
        disk.is_full = False
        await hints_delivered(swarm, seconds=60.0)
        for number in range(20):
            assert await heads_at(swarm["n2"].running, number) == [b"content"]
            assert await heads_at(node, number) == [b"content"]


def test_writes_are_reissued_once_a_full_disk_has_room() -> None:
    over_seeds(full_disk, range(3))


async def clock_behind(seed: int) -> None:
    """A node whose clock is behind refuses writes of others for a while; its own are accepted; nothing is lost."""
    async with swarm_of(seed, 3) as swarm:
        machine = swarm["n1"]
        machine.clock.jump(-MINUTES_2)
        for number in range(10):
            assert (await put(machine.running, f"behind{number}")).is_replicated
            receipt = await put(swarm["n2"].running, number)
            assert receipt.is_replicated
        assert node_status(swarm["n2"].running) == "healthy"
        await until(lambda: set(swarm["n2"].running.store.hint_counts()) == {machine.peer}, seconds=5.0)
        with pytest.raises(NotFound):
            await content(machine.running, 0, Consistency.LOCAL)
        await until(lambda: "clock" in " ".join(machine.running.health().reasons), seconds=10.0)
        machine.clock.jump(MINUTES_2)
        await hints_delivered(swarm, seconds=35.0)
        for number in range(10):
            assert await heads_at(machine.running, number) == [b"content"]


def node_status(node: Node) -> str:
    return node.health().status


def test_a_clock_that_is_behind_loses_nothing() -> None:
    over_seeds(clock_behind)


async def lone_and_ahead(seed: int) -> None:
    """No peer refuses the writes of a lone node: it reissues them by itself, and the first peer gets all of them."""
    async with swarm_of(seed, 1) as swarm:
        machine = swarm["n1"]
        machine.clock.jump(YEAR)
        written = [await put(machine.running, number) for number in range(10)]
        machine.clock.jump(-YEAR)
        await trio.sleep(2.0)
        swarm.add("n2")
        other = await swarm.start("n2")
        await until(lambda: other.store.last_sequence >= 10, seconds=10.0)
        await hints_delivered(swarm)
        for number, receipt in enumerate(written):
            assert await heads_at(other, number) == [b"content"]
            assert (await machine.running.receipts.find(digest=receipt.digest)).is_replicated
        assert (await get(machine.running, 0)).provenance.siblings == 0


def test_a_lone_node_reissues_its_writes_and_the_first_peer_gets_all() -> None:
    over_seeds(lone_and_ahead)


async def slipped(seed: int) -> None:
    """A write that is not committed yet while the clock is set right is reissued as well."""
    rng = random.Random(seed)
    async with swarm_of(seed, 2) as swarm:
        machine = swarm["n1"]
        node = machine.running
        await put(node, 0, b"before")
        disk = Disk.under(machine.store)
        machine.clock.jump(YEAR)
        disk.stall()
        with pytest.raises(Indeterminate) as raised:
            await put(node, 0, b"slipped")
        machine.clock.jump(-YEAR)
        await trio.sleep(1.5 + rng.random() * 10)
        disk.resume()
        await trio.sleep(1.0)
        await hints_delivered(swarm, seconds=60.0)
        assert await heads_at(swarm["n2"].running) == [b"slipped"]
        receipt = await node.receipts.find(digest=bytes.fromhex(raised.value.details["digest"]))
        assert receipt.reissued_as == receipt.digest
        assert receipt.is_replicated


def test_a_write_under_way_while_the_clock_was_set_right_is_reissued() -> None:
    over_seeds(slipped)


async def accepted_without_acknowledgement(seed: int) -> None:
    """A peer accepted a version that is ahead, and its acknowledgement was lost: in the end there is one head
    everywhere."""
    async with swarm_of(seed, 3) as swarm:
        machine, other = swarm["n1"], swarm["n2"]
        node = machine.running
        machine.clock.jump(YEAR)
        other.clock.jump(YEAR)
        swarm.net.cut(other.peer, machine.peer)
        receipt = await put(node, "ahead", b"ahead")
        assert receipt.acknowledged == 0
        with trio.fail_after(60.0):
            await other.store.wait_until_grown(0)
        if seed % 2:
            other.clock.jump(-YEAR)
        machine.clock.jump(-YEAR)
        swarm.net.heal()
        await hints_delivered(swarm)
        again = await node.receipts.find(digest=receipt.digest)
        assert again.reissued_as is not None
        for each in running(swarm):
            assert [head.digest for head in await each.store.heads(key("ahead"))] == [again.digest]
        assert await other.store.by_digest(receipt.digest) is not None, "it stays in the history"


def test_a_version_accepted_without_its_writers_knowledge_is_replaced_everywhere() -> None:
    over_seeds(accepted_without_acknowledgement)


async def ahead_together(seed: int) -> None:
    """Two clocks run ahead together, and each node writes on top of the other's versions; they are set right one by
    one, and the last write is a head everywhere."""
    rng = random.Random(seed)
    async with swarm_of(seed, 4) as swarm:
        ahead = [swarm["n1"], swarm["n2"]]
        for machine in ahead:
            machine.clock.jump(YEAR)
        for number in range(6):
            await put(rng.choice(ahead).running, "line", b"%d" % number)
            await trio.sleep(rng.random())
        rng.shuffle(ahead)
        for machine in ahead:
            machine.clock.jump(-YEAR)
            await trio.sleep(rng.random() * 10.0)
        last = await put(ahead[0].running, "line", b"last")
        await hints_delivered(swarm)
        now = await ahead[0].running.receipts.find(digest=last.digest)
        heads = await ahead[0].running.store.heads(key("line"))
        assert now.digest in [head.digest for head in heads]
        for node in running(swarm):
            assert await node.store.heads(key("line")) == heads
            assert all(ahead_ms(head.version, node.now_ms()) <= AHEAD_MS_MAX for head in heads)


def test_clocks_that_ran_ahead_together_end_in_the_same_heads() -> None:
    over_seeds(ahead_together)


async def set_right_in_two_steps(seed: int) -> None:
    """A clock is set right in two steps; a peer accepted what was written before the first, and nothing in between."""
    async with swarm_of(seed, 3) as swarm:
        machine, other = swarm["n1"], swarm["n2"]
        machine.clock.jump(YEAR)
        other.clock.jump(YEAR)
        receipt = await put(machine.running, "ahead", b"ahead")
        assert receipt.acknowledged == 1
        other.clock.jump(-YEAR)
        machine.clock.jump(-YEAR + MINUTES_2)

        async def current() -> Receipt:
            return await machine.running.receipts.find(digest=receipt.digest)

        async def is_reissued() -> bool:
            return (await current()).reissued_as is not None

        async def is_reissued_again() -> bool:
            return (await current()).digest != half.digest

        await until(is_reissued)
        half = await current()
        machine.clock.jump(-MINUTES_2)
        await until(is_reissued_again)
        await hints_delivered(swarm)
        assert await other.running.store.by_digest(half.digest) is None, "it was two minutes ahead"
        now = await machine.running.receipts.find(digest=receipt.digest)
        for node in running(swarm):
            assert [head.digest for head in await node.store.heads(key("ahead"))] == [now.digest]


def test_a_clock_set_right_in_two_steps_leaves_one_head_everywhere() -> None:
    over_seeds(set_right_in_two_steps)
