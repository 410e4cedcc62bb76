"""Hysteresis: the observations that change a verdict, and those that are too few or too old."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.policy.hysteresis import Hysteresis


def steady(**limits: float) -> Hysteresis:
    return Hysteresis(worse_after=3, better_after=2, **limits)


def ill(**limits: float) -> Hysteresis:
    one = steady(**limits)
    for at in (1.0, 2.0, 3.0):
        one.observe_bad("late", at)
    assert one.is_bad(3.0)
    return one


def test_the_verdict_is_bad_after_several_bad_observations_in_a_row_and_not_before() -> None:
    one = steady()
    assert [one.observe_bad(f"late {at}", at) for at in (1.0, 2.0)] == [False, False]
    assert not one.is_bad(2.0)
    assert one.needs_recheck(2.0), "whoever can look again should, soon"
    assert one.observe_bad("late 3", 3.0), "and it says when the verdict changes"
    assert (one.is_bad(3.0), one.needs_recheck(3.0), one.why) == (True, False, "late 3")


def test_a_good_observation_between_bad_ones_starts_the_count_anew() -> None:
    one = steady()
    for at in range(20):
        if at % 3 < 2:
            one.observe_bad("late", at)
        else:
            one.observe_good(at)
        assert not one.is_bad(at)


def test_the_verdict_is_good_after_several_good_observations() -> None:
    one = ill()
    assert not one.observe_good(4.0)
    assert (one.is_bad(4.0), one.needs_recheck(4.0)) == (True, True)
    one.observe_bad("late", 5.0)
    assert not one.observe_good(6.0), "counted anew"
    assert one.observe_good(7.0)
    assert (one.is_bad(7.0), one.is_clear()) == (False, True)


def test_bad_observations_too_far_apart_do_not_add_up() -> None:
    one = steady(within_seconds=10.0)
    for at in (0.0, 10.0, 20.0, 30.0, 40.0):
        assert not one.observe_bad("late", at)
    assert not one.needs_recheck(50.0), "nor is it looked at again and again for what is long over"


@pytest.mark.parametrize("apart", [0.5, 1.0])
def test_observations_close_together_count_once(apart: float) -> None:
    one = steady(apart_seconds=apart)
    for at in (1.0, 1.0, 1.01, 1.2, 1.3):
        assert not one.observe_bad("late", at)
    one.observe_bad("late", 2.0 + apart)
    assert one.observe_bad("late", 3.0 + 2 * apart)


def test_a_bad_verdict_without_observations_is_forgotten() -> None:
    one = ill(forget_seconds=10.0)
    assert one.is_bad(12.9)
    assert not one.is_bad(13.0)
    assert one.is_clear()


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=60))
def test_the_verdict_changes_only_as_reported(history: list[tuple[bool, float]]) -> None:
    one, now = steady(), 0.0
    for is_good, passed in history:
        now += passed
        before = one.is_bad(now)
        changed = one.observe_good(now) if is_good else one.observe_bad("late", now)
        assert one.is_bad(now) == (before != changed)
        assert not (is_good and one.is_bad(now) and not before), "a good one makes nothing worse"
        assert not (not is_good and before and not one.is_bad(now)), "a bad one nothing better"
    for _ in range(2):
        one.observe_good(now)
    assert not one.is_bad(now)
