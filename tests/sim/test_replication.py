"""Replication that lasts, over whole nodes: holders and writers that are gone for good, newcomers, partitions."""

import pytest
import trio

from netsim.virtual.nodes import VirtualNode, VirtualSwarm
from node.dht.base import Consistency
from node.store.memory.store import MemoryStore
from protocols.envelope import Envelope
from protocols.errors import Unavailable
from protocols.placement import nearest
from tests.sim.swarms import get, hints_delivered, key, met, over_seeds, put, running, swarm_of
from tests.until import until

GRACE_MS = 20_000
KEYS = 30


async def replicas(swarm: VirtualSwarm, digest: bytes) -> list[str]:
    """The running nodes that hold a version with its content."""
    held = {m.name: await m.store.by_digest(digest) for m in swarm.nodes.values() if m.node is not None}
    return [name for name, item in held.items() if isinstance(item, Envelope)]


def holders(swarm: VirtualSwarm, number: object, replication: int = 3) -> list[str]:
    """The running nodes that are nearest to a key."""
    names = {machine.peer: machine.name for machine in swarm.nodes.values() if machine.node is not None}
    return [names[peer] for peer in nearest(key(number), names, replication)]


async def unheld(swarm: VirtualSwarm, digests: dict[int, bytes], replication: int = 3) -> list[tuple[int, str]]:
    """The holders that lack a version of theirs."""
    return [
        (number, name)
        for number, digest in digests.items()
        for name in set(holders(swarm, number, replication)) - {*await replicas(swarm, digest)}
    ]


async def all_held(swarm: VirtualSwarm, digests: dict[int, bytes], replication: int = 3) -> None:
    with trio.move_on_after(240.0):
        while await unheld(swarm, digests, replication):
            await trio.sleep(1.0)
    lacking = await unheld(swarm, digests, replication)
    assert not lacking, f"{len(lacking)} replicas are missing: {lacking[:5]}"


async def written(node: VirtualNode, *, keys: int = KEYS, content: bytes = b"content") -> dict[int, bytes]:
    return {number: (await put(node.running, number, content)).digest for number in range(keys)}


# -- a holder is gone -----------------------------------------------------------------------------------------------


async def writer_and_holder_gone(seed: int) -> None:
    """The writer leaves for good, and so does a holder: nobody has hints for the new holders."""
    async with swarm_of(seed, 8, replication=3, replica_grace_ms=GRACE_MS) as swarm:
        digests = await written(swarm["n1"])
        await hints_delivered(swarm)
        await swarm["n1"].crash()
        await swarm["n5"].crash()
        with trio.fail_after(GRACE_MS / 1000 + 30.0):
            while not await is_at_risk(swarm):
                await trio.sleep(0.01)
        await all_held(swarm, digests)
        await trio.sleep(15.0)
        assert not await is_at_risk(swarm)


async def is_at_risk(swarm: VirtualSwarm) -> bool:
    return any([(await node.risk.look()).addresses for node in running(swarm)])


def test_what_a_dead_writer_wrote_keeps_its_replicas_when_holders_die() -> None:
    over_seeds(writer_and_holder_gone)


async def holder_gone(seed: int) -> None:
    """The writer is there: its hints bring its writes to those that hold in the place of the holder that is gone."""
    async with swarm_of(seed, 8, replication=3, replica_grace_ms=GRACE_MS) as swarm:
        digests = await written(swarm["n1"])
        await hints_delivered(swarm)
        await swarm["n5"].crash()
        lacking = await unheld(swarm, digests)
        await trio.sleep(GRACE_MS / 2000)
        assert await unheld(swarm, digests) == lacking, "a restart is no reason to copy anything"
        await all_held(swarm, digests)
        later = {KEYS + number: (await put(swarm["n2"].running, KEYS + number)).digest for number in range(KEYS)}
        await hints_delivered(swarm)
        assert not await unheld(swarm, later), "new writes go to those that are there"
        await swarm.start("n5")
        await met(swarm)
        await all_held(swarm, digests | later)
        await hints_delivered(swarm)


def test_a_holder_that_is_gone_is_replaced_and_gets_what_it_missed_when_it_is_back() -> None:
    over_seeds(holder_gone)


