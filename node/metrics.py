"""Numbers about a node for whoever watches it: the forms they have, and the place where its parts hand theirs in.

A part counts in plain attributes of its own, which costs next to nothing, and registers a function here that answers
them as families when somebody asks. Nothing here knows the text that they become: that is `node/api/exposition.py`.

Names are Prometheus' own way: base units at the end (`_seconds`, `_bytes`), `_total` for what only grows. Labels take
values from lists that are known beforehand (backends, operations, routes), never addresses, keys or peers.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

SECONDS_BOUNDS = (
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 10.0,
)  # fmt: skip
"""From a read out of memory (a microsecond) to the longest that a caller may wait."""


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Histogram:
    """How often a value was at most each of the bounds (ascending); the last count is of what is above all of them."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS_BOUNDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Family(NamedTuple):
    """All values of one name. `samples` is by the values of the labels, in their order."""

    name: str
    help: str
    kind: Kind
    labels: tuple[str, ...]
    samples: Mapping[tuple[str, ...], float | Histogram]


def counter(name: str, help: str, value: float) -> Family:
    """One number that only grows, without labels."""
    return Family(name, help, Kind.COUNTER, (), {(): value})


def gauge(name: str, help: str, value: float) -> Family:
    """One number that goes up and down, without labels."""
    return Family(name, help, Kind.GAUGE, (), {(): value})


def state(name: str, help: str, label: str, states: Iterable[str], current: str) -> Family:
    """One of several states: 1 for the current one, 0 for the others."""
    return Family(name, help, Kind.GAUGE, (label,), {(each,): float(each == current) for each in states})


Source = Callable[[], Iterable[Family]]
"""Answers numbers as they are now: quick, on the trio thread, without waiting."""


class Meters:
    """Where parts register. A family belongs to one source."""

    def __init__(self) -> None:
        self._sources: list[Source] = []

    def register(self, source: Source) -> None:
        self._sources.append(source)

    def families(self) -> list[Family]:
        """Everything, in the order of registration."""
        return [family for source in self._sources for family in source()]
