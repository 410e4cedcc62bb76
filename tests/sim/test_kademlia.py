"""Whole nodes and the DHT: tables fill by themselves, lookups find peers, values and providers, and liars lose."""

from netsim.virtual.nodes import VirtualSwarm
from node.swarm.kademlia.kademlia import Kademlia
from node.swarm.kademlia.lookups import Lookups
from protocols.kademlia.contact import Contact
from protocols.kademlia.lookup_events import LookupOutcome
from protocols.kademlia.lookup_purposes import AgreedValue, FirstValue, Providers
from protocols.kademlia.messages import Record
from tests.sim.swarms import key, over_seeds, put, swarm_of
from tests.until import until


def dht(swarm: VirtualSwarm, name: str) -> Kademlia:
    found = swarm[name].running.kademlia
    assert found is not None
    return found


def lookups(swarm: VirtualSwarm, name: str) -> Lookups:
    return dht(swarm, name).lookups


async def everybody_has(swarm: VirtualSwarm, wanted: bytes) -> bool:
    return all([await node.store.heads(wanted) for node in swarm.nodes.values()])


async def filled(swarm: VirtualSwarm) -> None:
    """Wait until every node has all others in its table."""
    count = len(swarm.nodes) - 1
    await until(lambda: all(len(dht(swarm, name).routing.table) == count for name in swarm.nodes))


async def a_peer_a_value_and_a_provider(seed: int) -> None:
    async with swarm_of(seed, 5) as swarm:
        await filled(swarm)
        found = await lookups(swarm, "n1").find_peer(swarm["n4"].peer)
        assert found == Contact(swarm["n4"].peer, (swarm.net.address_of(swarm["n4"].peer),))
        assert await lookups(swarm, "n1").find_peer(swarm["n1"].peer) is None

        await put(swarm["n2"].running)
        await until(lambda: everybody_has(swarm, key()))
        purpose = FirstValue(lambda value: True)
        result = await lookups(swarm, "n5").get_value(key(), purpose)
        assert result.outcome is LookupOutcome.MET and purpose.value is not None
        agreed = AgreedValue(3, lambda value: True)
        result = await lookups(swarm, "n5").get_value(key(), agreed)
        assert result.outcome is LookupOutcome.MET and agreed.value == purpose.value
        assert await lookups(swarm, "n3").put_value(Record(key(), purpose.value)) == 4

        multihash = b"\x12\x20" + bytes(32)
        own = Contact(swarm["n3"].peer, swarm["n3"].running.addresses())
        assert await dht(swarm, "n3").announcer.announce((multihash,), timeout=5.0) == 4
        providers = Providers(20)
        await lookups(swarm, "n1").find_providers(multihash, providers)
        assert list(providers.found.values()) == [own]


def test_a_peer_a_value_and_a_provider_are_found_from_anywhere() -> None:
    over_seeds(a_peer_a_value_and_a_provider)


async def nothing_and_nobody(seed: int) -> None:
    async with swarm_of(seed, 4) as swarm:
        await filled(swarm)
        purpose = FirstValue(lambda value: True)
        result = await lookups(swarm, "n1").get_value(b"/ucxl/" + bytes(43), purpose)
        assert (result.outcome, purpose.value) == (LookupOutcome.SETTLED, None)
        swarm.net.partition([swarm["n1"].peer])
        result = await lookups(swarm, "n1").get_value(b"/ucxl/" + bytes(43), purpose)
        assert result.outcome is LookupOutcome.UNSETTLED, "nobody answered, so nothing is known"


def test_absent_and_not_answered_are_told_apart() -> None:
    over_seeds(nothing_and_nobody)


async def a_node_that_died(seed: int) -> None:
    async with swarm_of(seed, 5) as swarm:
        await filled(swarm)
        await swarm["n5"].crash()
        result = await lookups(swarm, "n1").find_node(b"key")
        assert {contact.peer for contact in result.closest} == set(swarm.peers("n2", "n3", "n4"))
        await until(lambda: swarm["n5"].peer not in [c.peer for c in dht(swarm, "n1").routing.table.closest(0, 20)])
        await swarm.start("n5")
        await filled(swarm)


def test_a_node_that_died_is_left_out_and_comes_back() -> None:
    over_seeds(a_node_that_died)


async def a_peer_that_is_denied(seed: int) -> None:
    async with swarm_of(seed, 4) as swarm:
        await filled(swarm)
        denied = swarm["n4"].peer
        swarm["n1"].running.peer_policy.set_lists(deny=[denied])
        assert dht(swarm, "n1").routing.table.get(denied) is None
        result = await lookups(swarm, "n1").find_node(b"key")
        assert denied not in result.answered, "others name it, and it is not asked"


def test_a_peer_that_is_denied_leaves_the_table_and_is_not_asked() -> None:
    over_seeds(a_peer_that_is_denied)
