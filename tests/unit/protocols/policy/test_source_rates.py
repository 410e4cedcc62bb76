"""Rates of sources: what each may do, and how many are remembered."""

import pytest

from protocols.policy.source_rates import SOURCES_MAX, SourceRates

RATE, BURST = 0.5, 10.0


def test_a_source_that_floods_is_stopped_and_others_are_not() -> None:
    rates = SourceRates(rate=RATE, burst=BURST)
    assert [rates.may("eve", 0.0) for _ in range(100)].count(True) <= BURST + 1
    assert rates.may("ada", 0.0)
    assert not rates.may("eve", 0.9 / RATE)
    assert rates.may("eve", 1.1 / RATE)


@pytest.mark.parametrize("after_seconds", [0.0, BURST / RATE])
def test_sources_are_remembered_in_a_bounded_number(after_seconds: float) -> None:
    rates = SourceRates(rate=RATE, burst=BURST)
    for number in range(SOURCES_MAX):
        assert rates.may(f"peer {number}", 0.0)
    assert rates.may("one more", after_seconds) == (after_seconds > 0.0)
