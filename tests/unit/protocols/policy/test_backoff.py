"""The backoff: doubled, capped, half of it fixed and half of it jitter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.policy.backoff import backoff

ALMOST_ONE = 1 - 2**-53


@pytest.mark.parametrize(
    ("attempt", "least", "most"),
    [(1, 0.5, 1.0), (2, 1.0, 2.0), (3, 2.0, 4.0), (4, 4.0, 8.0), (5, 5.0, 10.0), (6, 5.0, 10.0), (10**6, 5.0, 10.0)],
)
def test_the_wait_doubles_up_to_the_cap(attempt: int, least: float, most: float) -> None:
    assert backoff(attempt, base=1.0, cap=10.0, chance=0.0) == least
    assert backoff(attempt, base=1.0, cap=10.0, chance=ALMOST_ONE) == pytest.approx(most)


@given(st.integers(1, 10_000), st.floats(0.001, 100), st.floats(0.001, 100), st.floats(0, ALMOST_ONE))
def test_a_wait_is_never_nothing_and_never_over_the_cap(attempt: int, base: float, cap: float, chance: float) -> None:
    wait = backoff(attempt, base=base, cap=cap, chance=chance)
    assert min(base, cap) / 2 <= wait <= cap
    assert wait <= backoff(attempt + 1, base=base, cap=cap, chance=chance)
