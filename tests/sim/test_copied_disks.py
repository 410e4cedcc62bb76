"""A node on an older copy of its disk, or on a clone's, claims no more than it knows; and is owed what it lost."""

import pytest
import trio

from netsim.virtual.nodes import VirtualSwarm
from node.dht.base import Consistency, Receipt
from node.node import Node
from node.store.memory.store import MemoryStore
from node.swarm.reconciliation import AWAY_SECONDS
from protocols.errors import Conflict, NotFound
from protocols.placement import nearest
from tests.sim.swarms import (
    content,
    get,
    heads_at,
    hints_delivered,
    key,
    met,
    over_seeds,
    put,
    running,
    swarm_of,
    within,
)
from tests.until import until


async def on_disk(swarm: VirtualSwarm, name: str, store: MemoryStore) -> tuple[Node, MemoryStore]:
    """Kill a node, and start it again on this disk; return it, and the disk that it had."""
    await swarm[name].crash()
    before, swarm[name].store = swarm[name].store, store
    node = await swarm.start(name)
    await met(swarm)
    return node, before


def store_reasons(node: Node) -> str:
    return " ".join(next(each for each in node.health().components if each.component == "store").reasons)


async def restored(seed: int) -> None:
    async with swarm_of(seed, 3) as swarm:
        n1, n2 = swarm["n1"].running, swarm["n2"].running
        first = await put(n2, "a", b"1")
        await hints_delivered(swarm)
        copy = swarm["n2"].store.copy()
        lost = await put(n2, "a", b"2")
        await put(n2, "b", b"1")
        await put(n1, "c", b"1")
        await hints_delivered(swarm)
        n2, _ = await on_disk(swarm, "n2", copy)
        assert "which is not in this store" in store_reasons(n2)

        assert (await get(n2, "a", Consistency.LOCAL)).provenance.age_ms is None
        answer = await get(n2, "a")
        assert (answer.provenance.source, await content(n2, "a")) == ("swarm", b"2")
        assert await content(n2, "b") == b"1"
        assert await content(n2, "c") == b"1", "it is owed again"

        assert (await n2.receipts.find(log_id=first.log_id, sequence=first.sequence)).digest == first.digest
        with pytest.raises(NotFound, match="replaced by an older copy"):
            await n2.receipts.find(log_id=lost.log_id, sequence=lost.sequence)
        again = await put(n2, "d", b"1")
        assert again.log_id != first.log_id == lost.log_id

        await until(lambda: not store_reasons(n2), seconds=60.0, what="all that is here was asked for")
        await trio.sleep(2.0)
        assert (await get(n2, "a")).provenance.source == "local"


def test_a_restored_node_asks_before_it_answers_and_says_so() -> None:
    over_seeds(restored)


async def written_on(seed: int) -> None:
    async with swarm_of(seed, 3) as swarm:
        n2 = swarm["n2"].running
        old = await put(n2, "a", b"1")
        await put(n2, "b", b"1")
        await hints_delivered(swarm)
        copy = swarm["n2"].store.copy()
        newer = await put(n2, "a", b"2")
        await put(n2, "b", b"2")
        await hints_delivered(swarm)
        n2, _ = await on_disk(swarm, "n2", copy)
        with pytest.raises(Conflict):
            await put(n2, "a", b"3", if_match=(old.digest,))
        assert (await put(n2, "a", b"3")).parents == (newer.digest,)
        assert (await put(n2, "b", b"3")).siblings == 0
        await hints_delivered(swarm)
        for node in running(swarm):
            assert await heads_at(node, "a") == await heads_at(node, "b") == [b"3"]


def test_a_write_at_a_restored_node_is_made_on_top_of_what_the_others_have() -> None:
    over_seeds(written_on)


async def with_an_older_copy(swarm: VirtualSwarm, name: str) -> tuple[Receipt, Receipt]:
    """Put a copy of a node's disk, made while it was stopped, in its place; return the receipts of a write that the
    copy has, and of the one on top of it that it lacks. The node does not run then."""
    old = await put(swarm["n1"].running, "a", b"1")
    await hints_delivered(swarm)
    await swarm[name].stop()
    copy = swarm[name].store.copy()
    await swarm.start(name)
    await met(swarm)
    newer = await put(swarm["n1"].running, "a", b"2")
    await hints_delivered(swarm)
    await swarm[name].stop()
    swarm[name].store = copy
    return old, newer


