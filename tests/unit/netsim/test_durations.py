"""A summary of durations has their percentiles by nearest rank, and always the longest."""

import pytest

from netsim.durations import DurationSummary


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([], (0, 0.0, 0.0, 0.0)),
        ([3.0], (1, 3.0, 3.0, 3.0)),
        ([float(n) for n in range(100, 0, -1)], (100, 50.0, 99.0, 100.0)),
        ([1.0] * 199 + [90.0], (200, 1.0, 1.0, 90.0)),
    ],
)
def test_a_summary_never_hides_the_longest(durations: list[float], expected: tuple[float, ...]) -> None:
    assert DurationSummary.of(durations) == expected
