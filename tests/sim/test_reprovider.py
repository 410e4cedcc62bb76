"""Contents in a DHT with more nodes than hold them: announced by few, found by all, and at a bounded cost."""

import trio

from netsim.virtual.nodes import VirtualSwarm
from node.services.writes import reprovider
from protocols.cid import multihash
from protocols.kademlia.lookup_purposes import Providers
from tests.sim.swarms import over_seeds, put, swarm_of
from tests.sim.test_kademlia import dht
from tests.until import until

NODES = 23


def announced(swarm: VirtualSwarm) -> int:
    return sum(dht(swarm, name).announcer.taken for name in swarm.nodes)


async def providers_of(swarm: VirtualSwarm, name: str, digest: bytes) -> set[str]:
    purpose = Providers(20)
    await dht(swarm, name).lookups.find_providers(multihash(digest), purpose)
    return set(purpose.found)


async def contents_are_announced(seed: int) -> None:
    async with swarm_of(seed, NODES, replication=3, discovery_dht=False) as swarm:
        await until(lambda: all(len(dht(swarm, name).routing.table) > 20 for name in swarm.nodes))
        digests = []
        for number in range(30):
            receipt = await put(swarm["n1"].running, number, b"%d" % number)
            assert receipt.content_digest is not None
            digests.append(receipt.content_digest)
        await trio.sleep(2 * reprovider.LOOK_SECONDS)
        per_content = announced(swarm) / len(digests)
        assert 1.0 <= per_content <= 1 + reprovider.ANNOUNCERS, "by its author and by the nearest holders"
        sent = sum(dht(swarm, name).client.asked["AddProvider"] for name in swarm.nodes)
        assert sent <= 20 * announced(swarm)
        for digest in digests[::10]:
            holders = {node.peer for node in swarm.nodes.values() if await node.store.has_content(digest)}
            providers = await providers_of(swarm, f"n{NODES}", digest)
            assert providers and providers <= holders


def test_contents_are_announced_by_few_and_found_by_all() -> None:
    over_seeds(contents_are_announced, range(1))


async def a_small_swarm(seed: int) -> None:
    async with swarm_of(seed, 5, discovery_dht=False) as swarm:
        receipt = await put(swarm["n1"].running)
        await trio.sleep(4 * reprovider.LOOK_SECONDS)
        assert announced(swarm) == 0
        assert receipt.content_digest is not None
        assert len(await providers_of(swarm, "n2", receipt.content_digest)) >= 3, "each node names itself"


def test_in_a_swarm_of_up_to_k_nodes_nothing_is_announced_and_all_is_found() -> None:
    over_seeds(a_small_swarm)
