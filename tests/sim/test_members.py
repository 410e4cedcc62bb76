"""The number of members is bounded: above it a new peer is refused, and no member is dropped for it."""

from dataclasses import replace

import trio

from netsim.virtual.nodes import VirtualSwarm
from node.config.settings import Settings
from tests.sim.swarms import met, over_seeds, put, running
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
        assert [len(node.peers()) for node in running(swarm)] == [2, 2, 2, 0]
        refused = [node.peer_policy.limit_counters.counts.members_refused for node in running(swarm)]
        assert all(refused[:3])
        assert max(refused) < 60, "a refused peer dials all the time"
        assert (await put(swarm["n1"].running)).is_replicated
        await swarm["n2"].crash()
        await swarm.start("n2")
        await until(lambda: all(len(node.peers()) == 2 for node in running(swarm)[:3]), what="n2 is back")


def test_a_new_peer_is_refused_above_the_number_of_members() -> None:
    over_seeds(crowd)
