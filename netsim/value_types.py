"""Types of the values in a scenario file: a plain type, with the range or the choice that the reader enforces.

They stand beside the fields of the dataclasses that a scenario is made of, so each key is declared once, in one place.
`scenario/values.py` reads a table by them.
"""

from dataclasses import dataclass
from typing import Annotated

BACKENDS = ("mock", "real", "hybrid")
SECONDS_MAX = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Range:
    """Both ends are allowed. Of an `int` the file must have a whole number."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OneOf:
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeNames:
    """A list of nodes by name; '*' stands for all nodes, and 'n4..n30' for a row of them."""


@dataclass(frozen=True, slots=True)
class NodeGroups:
    """A list of lists of nodes. A node is in one of them at most."""


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Two whole numbers that ascend, from 0 to `bytes_max`."""

    bytes_max: int


Share = Annotated[float, Range(0.0, 1.0)]
Seconds = Annotated[float, Range(0.0, SECONDS_MAX)]
Interval = Annotated[float, Range(0.01, SECONDS_MAX)]
"""Seconds between two of the same thing, never 0."""
PhaseSeconds = Annotated[float, Range(0.1, SECONDS_MAX)]
"""How long a phase of a run lasts."""
Milliseconds = Annotated[float, Range(0.0, 60_000.0)]
Backend = Annotated[str, OneOf(BACKENDS)]
Nodes = Annotated[tuple[str, ...], NodeNames()]
Groups = Annotated[tuple[tuple[str, ...], ...], NodeGroups()]
