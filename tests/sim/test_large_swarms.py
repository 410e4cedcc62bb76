"""Large swarms of the DHT, in which no node knows all others: lookups find what there is, whatever died or lies."""

import pytest

from netsim.kademlia.measure import Measurement
from netsim.kademlia.replicas import ReplicaSwarm
from netsim.kademlia.swarm import LookupLie
from protocols.kademlia.lookup import LookupOptions
from protocols.kademlia.lookup_events import LookupOutcome


@pytest.fixture(scope="module")
def joined() -> Measurement:
    """Each node joined by another one, and learned the rest by lookups of its own."""
    return Measurement(1, 150, keys=10, joined=True)


def test_nodes_that_joined_by_one_other_node_find_the_nearest_of_all(joined: Measurement) -> None:
    found = joined.find_nearest(50)
    assert found.success_percent == 100.0
    assert found.hops(0.5) <= 3
    assert all(result.outcome is LookupOutcome.SETTLED for result in found.results)


def test_values_are_found_where_lookups_of_others_put_them(joined: Measurement) -> None:
    assert joined.get(50).success_percent == 100.0


def test_tables_hold_a_part_of_a_swarm_of_a_thousand_and_lookups_stay_short() -> None:
    swarm = Measurement(2, 1000, keys=10)
    assert max(swarm.table_sizes()) < 300
    found = swarm.find_nearest(100)
    assert found.success_percent == 100.0
    assert found.hops(0.5) <= 4
    assert found.requests(0.99) <= 40
    swarm.kill(0.3)
    assert swarm.find_nearest(100).success_percent >= 99.0
    assert swarm.get(100).success_percent >= 99.0


@pytest.mark.parametrize("lie", LookupLie)
def test_among_liars_every_lookup_ends_in_its_bounds_and_nearly_all_find_the_value(lie: LookupLie) -> None:
    swarm, options = Measurement(3, 300, keys=10), LookupOptions(paths=3)
    swarm.corrupt(0.3, lie)
    found = swarm.get(100, options)
    assert found.success_percent >= 95.0
    for result in found.results:
        assert result.requests <= options.requests_max
        assert result.seconds <= options.seconds_max


def test_under_churn_the_nearest_are_found() -> None:
    swarm = Measurement(4, 100, keys=0, joined=True)
    found = swarm.churn(10, session_minutes=20.0, lookups=5)
    assert found.success_percent >= 95.0


def test_the_same_seed_gives_the_same_lookups() -> None:
    one, other = (Measurement(5, 60, keys=2, joined=True).get(10).results for _ in range(2))
    assert one == other


def test_under_churn_no_key_is_lost_and_all_replicas_are_there_when_it_ends() -> None:
    swarm = ReplicaSwarm(6, 25, keys=30, version_bytes=1000, replication=5)
    assert swarm.missing() == (0, 0)
    assert swarm.traffic.copies == 0, "all was in its place"
    swarm.churn(60, session_minutes=60.0)
    assert swarm.missing()[1] == 0
    swarm.run(900.0)
    assert swarm.missing() == (0, 0)
    assert swarm.traffic.copies < 2.5 * 30 * 5, "about as much as all nodes held was lost with those that left"
    idle = swarm.traffic.question_bytes
    swarm.run(3600.0)
    assert swarm.traffic.question_bytes == idle, "without churn and writes nothing is asked"
