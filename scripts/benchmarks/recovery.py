"""Recovery: how soon a swarm that is back is noticed and gets its hints, the cost for callers, and flags under load.

Four of five nodes are stopped by SIGSTOP while the fifth goes on writing, so that it has a hint for each of them and
each write; then they continue. A foreground load of puts and gets runs on the fifth, once before and once during that.
"""

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.figures import Bound, Figure
from benchmarks.fleet import FleetNode, fleet

PEERS = 4
HINTS = ((1_000, 2.0), (100_000, 60.0))
"""A number of hints, and within how many seconds they should be delivered."""
CALLS_MIN = 500
"""With fewer calls the 99th percentile says nothing: it is shown without a target."""
GONE_SECONDS = 10.0
"""How long the others are away at least."""
RATE = 500.0
"""Foreground calls a second."""
STEADY_SECONDS = 10.0
DELIVERY_SECONDS_MAX = 300.0
FLIP_SECONDS = 0.1
READ = 500
"""The number of addresses that the foreground reads in turn."""


def run() -> list[Figure]:
    figures: list[Figure] = []
    for hints, seconds in HINTS:
        with fleet(PEERS + 1) as members:
            figures.extend(_returns(members, hints, seconds))
    with fleet(PEERS + 1) as members:
        figures.extend(_flipped(members[0]))
    return figures


def _returns(members: list[FleetNode], hints: int, seconds: float) -> Iterator[Figure]:
    one, others = members[0], members[1:]
    steady = _steady(one)
    one.do("make", count=hints // PEERS, run="hints")
    for other in others:
        other.freeze()
    gone_at = time.monotonic()
    one.do("put", callers=64, seconds=600.0, timeout=0.1)
    time.sleep(max(0.0, gone_at + GONE_SECONDS - time.monotonic()))
    pending = one.do("state")["pending"]
    one.do("make", count=int(DELIVERY_SECONDS_MAX * RATE / 2), run="meanwhile")
    one.send("recover", run="steady", count=READ, rate=RATE, seconds=DELIVERY_SECONDS_MAX)
    back_at = time.monotonic()
    for other in others:
        other.thaw()
    got = one.answer()
    what = f"{pending:,} hints"
    yield _figure(f"{what}: from the swarm's return to the breaker closed", got["closed_at"] - back_at, "s", 2.0)
    yield _figure(f"{what}: from there until all are delivered", got["delivered_at"] - got["closed_at"], "s", seconds)
    yield from _beside(f"{what}: meanwhile", got, steady, 3.0)


def _flipped(one: FleetNode) -> Iterator[Figure]:
    """The backend is changed to mock and back as by an operator: each time checked, audited and in force."""
    steady = _steady(one)
    one.do("make", count=int(STEADY_SECONDS * RATE / 2) + 1, run="flipped")
    facts = {"run": "steady", "count": READ, "rate": RATE, "seconds": STEADY_SECONDS}
    got = one.do("flip", every=FLIP_SECONDS, **facts)
    yield _figure("backend flipped every 100 ms: flips", got["flips"], "")
    yield from _beside("backend flipped every 100 ms", got, steady, 2.0)


def _steady(one: FleetNode) -> dict[str, Any]:
    """The foreground load with nothing else; it also writes the addresses that later runs read."""
    one.do("make", count=READ, run="steady")
    one.do("put", callers=16, seconds=60.0)
    one.do("make", count=int(STEADY_SECONDS * RATE / 2) + 1, run="before")
    return one.do("foreground", run="steady", count=READ, rate=RATE, seconds=STEADY_SECONDS)


def _beside(what: str, got: dict[str, Any], steady: dict[str, Any], most: float) -> Iterator[Figure]:
    """The latencies of a foreground load, compared with those of the steady one."""
    yield _figure(f"{what}, calls failed", got["failed"], "", 0)
    for kind in ("put", "get"):
        before, now = steady[f"{kind}_p99_ms"], got[f"{kind}_p99_ms"]
        if now is not None:
            bound = most if got[f"{kind}s"] >= CALLS_MIN else None
            yield _figure(f"{what}, {kind} p99 over the steady one", now / before, "x", bound)
            yield _figure(f"{what}, {kind} p99", now, "ms")
        yield _figure(f"{what}, {kind} p99, steady", before, "ms")
    yield _figure(f"{what}, puts that no peer acknowledged in time", 100.0 * got["pending"] / max(1, got["puts"]), "%")


def _figure(what: str, value: float, unit: str, most: float | None = None) -> Figure:
    bound = Bound.NONE if most is None else Bound.AT_MOST
    return Figure(bench="recovery", what=what, value=value, unit=unit, bound=bound, target=most)
