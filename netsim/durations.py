"""Durations: their percentiles and a summary of them, for everything that measures calls."""

import math
from collections.abc import Sequence
from typing import NamedTuple


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed (nearest rank). There is one value at least."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class DurationSummary(NamedTuple):
    """Durations in milliseconds: how many, their median, the 99th percentile, the longest."""

    calls: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, durations_ms: Sequence[float]) -> "DurationSummary":
        if not durations_ms:
            return cls(0, 0.0, 0.0, 0.0)
        figures = (percentile(durations_ms, 0.50), percentile(durations_ms, 0.99), max(durations_ms))
        return cls(len(durations_ms), *(round(figure, 2) for figure in figures))

    def __str__(self) -> str:
        return f"p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, longest {self.max_ms:.1f} ms"
