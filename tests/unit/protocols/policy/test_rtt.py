"""Round-trip times: the timeout of a peer, the delay of a hedge, and which answers change them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.policy.rtt import (
    HEDGE_SECONDS_DEFAULT,
    HEDGE_SECONDS_MIN,
    KEPT,
    TIMEOUT_SECONDS_MAX,
    RttEstimator,
    stretch,
)


def estimator(peer: str = "a", *seconds: float, trips: RttEstimator | None = None, start: float = 0.0) -> RttEstimator:
    """An estimator that has observed these round trips of a peer, a second apart."""
    trips = trips or RttEstimator()
    for number, one in enumerate(seconds):
        trips.observe(peer, one, start + number)
    return trips


def test_a_peer_without_an_answer_has_no_median() -> None:
    trips = RttEstimator()
    assert trips.median("a") is None
    assert trips.median_of_all() is None
    assert trips.timeout("a", least=0.02) == 0.02
    assert trips.hedge_delay(("a",), most=1.0) == HEDGE_SECONDS_DEFAULT
    assert trips.stretch(1.0) == 1.0


def test_a_far_peer_has_a_longer_timeout_and_a_near_one_has_not() -> None:
    trips = estimator("far", 0.15, 0.16, 0.15)
    estimator("near", 0.001, 0.002, 0.001, trips=trips)
    assert trips.timeout("far", least=0.05) == pytest.approx(0.45)
    assert trips.timeout("near", least=0.05) == 0.05
    assert trips.timeout_of_all(("near", "far"), least=0.05) == pytest.approx(0.45)
    assert trips.timeout_of_all((), least=0.05) == 0.05
    assert trips.hedge_delay(("near", "far"), most=1.0) == pytest.approx(0.3)
    assert trips.hedge_delay(("near",), most=1.0) == HEDGE_SECONDS_MIN


def test_a_new_peer_is_taken_to_be_as_far_as_the_others() -> None:
    trips = estimator("far", 0.15)
    assert trips.timeout("new", least=0.02) == pytest.approx(0.45)


def test_a_hedge_waits_no_longer_than_there_is_time_for() -> None:
    trips = estimator("far", 0.15)
    assert trips.hedge_delay(("far",), most=0.028) == 0.028
    assert trips.hedge_delay(("far",), most=0.0) == HEDGE_SECONDS_MIN, "and never spins"


def test_a_timeout_has_an_upper_bound() -> None:
    assert estimator("a", *[30.0] * KEPT).timeout("a", least=0.05) == TIMEOUT_SECONDS_MAX


def test_a_standstill_whose_answers_come_all_at_once_changes_nothing() -> None:
    trips = estimator("a", *[0.001] * KEPT)
    for number in range(100):  # asked one after the other while it stood still, answered within a millisecond
        trips.observe("a", 30.0 - number * 0.25, 100.0 + number / 100_000)
    assert trips.median("a") == 0.001


def test_of_answers_that_come_together_the_quickest_counts() -> None:
    trips = RttEstimator()
    for seconds in (3.0, 2.0, 0.2, 1.0):
        trips.observe("a", seconds, 10.0)
    assert trips.median("a") == 0.2


def test_a_busy_peer_is_not_one_batch_for_ever() -> None:
    trips = estimator("a", *[0.001] * KEPT)
    for number in range(40):  # one each millisecond, so that each is within the time of the one before it
        trips.observe("a", 0.1, 100.0 + number / 1000)
    assert trips.median("a") == 0.1


def test_a_network_that_became_slower_is_known_after_half_of_the_answers_that_are_kept() -> None:
    trips = estimator("a", *[0.001] * KEPT)
    estimator("a", *[0.15] * (KEPT // 2), trips=trips, start=100.0)
    assert trips.median("a") == 0.001
    estimator("a", 0.15, trips=trips, start=200.0)
    assert trips.median("a") == 0.15
    estimator("a", *[0.001] * (KEPT // 2 + 1), trips=trips, start=300.0)
    assert trips.median("a") == 0.001, "and so is one that became quicker"


def test_the_median_of_all_is_the_median_of_the_peers() -> None:
    trips = estimator("a", 0.001)
    estimator("b", 0.15, trips=trips)
    estimator("c", 0.2, trips=trips)
    assert trips.median_of_all() == 0.15
    trips.forget("c")
    assert trips.median_of_all() == 0.001
    for peer in ("a", "b", "unknown"):
        trips.forget(peer)
    assert trips.median_of_all() is None
    assert trips.median("a") is None


@pytest.mark.parametrize(
    ("seconds", "round_trip", "gets"), [(1.0, 0.001, 1.0), (1.0, 0.15, 1.0), (1.0, 0.5, 2.0), (0.4, 10.0, 1.2)]
)
def test_a_deadline_is_stretched_where_answers_take_long_and_not_without_end(
    seconds: float, round_trip: float, gets: float
) -> None:
    assert stretch(seconds, round_trip) == pytest.approx(gets)
    assert estimator("a", round_trip).stretch(seconds) == pytest.approx(gets)


trips = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100), st.floats(0, 10)), max_size=60)


@given(trips, st.floats(0, 5), st.floats(0, 10))
def test_every_wait_is_bounded_for_any_measurement(
    history: list[tuple[str, float, float]], least: float, most: float
) -> None:
    trips, now = RttEstimator(), 0.0
    for peer, seconds, passed in history:
        now += passed
        trips.observe(peer, seconds, now)
    for peer in "abcd":
        assert least <= trips.timeout(peer, least=least) <= max(least, TIMEOUT_SECONDS_MAX)
        assert HEDGE_SECONDS_MIN <= trips.hedge_delay(peer, most=most) <= max(HEDGE_SECONDS_MIN, most)
    measured = [seconds for _, seconds, _ in history]
    if measured:
        assert min(measured) <= (trips.median_of_all() or 0.0) <= max(measured)