async def frozen(seed: int) -> None:
    async with swarm_of(seed, 6, replication=2, replica_grace_ms=GRACE_MS) as swarm:
        await written(swarm["n1"])
        await hints_delivered(swarm)
        before = [node.store.last_sequence for node in running(swarm)]
        swarm.net.freeze(swarm["n5"].peer)
        await trio.sleep(GRACE_MS / 1000 - 1.0)
        swarm.net.thaw(swarm["n5"].peer)
        await met(swarm)
        await trio.sleep(60.0)
        assert [node.store.last_sequence for node in running(swarm)] == before


def test_a_holder_that_is_frozen_for_a_while_is_not_replaced() -> None:
    over_seeds(frozen)


async def minority(seed: int) -> None:
    """Two of seven are cut off: the five go on with their replicas, and the two copy nothing."""
    async with swarm_of(seed, 7, replication=2, replica_grace_ms=GRACE_MS) as swarm:
        digests = await written(swarm["n1"], keys=60)
        await hints_delivered(swarm)
        few, many = ("n6", "n7"), ("n1", "n2", "n3", "n4", "n5")
        assert not await unheld(swarm, digests, 2)
        before = {name: swarm[name].store.last_sequence for name in few}
        swarm.net.partition(swarm.peers(*few), swarm.peers(*many))
        await trio.sleep(GRACE_MS / 1000 * 6)
        assert {name: swarm[name].store.last_sequence for name in few} == before
        assert all(not swarm[name].running.members.replaced for name in few)
        assert all("5 of the 6 other members are away" in swarm[name].running.risk.held for name in few)
        assert "replicas" in {c.component for c in swarm["n6"].running.health().components if c.status == "degraded"}
        assert all(swarm[name].running.members.replaced == {*swarm.peers(*few)} for name in many)
        swarm.net.heal()
        await met(swarm)
        await until(lambda: not any(node.members.replaced for node in running(swarm)), what="nobody is gone")
        await all_held(swarm, digests, 2)


def test_the_smaller_side_of_a_partition_copies_nothing() -> None:
    over_seeds(minority)


async def replacements_lack_it(seed: int) -> None:
    """Two of three holders are gone, and the third is frozen before it has fed those in their place."""
    settings = {"replication": 3, "replica_grace_ms": GRACE_MS, "repair_bytes_per_second": 1024}
    async with swarm_of(seed, 9, **settings) as swarm:
        writer, *_, reader = (name for name in swarm.nodes if name not in holders(swarm, 0))
        await put(swarm[writer].running, 0, b"x" * (512 << 10))
        await hints_delivered(swarm)
        left, *others = holders(swarm, 0)
        for name in (writer, *others):
            await swarm[name].crash()
        assert left in holders(swarm, 0)
        await trio.sleep(GRACE_MS / 1000 + 2.0)
        assert {*swarm.peers(*others)} <= swarm[reader].running.members.replaced
        swarm.net.freeze(swarm[left].peer)
        for _ in range(5):
            with pytest.raises(Unavailable):
                await get(swarm[reader].running, 0, Consistency.SWARM)
        swarm.net.thaw(swarm[left].peer)
        await until(lambda: swarm[reader].running.members.is_answering(swarm[left].peer), what="it answers")
        assert (await get(swarm[reader].running, 0, Consistency.SWARM)).heads


def test_a_key_is_not_absent_because_those_that_hold_in_the_place_of_others_lack_it() -> None:
    over_seeds(replacements_lack_it)


# -- newcomers, and copies that are elsewhere -----------------------------------------------------------------------


async def newcomer(seed: int) -> None:
    """Nodes join that are nearer to many keys; the writer is gone for good."""
    async with swarm_of(seed, 5, replication=3, replica_grace_ms=GRACE_MS) as swarm:
        digests = await written(swarm["n1"])
        await hints_delivered(swarm)
        await swarm["n1"].crash()
        for name in ("n6", "n7", "n8"):
            swarm.add(name)
            await swarm.start(name)
        await all_held(swarm, digests)
        for machine in swarm.nodes.values():
            if machine.node is not None:
                entries = await machine.store.log(after=0, limit=10_000)
                assert len(entries) == len({entry.digest for entry in entries})