async def written_at_once(seed: int) -> None:
    async with swarm_of(seed, 3) as swarm:
        old, newer = await with_an_older_copy(swarm, "n3")
        n3 = await swarm.start("n3")
        assert not n3.members.answering()
        with within(0.1):
            if seed % 2:
                with pytest.raises(Conflict):
                    await put(n3, "a", b"3", if_match=(old.digest,))
            receipt = await put(n3, "a", b"3")
        assert receipt.parents == (newer.digest,)
        await hints_delivered(swarm)
        for node in running(swarm):
            assert await heads_at(node, "a") == [b"3"]


def test_a_write_that_comes_before_any_member_is_heard_waits_for_one_on_a_restored_disk() -> None:
    over_seeds(written_at_once)


async def written_while_parted(seed: int) -> None:
    async with swarm_of(seed, 3) as swarm:
        old, newer = await with_an_older_copy(swarm, "n3")
        swarm.net.partition([swarm["n3"].peer])
        n3 = await swarm.start("n3")
        condition = {"if_match": (old.digest,)} if seed % 2 else {}
        with within(0.1):
            receipt = await put(n3, "a", b"3", **condition)
        assert receipt.parents == (old.digest,)
        assert "not every member has said yet that nothing is missing here" in receipt.may_be_sibling
        assert "can be reached" in receipt.may_be_sibling
        with pytest.raises(Conflict, match="could not all be asked"), within(0.1):
            await put(n3, "a", b"4", if_match=(newer.digest,))
        swarm.net.heal()
        await met(swarm)
        await hints_delivered(swarm)
        merged = await put(n3, "a", b"5")
        assert set(merged.parents) == {receipt.digest, newer.digest}
        assert merged.may_be_sibling == ""


def test_a_write_on_a_restored_disk_that_no_member_can_help_with_says_what_it_does_not_know() -> None:
    over_seeds(written_while_parted)


async def started_alone(seed: int) -> None:
    """How long each of five writes waits for peers that are gone, after an orderly end and after a crash."""
    async with swarm_of(seed, 3) as swarm:
        await put(swarm["n3"].running, "a", b"1")
        await hints_delivered(swarm)
        swarm.net.partition([swarm["n3"].peer])
        await swarm["n3"].stop()
        n3 = await swarm.start("n3")
        in_order = [await put(n3, "a", b"2") for _ in range(5)]
        assert sum(receipt.elapsed_ms for receipt in in_order) < 1.0
        assert not any(receipt.may_be_sibling for receipt in in_order)
        await swarm["n3"].crash()
        n3 = await swarm.start("n3")
        killed = [await put(n3, "a", b"3") for _ in range(5)]
        assert all(receipt.may_be_sibling for receipt in killed)
        assert killed[0].elapsed_ms > 80.0
        assert max(receipt.elapsed_ms for receipt in killed) < 100.0
        assert sum(receipt.elapsed_ms for receipt in killed) < 300.0, "the breaker ends the waits"
        assert killed[-1].elapsed_ms < 1.0
        await swarm["n3"].stop()
        n3 = await swarm.start("n3")
        assert (await put(n3, "a", b"4")).may_be_sibling, "no member has said since that nothing is missing"
        swarm.net.heal()
        await met(swarm)
        await swarm["n3"].stop()
        swarm.net.partition([swarm["n3"].peer])
        n3 = await swarm.start("n3")
        assert not (await put(n3, "a", b"5")).may_be_sibling


def test_only_a_start_that_does_not_follow_an_orderly_end_waits_for_peers() -> None:
    over_seeds(started_alone)


async def one_member_away(seed: int) -> None:
    async with swarm_of(seed, 4) as swarm:
        await put(swarm["n1"].running, "a", b"1")
        await hints_delivered(swarm)
        await swarm["n4"].crash()
        await swarm["n2"].crash()
        n2 = await swarm.start("n2")
        await met(swarm)
        assert n2.members.reconciliation.must_ask(key("a"))
        await trio.sleep(AWAY_SECONDS + 0.1)
        assert not n2.members.reconciliation.must_ask(key("a"))
        await swarm.start("n4")
        await met(swarm)
        await swarm["n2"].stop()
        n2 = await swarm.start("n2")
        assert not n2.members.reconciliation.must_ask(key("a")), "all were heard"


def test_a_member_that_stays_away_is_not_waited_for() -> None:
    over_seeds(one_member_away)


