"""Metrics: the types of families, and the registry of their sources.

A part of the node counts in plain attributes of its own, which costs almost nothing, and registers a function here that
returns these counts as families on request. `node/api/exposition.py` makes text of them.

Names follow Prometheus: base units at the end (`_seconds`, `_bytes`), `_total` for counters. The values of a label come
from a fixed list (backends, operations, routes), and are never addresses, keys or peers.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

SECONDS_BOUNDS = (
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 10.0,
)  # fmt: skip
"""From a read from memory (a microsecond) to the longest wait of a caller."""


class MetricKind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Histogram:
    """The number of values up to each bound (ascending), and at last the number above all bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS_BOUNDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Family(NamedTuple):
    """All samples of one metric name. The key of a sample is the values of the labels, in their order."""

    name: str
    help: str
    kind: MetricKind
    labels: tuple[str, ...]
    samples: Mapping[tuple[str, ...], float | Histogram]


def counter(name: str, help: str, value: float) -> Family:
    """A number without labels that only grows."""
    return Family(name, help, MetricKind.COUNTER, (), {(): value})


def gauge(name: str, help: str, value: float) -> Family:
    """A number without labels that goes up and down."""
    return Family(name, help, MetricKind.GAUGE, (), {(): value})


def state(name: str, help: str, label: str, states: Iterable[str], current: str) -> Family:
    """The current one of several states: 1 for it, 0 for the others."""
    return Family(name, help, MetricKind.GAUGE, (label,), {(each,): float(each == current) for each in states})


Source = Callable[[], Iterable[Family]]
"""Returns the current families: quick, on the trio thread, without waiting."""


class Meters:
    """The registry of sources. A family belongs to one source."""

    def __init__(self) -> None:
        self._sources: list[Source] = []

    def register(self, source: Source) -> None:
        self._sources.append(source)

    def families(self) -> list[Family]:
        """All families, in the order of registration."""
        return [family for source in self._sources for family in source()]
