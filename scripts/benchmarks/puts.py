"""Processor time of a durable put: with the store alone, and with the copies of two other nodes.

What a node takes when it is idle is left out, so that the figures hardly depend on what else runs on the machine. Every
load is run several times in turns, and medians are given. With the folder of another checkout its nodes run in the same
turns, and ratios are given, too.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Bound, Figure
from benchmarks.fleet import FleetNode, fleet

SECONDS = 1.5
IDLE_SECONDS = 3.0
ROUNDS = 7
LOADS = ((1, 64), (1, 1), (3, 64), (3, 8), (3, 1))
"""Nodes, callers. One node is the store alone; of three each put waits for the acknowledgements of the other two."""
MADE = {1: 3_000, 8: 8_000, 64: 16_000}
"""The number of envelopes signed beforehand: more than a run uses, or enough for one."""
RATIO_MIN = 0.95


class _Measured:
    """The nodes of one checkout, and the processor time of a put in each round, in us, by who spent it."""

    def __init__(self, members: Sequence[FleetNode]) -> None:
        self._one, *self._others = members
        self.rounds: dict[str, list[float]] = {}
        self._put(64, "warm")  # until the write-ahead log has its full size

    def measure_idle(self) -> None:
        started, before = time.perf_counter(), self._cpu_seconds()
        time.sleep(IDLE_SECONDS)
        seconds = time.perf_counter() - started
        self._idle = [(after - cpu) / seconds for after, cpu in zip(self._cpu_seconds(), before, strict=True)]

    def put(self, callers: int, run: str) -> None:
        """One round."""
        self._one.do("make", count=MADE[callers], run=run)
        started, before = time.perf_counter(), self._cpu_seconds()
        count = self._put(callers, "")
        seconds = time.perf_counter() - started
        spent = [
            (after - cpu - idle * seconds) * 1e6 / count
            for after, cpu, idle in zip(self._cpu_seconds(), before, self._idle, strict=True)
        ]
        self.rounds.setdefault("", []).append(spent[0])
        if self._others:
            self.rounds.setdefault(", each of the others", []).append(sum(spent[1:]) / len(self._others))

    def _put(self, callers: int, run: str) -> int:
        """Put what was made (as this run), until every holder has it; return how much that was."""
        if run:
            self._one.do("make", count=MADE[callers], run=run)
        got: dict[str, Any] = self._one.do("put", callers=callers, seconds=SECONDS)
        while self._others and self._one.do("state")["pending"]:
            time.sleep(0.01)
        if got["failed"]:
            raise RuntimeError(f"puts of a bench failed: {got}")
        return int(got["good"] + got["not_as_asked"])  # on a busy machine copies may come late

    def _cpu_seconds(self) -> list[float]:
        return [member.do("state")["cpu_ms"] / 1000.0 for member in (self._one, *self._others)]


def run(against: Path | None = None) -> list[Figure]:
    """`against` is another checkout, with a `.venv` of its own (its `./scripts/bootstrap bench` makes it)."""
    checkouts = [None] if against is None else [against, None]
    figures: list[Figure] = []
    for nodes, callers in LOADS:
        with ExitStack() as stack:
            turns = [_Measured(stack.enter_context(_nodes(nodes, checkout))) for checkout in checkouts]
            for measured in turns:
                measured.measure_idle()
            for number in range(ROUNDS):
                for measured in turns if number % 2 else reversed(turns):
                    measured.put(callers, f"r{number}")
        what = f"{nodes} node{'s'[: nodes - 1]}: put, {callers} caller{'s'[: callers - 1]}"
        figures.extend(_figures(what, [measured.rounds for measured in turns]))
    return figures


def _nodes(count: int, checkout: Path | None) -> AbstractContextManager[list[FleetNode]]:
    if count == 1:
        return fleet(1, checkout=checkout, backend="mock")
    return fleet(count, checkout=checkout, replication=count - 1, write_quorum=count - 1)


def _figures(what: str, turns: list[dict[str, list[float]]]) -> Iterator[Figure]:
    own = turns[-1]
    for who, times in own.items():
        name = f"{what}{who}: processor time"
        yield Figure(bench="puts", what=name, value=median(times), unit="us")
        for other in turns[:-1]:
            ratio = median(other[who]) / median(times)
            yield Figure(
                bench="puts", what=f"{name}: that of the other checkout over it", value=ratio, unit="x",
                bound=Bound.AT_LEAST, target=RATIO_MIN,
            )  # fmt: skip
