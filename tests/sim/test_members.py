"""The number of members is bounded, and a member that is gone for good can be removed."""

import json
from dataclasses import replace

import pytest
import trio

from netsim.virtual.nodes import VirtualSwarm
from node.config.settings import Settings
from node.dht.base import Durability
from protocols.errors import Conflict, NotFound
from tests.sim.swarms import hints_delivered, met, over_seeds, put, running, swarm_of, thing
from tests.until import until


async def crowd(seed: int) -> None:
    async with VirtualSwarm.open(seed, (), settings=Settings()) as swarm:
        for name in ("n1", "n2", "n3"):
            swarm.add(name)
            swarm[name].limits = replace(swarm[name].limits, members_max=2)
            await swarm.start(name)
        await met(swarm)
        swarm.add("n4")
        await swarm.start("n4")
        await trio.sleep(30.0)
        assert [len(node.members) for node in running(swarm)] == [2, 2, 2, 0]
        refused = [node.peer_policy.limit_counters.counts.members_refused for node in running(swarm)]
        assert all(refused[:3])
        assert max(refused) < 60, "a refused peer dials all the time"
        assert (await put(swarm["n1"].running)).is_replicated
        await swarm["n2"].crash()
        await swarm.start("n2")
        await until(lambda: all(len(node.members) == 2 for node in running(swarm)[:3]), what="n2 is back")


def test_a_new_peer_is_refused_above_the_number_of_members() -> None:
    over_seeds(crowd)


async def forgotten(seed: int) -> None:
    """A node that died is forgotten: writes do not count it, 'absent' is an answer again, others get its hints."""
    replication = (2, 20)[seed % 2]
    async with swarm_of(seed, 4, replication=replication) as swarm:
        n1, dead = swarm["n1"].running, swarm["n4"]
        with pytest.raises(Conflict):
            await n1.forget_peer(dead.peer, author="ada", reason="")
        await dead.crash()
        await until(lambda: not next(each for each in n1.peers() if each.peer == dead.peer).is_connected)
        receipts = [await put(n1, number) for number in range(12)]
        for receipt in receipts[:3]:
            if dead.peer in n1.members.wanted(thing(receipts.index(receipt)).key):
                await n1.store.quarantine_hint(dead.peer, receipt.sequence, refusal="no")
        await trio.sleep(20.0)
        hint_count = n1.store.hint_totals()[dead.peer]
        for name in ("n1", "n2", "n3"):
            node = swarm[name].running
            status, hints = await node.forget_peer(dead.peer, author="ada", reason="its disk is broken")
            assert (status.name, hints) == ("n4", hint_count if name == "n1" else 0)
            entry = json.loads((await node.audit.lines())[-1])
            assert (entry["act"], entry["author"], entry["reason"]) == ("member.forgotten", "ada", "its disk is broken")
            with pytest.raises(NotFound):
                await node.forget_peer(dead.peer, author="ada", reason="")
        await hints_delivered(swarm)
        assert dead.peer not in n1.store.hint_totals()
        for number, receipt in enumerate(receipts):
            later = await n1.receipts.find(digest=receipt.digest)
            assert later.durability is Durability.REPLICATED
            for peer in n1.members.wanted(thing(number).key):
                holder = next(node for node in running(swarm) if node.peer_id == peer)
                assert await holder.store.by_digest(receipt.digest), "the holder that replaces it did not get it"
        assert (await put(n1, "new")).wanted == min(replication, 2)
        for node in running(swarm):
            with pytest.raises(NotFound):
                await node.resolver.resolve(thing("absent"))
        await trio.sleep(120.0)
        if seed % 3 == 0:
            await swarm["n1"].crash()
            n1 = await swarm.start("n1")
            await until(lambda: sum(each.is_connected for each in n1.peers()) == 2)
        assert {each.peer for each in n1.peers() if each.is_member} == set(swarm.peers("n2", "n3")), (
            "no node has it as a member any more"
        )
        for name in ("n2", "n3"):
            assert swarm[name].running.members.get(dead.peer) is None

        await swarm.start("n4")
        await met(swarm)
        await hints_delivered(swarm)
        for number, receipt in enumerate(receipts):
            if dead.peer in n1.members.wanted(thing(number).key):
                assert await dead.running.store.by_digest(receipt.digest), "it is a new member, and gets what it missed"


def test_a_dead_member_is_forgotten_and_is_a_new_one_when_it_returns() -> None:
    over_seeds(forgotten, range(4))


async def forgotten_while_frozen(seed: int) -> None:
    """A member that does not answer may be removed too; its connection ends, and it is dialled again as a new one."""
    async with swarm_of(seed, 3) as swarm:
        n1, frozen = swarm["n1"].running, swarm.peers("n3")[0]
        swarm.net.partition(swarm.peers("n1", "n2"), (frozen,))
        await until(lambda: n1.members.get(frozen) is None or n1.members.get(frozen).is_suspect)  # type: ignore[union-attr]
        await n1.forget_peer(frozen, author="ada", reason="")
        await trio.sleep(5.0)
        assert n1.members.get(frozen) is None
        assert (await put(n1)).wanted == 1
        swarm.net.heal()
        await met(swarm)
        await hints_delivered(swarm)
        assert len(await swarm["n3"].running.store.heads(thing(0).key)) == 1


def test_a_member_that_is_frozen_can_be_forgotten() -> None:
    over_seeds(forgotten_while_frozen)
