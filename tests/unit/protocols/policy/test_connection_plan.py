"""Which connections a node keeps in a large swarm, and when the others end."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.keys import PrivateKey
from protocols.placement import place_of_peer
from protocols.policy.connection_plan import CROWDED_IDLE_SECONDS, IDLE_SECONDS, PlanCandidate, idle_too_long, kept
from protocols.policy.failure_detector import ConnectionOpened as Opened
from protocols.policy.failure_detector import FailureDetector, Kept
from tests.unit.ticks import due

OWN, *PEERS = (PrivateKey.from_seed(number.to_bytes(32, "big")).peer_id for number in range(1, 80))
BY_DISTANCE = sorted(PEERS, key=lambda peer: place_of_peer(peer) ^ place_of_peer(OWN))


def candidates(*, connected: tuple[str, ...] = (), away: tuple[str, ...] = ()) -> list[PlanCandidate]:
    return [PlanCandidate(peer, peer in connected, peer in away) for peer in PEERS]


def bucket(peer: str) -> int:
    return (place_of_peer(peer) ^ place_of_peer(OWN)).bit_length()


def test_all_are_kept_while_there_are_few() -> None:
    few = candidates()[:12]
    assert kept(OWN, few, 12) == {candidate.peer for candidate in few}


def test_most_are_the_nearest_and_the_others_are_spread_over_the_distances() -> None:
    chosen = kept(OWN, candidates(), 16)
    assert len(chosen) == 16
    assert chosen >= {*BY_DISTANCE[:12]}
    others = chosen - {*BY_DISTANCE[:12]}
    assert {bucket(peer) for peer in others} >= {256, 255}, "both halves and quarters that this node is not in"


def test_members_that_are_away_take_no_place_of_others_until_there_are_too_few() -> None:
    away = tuple(BY_DISTANCE[:40])
    assert not kept(OWN, candidates(away=away), 16) & {*away}
    nearly_all = tuple(BY_DISTANCE[:70])
    chosen = kept(OWN, candidates(away=nearly_all), 16)
    assert len(chosen) == 16
    assert chosen >= {*BY_DISTANCE[70:]}, "all that can be reached"
    assert chosen >= {*BY_DISTANCE[:5]}, "and the nearest of the others: the swarm may come back"


@given(most=st.integers(4, 60), away=st.sets(st.sampled_from(PEERS)), connected=st.sets(st.sampled_from(PEERS)))
@settings(max_examples=60)
def test_a_plan_that_was_carried_out_stays_as_it_is(most: int, away: set[str], connected: set[str]) -> None:
    everybody = candidates(connected=tuple(connected - away), away=tuple(away))
    chosen = kept(OWN, everybody, most)
    assert len(chosen) == min(most, len(PEERS))
    carried_out = [
        replace(each, is_connected=each.peer in chosen and not each.is_away) for each in reversed(everybody)
    ]  # fmt: skip
    assert kept(OWN, carried_out, most) == chosen


def test_a_connection_that_is_not_kept_ends_when_it_is_idle_and_sooner_where_there_are_many() -> None:
    assert not idle_too_long(IDLE_SECONDS - 1.0, connections=20, most=10)
    assert idle_too_long(IDLE_SECONDS, connections=1, most=10)
    assert idle_too_long(CROWDED_IDLE_SECONDS, connections=21, most=10)
    assert not idle_too_long(CROWDED_IDLE_SECONDS - 0.1, connections=4000, most=10)


def test_a_peer_that_keeps_a_node_pings_it_before_the_connection_counts_as_idle() -> None:
    machine = FailureDetector()
    machine.handle(Opened("kept"), 0.0)
    machine.handle(Opened("unkept"), 0.0)
    machine.handle(Kept("unkept", False), 0.0)
    assert due(machine) * 2 < CROWDED_IDLE_SECONDS, "one ping may be late"
