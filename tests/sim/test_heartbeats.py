"""Heartbeats between whole nodes: one ping serves both ends, nothing gets old, and a silent peer is noticed by both."""

from collections import Counter
from typing import Any

import pytest
import trio

from netsim.virtual.nodes import VirtualSwarm
from node.swarm.rpc import Rpc
from protocols.messages import Ping
from tests.sim.swarms import over_seeds, running, swarm_of
from tests.until import until

AGE_SECONDS_MAX = 4.1
"""Of what an idle node has, while nothing is lost: an interval and a round trip."""
SUSPECT_SECONDS = 4.75
GIVEN_UP_SECONDS = 7.0
NEVER_MS = 3_600_000


def test_of_two_idle_nodes_one_pings_and_both_stay_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    pings: Counter[frozenset[str]] = Counter()
    askers: dict[frozenset[str], set[str]] = {}
    ask = Rpc.ask

    def counting(rpc: Rpc, peer: str, request: Any, *rest: Any) -> int | None:
        if isinstance(request, Ping):
            pair = frozenset((rpc.network.peer_id, peer))
            pings[pair] += 1
            askers.setdefault(pair, set()).add(rpc.network.peer_id)
        return ask(rpc, peer, request, *rest)

    async def program(seed: int) -> None:
        async with swarm_of(seed, 4, health_check_interval_ms=NEVER_MS) as swarm:
            await trio.sleep(10.0)
            pings.clear()
            askers.clear()
            for _ in range(600):
                await trio.sleep(0.1)
                ages = [node.members.age_seconds() for node in running(swarm)]
                assert all(age is not None and age <= AGE_SECONDS_MAX for age in ages), ages
            assert len(pings) == 6, "each pair"
            assert all(14 <= count <= 16 for count in pings.values()), pings
            assert all(len(ends) == 1 for ends in askers.values())

    monkeypatch.setattr(Rpc, "ask", counting)
    over_seeds(program)


@pytest.mark.parametrize("is_leader", [True, False])
def test_a_frozen_idle_peer_is_suspect_and_given_up_in_time_by_the_end_that_pings_and_by_the_other(
    is_leader: bool,
) -> None:
    async def program(seed: int) -> None:
        async with swarm_of(seed, 2, health_check_interval_ms=NEVER_MS) as swarm:
            await trio.sleep(10.0 + seed * 1.3)
            frozen, other = sorted(("n1", "n2"), key=lambda name: swarm[name].peer, reverse=not is_leader)
            swarm.net.freeze(swarm[frozen].peer)
            members = swarm[other].running.members
            presence = members.get(swarm[frozen].peer)
            assert presence is not None
            await until(lambda: presence.is_suspect, seconds=SUSPECT_SECONDS + 0.1)
            await until(lambda: not presence.is_connected, seconds=GIVEN_UP_SECONDS)
            swarm.net.thaw(swarm[frozen].peer)
            await until(lambda: is_fresh(swarm), seconds=10.0)

    over_seeds(program)


def is_fresh(swarm: VirtualSwarm) -> bool:
    ages = [node.members.age_seconds() for node in running(swarm)]
    return all(age is not None and age <= AGE_SECONDS_MAX for age in ages)
