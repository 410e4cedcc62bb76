"""Content by its digest in a swarm: found at whichever node holds it, and never another one."""

from dataclasses import replace

import pytest
import trio

from netsim.virtual.nodes import VirtualSwarm
from node.config.settings import Settings
from node.dht.base import Answer, Consistency
from node.node import Node
from node.store.log import Incoming, Origin
from protocols.cid import multihash
from protocols.envelope import Envelope
from protocols.errors import Unavailable
from protocols.messages import ContentReply
from tests.sim.swarms import envelope, names, over_seeds, swarm_of, within
from tests.sim.test_kademlia import dht, filled
from tests.sim.test_lies import lying
from tests.until import until


async def keep(node: Node, *envelopes: Envelope) -> None:
    """Have one node hold versions, and no other."""
    await node.store.merge([Incoming(each, Origin.PEER) for each in envelopes], now_ms=node.now_ms())


async def found(node: Node, wanted: Envelope, **options: object) -> Answer:
    return await node.dht.get_content(wanted.content_digest, **options)  # type: ignore[arg-type]


async def one_node_of_seven_has_it(seed: int) -> None:
    async with swarm_of(seed, 7, replication=2, backend=("hybrid", "real")[seed % 2]) as swarm:
        await filled(swarm)
        wanted = envelope(1, b"rare")
        await keep(swarm["n7"].running, wanted)
        for name in ("n1", "n2", "n7"):
            node = swarm[name].running
            with within(node.dht.deadline_seconds):
                answer = await found(node, wanted)
            assert answer.heads == (wanted,)
            assert answer.provenance.source == ("local" if name == "n7" else "swarm")
            assert (await node.store.has_content(wanted.content_digest)) is (name == "n7"), "it is not kept"
        assert (await found(swarm["n1"].running, wanted, consistency=Consistency.LOCAL)).heads == ()


def test_content_that_one_node_holds_is_found_from_anywhere_and_not_kept() -> None:
    over_seeds(one_node_of_seven_has_it)


async def nobody_has_it(seed: int) -> None:
    async with swarm_of(seed, 5, replication=(2, 20)[seed % 2]) as swarm:
        await filled(swarm)
        node, wanted = swarm["n1"].running, envelope(1, b"nowhere")
        answer = await found(node, wanted)
        assert (answer.heads, answer.provenance.source) == ((), "swarm")
        swarm.net.partition([swarm["n1"].peer])
        for timeout in (None, 0.3, 2.0):
            with within(timeout or node.dht.deadline_seconds), pytest.raises(Unavailable):
                await found(node, wanted, timeout=timeout)


def test_content_is_absent_only_when_those_that_should_know_were_asked() -> None:
    over_seeds(nobody_has_it)


async def nobody_is_known(seed: int) -> None:
    async with swarm_of(seed, 1) as swarm:
        with pytest.raises(Unavailable, match="no other node is known yet"):
            await found(swarm["n1"].running, envelope(1, b"anything"))


def test_a_node_that_knows_no_other_one_cannot_say_that_content_is_absent() -> None:
    over_seeds(nobody_is_known)


async def a_provider_that_is_not_connected(seed: int) -> None:
    """n1 knows n2 alone, which knows n3."""
    alone = Settings(discovery_manual=False, discovery_exchange=False, discovery_announce=False, discovery_dht=False)
    async with VirtualSwarm.open(seed, ("n1", "n3"), settings=alone) as swarm:
        swarm.add("n2").settings = replace(alone, discovery_manual=True)
        await swarm.start("n2")
        asker, holder = swarm["n1"].running, swarm["n3"].running
        middle = swarm["n2"].peer
        await until(lambda: asker.members.is_reachable(middle) and holder.members.is_reachable(middle))
        await until(lambda: len(dht(swarm, "n2").routing.table) == 2)
        wanted, claimed = envelope(1, b"far"), envelope(2, b"claimed")
        await keep(holder, wanted)
        await dht(swarm, "n3").provide(multihash(claimed.content_digest), timeout=5.0)
        with within(5.0):
            asker.members.forget(holder.peer_id)  # whom it met by a look-up, if at all
            asker.network.disconnect(holder.peer_id, "the test")  # type: ignore[union-attr]
            assert not asker.members.is_reachable(holder.peer_id)
            assert (await found(asker, wanted, timeout=5.0)).heads == (wanted,)
            assert (await found(asker, claimed, timeout=5.0)).heads == (), "it says that it does not hold it"
        await swarm["n3"].crash()
        with within(5.0), pytest.raises(Unavailable):
            await found(asker, claimed, timeout=5.0)


