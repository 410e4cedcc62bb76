"""Two of ten nodes are killed while the other eight put and get: how many of their calls succeed, hybrid and real.

A call of hybrid never fails; one that the swarm did not answer in time is pending or degraded, and says so. A call of
real fails when the swarm did not answer within its deadline.
"""

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.figures import Bound, Figure
from benchmarks.fleet import fleet

NODES = 10
KILLED = 2
RATE = 25.0
"""Calls a second on each of the nodes that stay, puts and gets in turn."""
SECONDS = 12.0
"""So long that the copies of a node which no longer hears all holders get too old to answer without asking."""
KILLED_AT_SECONDS = 4.0
READ = 200
"""The number of addresses that are read in turn."""
WANTED = {"hybrid": 100.0, "real": 99.9}


def run() -> list[Figure]:
    return [figure for backend in WANTED for figure in _figures(backend)]


def _figures(backend: str) -> Iterator[Figure]:
    got = two_of_ten_are_killed(backend)
    what = f"two of ten killed, {backend}"
    calls = sum(each["puts"] + each["gets"] for each in got)
    failed = sum(each["failed"] for each in got)
    yield _figure(f"{what}: calls", calls, "")
    yield _figure(f"{what}: calls that succeeded", 100.0 * (calls - failed) / calls, "%", WANTED[backend])
    if backend == "hybrid":
        yield _figure(f"{what}: puts that were pending at their deadline", sum(each["pending"] for each in got), "")
    for kind in ("put", "get"):
        yield _figure(f"{what}: {kind} p99 of the slowest node", max(each[f"{kind}_p99_ms"] for each in got), "ms")


def two_of_ten_are_killed(backend: str, *, rate: float = RATE) -> list[dict[str, Any]]:
    """The calls on each of the nodes that stay: how many, and how many failed (see `Foreground`)."""
    with fleet(NODES, backend=backend) as members:
        stay, killed = members[KILLED:], members[:KILLED]
        stay[0].do("make", count=READ, run="read")
        stay[0].do("put", callers=4, seconds=60.0)
        for number, member in enumerate(stay):
            member.do("make", count=int(SECONDS * rate / 2) + 1, run=f"beside{number}")
        for member in stay:
            member.send("foreground", run="read", count=READ, rate=rate, seconds=SECONDS)
        time.sleep(KILLED_AT_SECONDS)
        for member in killed:
            member.kill()
        return [member.answer() for member in stay]


def _figure(what: str, value: float, unit: str, least: float | None = None) -> Figure:
    bound = Bound.NONE if least is None else Bound.AT_LEAST
    return Figure(bench="killed", what=what, value=value, unit=unit, bound=bound, target=least)
