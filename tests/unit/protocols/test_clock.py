"""The hybrid logical clock: versions only ever grow, whatever the wall clock does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import clock
from protocols.clock import AHEAD_MS_MAX, COUNTER_MAX, MS_MAX, VERSION_MAX, HybridClock
from protocols.errors import ClockAhead, NotLater, from_code
from tests.unit.vectors import load

VECTORS = load("clock")
NOW = 1_754_576_000_000
sane_ms = st.integers(-(10**6), MS_MAX // 2)
versions = st.integers(0, VERSION_MAX // 2)


@pytest.mark.parametrize("vector", VECTORS["versions"], ids=lambda vector: vector["version"])
def test_a_version_is_milliseconds_and_a_counter(vector: dict[str, Any]) -> None:
    version = int(vector["version"])
    assert clock.version(vector["ms"], vector["counter"]) == version
    assert (clock.ms_of(version), version & clock.COUNTER_MAX) == (vector["ms"], vector["counter"])


def test_golden_readings() -> None:
    readings = VECTORS["readings"]
    hybrid = HybridClock(int(readings["latest"]))
    for reading in readings["of"]:
        assert hybrid.read(reading["now_ms"], after=map(int, reading["after"])) == int(reading["version"]), reading


@given(st.lists(st.tuples(sane_ms, st.lists(versions, max_size=3), st.none() | versions)))
def test_readings_grow_under_any_sequence_of_moments(steps: list[tuple[int, list[int], int | None]]) -> None:
    hybrid, last = HybridClock(), 0
    for now_ms, after, observed in steps:
        reading = hybrid.read(now_ms, after=after)
        assert reading > last
        assert all(reading > version for version in after)
        assert clock.ms_of(reading) >= now_ms
        last = reading
        if observed is not None:
            hybrid.observe(observed)
            last = max(last, observed)
        assert hybrid.latest == last


@given(st.lists(st.integers(0, MS_MAX), min_size=1))
def test_a_right_clock_is_never_left_behind_by_its_versions(steps: list[int]) -> None:
    """Only a backward step of the wall clock, or more than 65,536 writes a millisecond, puts versions ahead of it."""
    hybrid = HybridClock()
    for now_ms in sorted(steps):
        assert clock.ahead_ms(hybrid.read(now_ms), now_ms) <= 0


def test_a_full_counter_carries_into_the_milliseconds() -> None:
    hybrid = HybridClock(clock.version(NOW, COUNTER_MAX))
    assert hybrid.read(NOW) == clock.version(NOW + 1, 0)


def test_a_clock_starts_after_the_latest_accepted_version() -> None:
    hybrid = HybridClock(clock.version(NOW + 5000, 3))
    assert hybrid.read(NOW) == clock.version(NOW + 5000, 4)


def test_observing_an_older_version_changes_nothing() -> None:
    hybrid = HybridClock(clock.version(NOW))
    hybrid.observe(clock.version(NOW - 1))
    assert hybrid.latest == clock.version(NOW)


def test_a_clock_beyond_48_bits_or_before_1970_still_reads() -> None:
    assert HybridClock().read(MS_MAX + 10) == clock.version(MS_MAX)
    assert HybridClock().read(-10) == 1


def test_after_the_last_version_there_is_none() -> None:
    hybrid = HybridClock()
    with pytest.raises(NotLater):
        hybrid.read(NOW, after=[VERSION_MAX])
    assert hybrid.read(NOW) == clock.version(NOW), "a failed reading must leave the clock as it was"


def test_a_version_is_taken_up_to_a_minute_ahead_and_the_refusal_says_by_how_much() -> None:
    clock.check_not_ahead(clock.version(NOW + AHEAD_MS_MAX, COUNTER_MAX), NOW)
    clock.check_not_ahead(clock.version(0), NOW)
    with pytest.raises(ClockAhead) as refused:
        clock.check_not_ahead(clock.version(NOW + AHEAD_MS_MAX + 1), NOW)
    assert refused.value.retryable
    assert refused.value.details["ahead_ms"] == AHEAD_MS_MAX + 1


def test_the_refusal_survives_the_wire_as_what_it_is() -> None:
    with pytest.raises(ClockAhead) as refused:
        clock.check_not_ahead(VERSION_MAX, NOW)
    error = refused.value
    assert isinstance(from_code(error.code, error.message, error.details), ClockAhead)