def test_a_provider_that_is_not_connected_is_dialled_and_one_that_is_away_makes_nothing_absent() -> None:
    over_seeds(a_provider_that_is_not_connected)


async def few_connections_are_kept(seed: int) -> None:
    """Each of twelve nodes keeps four connections."""
    settings = Settings(connections_kept=4, replication=2)
    async with VirtualSwarm.open(seed, names(12), settings=settings) as swarm:
        await until(lambda: all(len(node.running.members) == 11 for node in swarm.nodes.values()))
        await trio.sleep(150.0)  # until idle connections have ended
        wanted, holder = envelope(1, b"rare"), swarm["n12"].running
        await keep(holder, wanted)
        asker = next(
            node.running
            for node in swarm.nodes.values()
            if not holder.members.is_answering(node.peer) and node.running != holder
        )
        with within(5.0):
            assert (await found(asker, wanted, timeout=5.0)).heads == (wanted,)


def test_content_is_found_at_a_member_with_which_no_connection_is_kept() -> None:
    over_seeds(few_connections_are_kept)


async def providers_that_serve_other_bytes(seed: int) -> None:
    async with swarm_of(seed, 6, replication=2) as swarm:
        await filled(swarm)
        asker, liar, honest = (swarm[name].running for name in ("n1", "n2", "n3"))
        wanted, other = envelope(1, b"wanted"), envelope(2, b"other")
        forged = other.encoded[:-1] + b"!"
        counts = asker.peer_policy.limit_counters.counts
        await keep(liar, wanted)
        for number, lie in enumerate((other.encoded, forged, b"no envelope"), start=1):
            reply = ContentReply(lie)
            with lying(liar, _content=lambda _, reply=reply: reply):  # type: ignore[misc]
                assert (await found(asker, wanted)).heads == ()
                assert (counts.contents_wrong, counts.offences) == (number, number)
        await keep(honest, wanted)
        with lying(liar, _content=lambda _: ContentReply(other.encoded)):
            assert (await found(asker, wanted)).heads == (wanted,)
        assert asker.members.is_reachable(liar.peer_id), "a few mistakes cost no connection"


def test_a_node_that_serves_other_bytes_is_blamed_and_the_next_one_is_asked() -> None:
    over_seeds(providers_that_serve_other_bytes)


async def frozen_members(seed: int) -> None:
    async with swarm_of(seed, 8, replication=2) as swarm:
        await filled(swarm)
        wanted = envelope(1, b"wanted")
        await keep(swarm["n8"].running, wanted)
        for name in ("n2", "n3", "n4"):
            swarm.net.freeze(swarm[name].peer)
        with within(2.0):
            assert (await found(swarm["n1"].running, wanted, timeout=2.0)).heads == (wanted,)


async def a_holder_that_thaws(seed: int) -> None:
    """It is among the members that are asked first, and answers only when the providers are asked."""
    async with swarm_of(seed, 4, replication=2) as swarm:
        await filled(swarm)
        wanted, holder = envelope(1, b"wanted"), swarm["n4"]
        await keep(holder.running, wanted)
        swarm.net.freeze(holder.peer)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert (await found(swarm["n1"].running, wanted, timeout=6.0)).heads == (wanted,)

            nursery.start_soon(ask)
            await trio.sleep(2.5)
            swarm.net.thaw(holder.peer)


def test_a_holder_that_was_silent_at_first_is_asked_again() -> None:
    over_seeds(a_holder_that_thaws)


def test_frozen_members_leave_time_for_the_one_that_has_it() -> None:
    over_seeds(frozen_members)