def test_a_nearer_newcomer_is_given_what_it_should_hold_by_any_node_that_has_it() -> None:
    over_seeds(newcomer)


async def lost_disk(seed: int) -> None:
    """A node loses its disk: what others wrote comes back to it although their writer is gone."""
    async with swarm_of(seed, 5, replication=3, replica_grace_ms=GRACE_MS) as swarm:
        digests = await written(swarm["n1"])
        await hints_delivered(swarm)
        await swarm["n1"].crash()
        await swarm["n3"].crash()
        swarm["n3"].lose_disk()
        await swarm.start("n3")
        await all_held(swarm, digests)


def test_a_node_that_lost_its_disk_gets_back_what_a_dead_writer_wrote() -> None:
    over_seeds(lost_disk)


async def history(seed: int) -> None:
    """All versions of an address come to a replacement, and not the head alone."""
    async with swarm_of(seed, 6, replication=2, replica_grace_ms=GRACE_MS) as swarm:
        versions = [(await put(swarm["n1"].running, 0, b"%d" % number)).digest for number in range(10)]
        await hints_delivered(swarm)
        first = next(name for name in holders(swarm, 0, 3) if name != "n1")
        await swarm["n1"].crash()
        await swarm[first].crash()
        await trio.sleep(GRACE_MS / 1000 + 60.0)
        for digest in versions:
            assert not set(holders(swarm, 0, 2)) - {*await replicas(swarm, digest)}


def test_a_replacement_gets_the_whole_history() -> None:
    over_seeds(history)


# -- limits ---------------------------------------------------------------------------------------------------------


async def slowly(seed: int) -> None:
    """A few nodes send 100 KiB a second each, and writes of callers do not wait for it."""
    settings = {"replication": 2, "replica_grace_ms": 1000, "repair_bytes_per_second": 100 << 10}
    async with swarm_of(seed, 6, **settings) as swarm:
        digests = await written(swarm["n1"], content=b"x" * (64 << 10))
        await hints_delivered(swarm)
        await swarm["n1"].crash()
        await swarm["n5"].crash()
        started = trio.current_time()
        while await unheld(swarm, digests, 2):
            await trio.sleep(0.5)
            receipt = await put(swarm["n2"].running, "users")
            assert receipt.is_replicated
            assert trio.current_time() < started + 200.0
        assert trio.current_time() > started + 2.0


def test_the_copying_has_a_rate_and_lets_writes_go_first() -> None:
    over_seeds(slowly)


async def restarted(seed: int) -> None:
    """A feeder that starts again asks for nothing that it knows."""
    async with swarm_of(seed, 4, replication=3) as swarm:
        await written(swarm["n1"])
        await hints_delivered(swarm)
        await trio.sleep(90.0)
        machine = swarm["n2"]
        assert machine.store.cursor_names("replicas/")
        await machine.stop()
        await swarm.start("n2")
        await met(swarm)
        asked: list[int] = []
        for other in running(swarm):
            store = other.store
            assert isinstance(store, MemoryStore)
            held = store.without_content

            async def without_content(digests: list[bytes], held: object = held) -> list[bytes]:
                asked.append(len(digests))
                return await held(digests)  # type: ignore[operator, no-any-return]

            store.without_content = without_content  # type: ignore[assignment, method-assign]
        await trio.sleep(60.0)
        assert not asked


def test_a_restart_goes_on_where_it_was() -> None:
    over_seeds(restarted)


async def ahead(seed: int) -> None:
    """Two nodes whose clocks are ahead hold each other's writes, which the others refuse for now: the rest is fed."""
    async with swarm_of(seed, 5, replication=5, replica_grace_ms=GRACE_MS) as swarm:
        for name in ("n1", "n2"):
            swarm[name].clock.jump(3_600_000)
        await put(swarm["n1"].running, "ahead")
        digests = await written(swarm["n3"])
        await trio.sleep(60.0)
        replicator = swarm["n2"].running.replicator
        assert replicator is not None
        assert not replicator.unfed(swarm["n2"].store.last_sequence)
        assert not await unheld(swarm, digests, 5)


def test_versions_that_are_ahead_of_the_clock_hold_up_no_others() -> None:
    over_seeds(ahead)