async def acknowledged_by_a_clone(seed: int) -> None:
    async with swarm_of(seed, 3) as swarm:
        n1 = swarm["n1"].running
        await put(n1, "a", b"1")
        await hints_delivered(swarm)
        await swarm["n3"].stop()
        _, original = await on_disk(swarm, "n2", swarm["n2"].store.copy())
        receipts = [await put(n1, number) for number in range(20)]
        await until(lambda: not n1.store.hint_counts().get(swarm["n2"].peer), what="the clone acknowledged all")
        n2, _ = await on_disk(swarm, "n2", original)
        await until(lambda: n2.store.stats().versions == 21, what="the first one has all as well")
        assert [receipt for receipt in receipts if not await n2.store.by_digest(receipt.digest)] == []
        await until(lambda: not n1.store.hint_counts().get(swarm["n2"].peer), what="n1 knows it")
        standing = await n1.receipts.find(digest=receipts[0].digest)
        assert (standing.acknowledged, standing.wanted) == (1, receipts[0].wanted)


def test_what_a_clone_acknowledged_is_owed_to_the_first_node_again() -> None:
    over_seeds(acknowledged_by_a_clone)


async def killed(seed: int) -> None:
    """No loss: nothing is owed again, and the node answers alone as soon as the others were heard."""
    async with swarm_of(seed, 3) as swarm:
        n1, n2 = swarm["n1"].running, swarm["n2"].running
        receipt = await put(n2, "a", b"1")
        await put(n1, "b", b"1")
        await hints_delivered(swarm)
        await swarm["n2"].crash()
        n2 = await swarm.start("n2")
        await met(swarm)
        await trio.sleep(2.0)
        assert not store_reasons(n2)
        assert (await get(n2, "b")).provenance.source == "local"
        assert (await n1.receipts.find(digest=(await get(n1, "b")).heads[0].digest)).acknowledged == 2
        assert (await n2.receipts.find(log_id=receipt.log_id, sequence=receipt.sequence)).digest == receipt.digest


def test_a_node_that_was_only_killed_lost_nothing() -> None:
    over_seeds(killed)


async def still_lost_after_a_restart(seed: int) -> None:
    async with swarm_of(seed, 3) as swarm:
        n2 = swarm["n2"].running
        await put(n2, "a", b"1")
        await hints_delivered(swarm)
        copy = swarm["n2"].store.copy()
        await put(n2, "a", b"2")
        await put(n2, "b", b"1")
        await hints_delivered(swarm)
        n2, _ = await on_disk(swarm, "n2", copy)
        assert store_reasons(n2)
        if seed % 2:
            await until(lambda: not store_reasons(n2), seconds=60.0, what="all that is here was asked for")
        n2, _ = await on_disk(swarm, "n2", swarm["n2"].store)
        await until(lambda: not store_reasons(n2), seconds=60.0, what="it went on where it was")
        n1 = swarm["n1"].running
        await put(n1, "b", b"2", parents=())  # a sibling of what n2 wrote and lost, of an address that is new to it
        await hints_delivered(swarm)
        await trio.sleep(3.0)
        assert (await get(n2, "b")).provenance.siblings == 1


def test_a_restored_node_that_starts_again_still_knows_that_it_lost_something() -> None:
    over_seeds(still_lost_after_a_restart)


async def died_owing(seed: int) -> None:
    """With more members than holders: the writer holds no copy, and dies before the holders have its write."""
    async with swarm_of(seed, 6, replication=2) as swarm:
        n1 = swarm["n1"].running
        number = next(n for n in range(100) if "n1" not in holders(swarm, n))
        await put(n1, number, b"1")
        await hints_delivered(swarm)
        holder = swarm[holders(swarm, number)[0]].running
        await trio.sleep(2.0)
        assert (await get(holder, number)).provenance.source == "local"
        for other in swarm.nodes:
            swarm.net.cut(*swarm.peers("n1", other))
        await put(n1, number, b"2")
        await swarm["n1"].crash()
        await trio.sleep(6.0)
        answer = await get(holder, number)
        assert answer.provenance.source == "swarm", "what n1 owed is not known"
        local = await get(holder, number, Consistency.LOCAL)
        assert local.provenance.age_ms is not None
        assert local.provenance.age_ms > 5_000.0
        await holder.forget_peer(swarm["n1"].peer, author="ada", reason="its disk is broken")
        await trio.sleep(2.0)
        assert (await get(holder, number)).provenance.source == "local", "it is owed nothing by members"


def holders(swarm: VirtualSwarm, number: int) -> tuple[str, ...]:
    names = {machine.peer: name for name, machine in swarm.nodes.items()}
    return tuple(names[peer] for peer in nearest(key(number), names, 2))


def test_a_holder_does_not_answer_alone_while_a_writer_is_gone_that_may_owe_it_something() -> None:
    over_seeds(died_owing)
