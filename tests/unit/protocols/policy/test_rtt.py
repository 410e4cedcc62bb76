"""Round trips, told: what a peer may take, when to ask another one, and what moves that and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.policy.rtt import (
    HEDGE_SECONDS_MIN,
    HEDGE_SECONDS_USUAL,
    KEPT,
    PATIENCE_SECONDS_MAX,
    RttEstimator,
    stretched,
)


def told(peer: str = "a", *seconds: float, trips: RttEstimator | None = None, start: float = 0.0) -> RttEstimator:
    """These round trips of a peer, a second apart."""
    trips = trips or RttEstimator()
    for number, one in enumerate(seconds):
        trips.took(peer, one, start + number)
    return trips


def test_of_a_peer_that_answered_nothing_nothing_is_known() -> None:
    trips = RttEstimator()
    assert trips.usual("a") is None
    assert trips.overall() is None
    assert trips.patience("a", least=0.02) == 0.02
    assert trips.hedge(("a",), most=1.0) == HEDGE_SECONDS_USUAL
    assert trips.stretched(1.0) == 1.0


def test_a_far_peer_is_waited_for_longer_and_a_near_one_is_not() -> None:
    trips = told("far", 0.15, 0.16, 0.15)
    told("near", 0.001, 0.002, 0.001, trips=trips)
    assert trips.patience("far", least=0.05) == pytest.approx(0.45)
    assert trips.patience("near", least=0.05) == 0.05
    assert trips.patience_with(("near", "far"), least=0.05) == pytest.approx(0.45)
    assert trips.patience_with((), least=0.05) == 0.05
    assert trips.hedge(("near", "far"), most=1.0) == pytest.approx(0.3)
    assert trips.hedge(("near",), most=1.0) == HEDGE_SECONDS_MIN


def test_one_who_was_never_heard_is_taken_to_be_as_far_as_the_others() -> None:
    trips = told("far", 0.15)
    assert trips.patience("new", least=0.02) == pytest.approx(0.45)


def test_a_hedge_waits_no_longer_than_there_is_time_for() -> None:
    trips = told("far", 0.15)
    assert trips.hedge(("far",), most=0.028) == 0.028
    assert trips.hedge(("far",), most=0.0) == HEDGE_SECONDS_MIN, "and never spins"


def test_patience_has_an_end() -> None:
    assert told("a", *[30.0] * KEPT).patience("a", least=0.05) == PATIENCE_SECONDS_MAX


def test_a_standstill_whose_answers_come_all_at_once_changes_nothing() -> None:
    trips = told("a", *[0.001] * KEPT)
    for number in range(100):  # asked one after the other while it stood still, answered within a millisecond
        trips.took("a", 30.0 - number * 0.25, 100.0 + number / 100_000)
    assert trips.usual("a") == 0.001


def test_of_answers_that_come_together_the_quickest_tells_of_the_way() -> None:
    trips = RttEstimator()
    for seconds in (3.0, 2.0, 0.2, 1.0):
        trips.took("a", seconds, 10.0)
    assert trips.usual("a") == 0.2


def test_a_busy_peer_is_not_one_batch_for_ever() -> None:
    trips = told("a", *[0.001] * KEPT)
    for number in range(40):  # one each millisecond, so that each is within the time of the one before it
        trips.took("a", 0.1, 100.0 + number / 1000)
    assert trips.usual("a") == 0.1


def test_a_network_that_became_slower_is_known_after_half_of_what_is_kept() -> None:
    trips = told("a", *[0.001] * KEPT)
    told("a", *[0.15] * (KEPT // 2), trips=trips, start=100.0)
    assert trips.usual("a") == 0.001
    told("a", 0.15, trips=trips, start=200.0)
    assert trips.usual("a") == 0.15
    told("a", *[0.001] * (KEPT // 2 + 1), trips=trips, start=300.0)
    assert trips.usual("a") == 0.001, "and so is one that became quicker"


def test_the_whole_is_as_slow_as_its_middle() -> None:
    trips = told("a", 0.001)
    told("b", 0.15, trips=trips)
    told("c", 0.2, trips=trips)
    assert trips.overall() == 0.15
    trips.forget("c")
    assert trips.overall() == 0.001
    for peer in ("a", "b", "unknown"):
        trips.forget(peer)
    assert trips.overall() is None
    assert trips.usual("a") is None


@pytest.mark.parametrize(
    ("seconds", "round_trip", "gets"), [(1.0, 0.001, 1.0), (1.0, 0.15, 1.0), (1.0, 0.5, 2.0), (0.4, 10.0, 1.2)]
)
def test_a_deadline_is_stretched_where_answers_take_long_and_not_without_end(
    seconds: float, round_trip: float, gets: float
) -> None:
    assert stretched(seconds, round_trip) == pytest.approx(gets)
    assert told("a", round_trip).stretched(seconds) == pytest.approx(gets)


trips = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100), st.floats(0, 10)), max_size=60)


@given(trips, st.floats(0, 5), st.floats(0, 10))
def test_whatever_was_measured_every_wait_is_bounded(
    history: list[tuple[str, float, float]], least: float, most: float
) -> None:
    trips, now = RttEstimator(), 0.0
    for peer, seconds, passed in history:
        now += passed
        trips.took(peer, seconds, now)
    for peer in "abcd":
        assert least <= trips.patience(peer, least=least) <= max(least, PATIENCE_SECONDS_MAX)
        assert HEDGE_SECONDS_MIN <= trips.hedge(peer, most=most) <= max(HEDGE_SECONDS_MIN, most)
    measured = [seconds for _, seconds, _ in history]
    if measured:
        assert min(measured) <= (trips.overall() or 0.0) <= max(measured)
