"""The swarm in real processes: round trips, puts with 1 to 3 durable copies, gets, all at once, one frozen.

`copies` counts this node's own: three copies are its own and two acknowledgements. Each bench says how many calls did
not get what they asked for; those do not count.
"""

from typing import Any

from benchmarks.figures import Bound, Figure
from benchmarks.fleet import Member, fleet

SECONDS = 3.0
PUTS_MADE = {1: 3_000, 8: 12_000, 64: 25_000, 256: 25_000}
CALLERS = (1, 8, 64, 256)


def run() -> list[Figure]:
    return [*_two(), *_three(), *_five(), *_frozen("hybrid"), *_frozen("real")]


def _two() -> list[Figure]:
    figures: list[Figure] = []
    with fleet(2, replication=1, write_quorum=1) as (one, _):
        for callers in CALLERS:
            got = one.do("trip", callers=callers, seconds=SECONDS)
            what = f"2 nodes: stream round trip, {callers} callers"
            if callers == 1:
                figures.append(_figure(f"{what}, p50", got["p50_ms"], "ms", Bound.AT_MOST, 0.4))
            figures.append(_figure(what, got["rate"], "/s"))
        for callers in CALLERS:
            target = 6_000.0 if callers == 64 else None
            figures.extend(_puts(one, f"2 nodes: put, 2 copies, {callers} callers", callers, target))
    with fleet(1, backend="mock") as (alone,):
        for callers in CALLERS:
            figures.extend(_puts(alone, f"1 node: put, 1 copy, {callers} callers", callers, None))
    return figures


def _three() -> list[Figure]:
    figures: list[Figure] = []
    with fleet(3, replication=2, write_quorum=2, read_quorum=2) as (one, two, _):
        for callers in CALLERS:
            figures.extend(_puts(one, f"3 nodes: put, 3 copies, {callers} callers", callers, None))
        _settle([one])
        for callers in CALLERS:
            got = two.do("get", run="c8", count=1_000, consistency="swarm", callers=callers, seconds=SECONDS)
            figures.extend(_calls(f"3 nodes: get from the swarm, newest of three, {callers} callers", got, None))
    return figures


def _five() -> list[Figure]:
    figures: list[Figure] = []
    with fleet(5, replication=2, write_quorum=2, read_quorum=2) as members:
        one = members[0]
        targets = {8: 1_500.0, 64: 3_000.0}
        for callers in CALLERS:
            figures.extend(_puts(one, f"5 nodes: put, 3 copies, {callers} callers", callers, targets.get(callers)))
        _settle(members)
        for callers in CALLERS:
            got = one.do("get", run="c8", count=1_000, consistency="swarm", callers=callers, seconds=SECONDS)
            what = f"5 nodes: get, newest of three, {callers} callers"
            figures.extend(_calls(what, got, 4_000.0 if callers == 8 else None))
        for callers in CALLERS:
            got = one.do("get", run="c8", count=1_000, consistency="auto", callers=callers, seconds=SECONDS)
            figures.extend(_calls(f"5 nodes: get, as hybrid does it, {callers} callers", got, None))
        for number, member in enumerate(members):
            member.do("make", count=8_000, run=f"all{number}")
        for member in members:
            member.tell("put", callers=16, seconds=SECONDS)
        rate = sum(member.answer()["rate"] for member in members)
        figures.append(_figure("5 nodes: all putting at once, 3 copies, together", rate, "/s", Bound.AT_LEAST, 2_000))
    return figures


def _frozen(backend: str) -> list[Figure]:
    """The same load twice on one node of five: with all well, and with one frozen a third into it."""
    figures: list[Figure] = []
    with fleet(5, backend=backend, replication=20, write_quorum=2 if backend == "real" else 1) as members:
        one, frozen = members[0], members[-1]
        rounds: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        for name in ("well", "frozen"):
            one.do("make", count=8_000, run=name)
            one.tell("put", callers=4, seconds=SECONDS, timeout=0.1 if backend == "hybrid" else 1.0)
            if name == "frozen":
                frozen.freeze()
            puts = one.answer()
            gets = one.do("get", run=name, count=500, consistency="auto", callers=4, seconds=SECONDS, timeout=1.0)
            rounds[name] = puts, gets
        frozen.thaw()
    for at, what in enumerate(("put", "get")):
        well, ill = rounds["well"][at], rounds["frozen"][at]
        ratio = ill["p99_ms"] / well["p99_ms"]
        bound, target = (Bound.AT_MOST, 2.0) if backend == "hybrid" else (Bound.NONE, None)
        name = f"one of five frozen, {backend}"
        figures.append(_figure(f"{name}: {what} p99 over the same without", ratio, "x", bound, target))
        figures.append(_figure(f"one of five frozen, {backend}: {what}s failed", ill["failed"], "", Bound.AT_MOST, 0))
    return figures


def _puts(member: Member, what: str, callers: int, target: float | None) -> list[Figure]:
    member.do("make", count=PUTS_MADE[callers], run=f"c{callers}")
    got = member.do("put", callers=callers, seconds=SECONDS)
    figures = _calls(what, got, target)
    if callers == 1 and "3 copies" in what:
        figures.append(_figure(f"{what}, p50", got["p50_ms"], "ms", Bound.AT_MOST, 2.0))
    return figures


def _calls(what: str, got: dict[str, Any], target: float | None) -> list[Figure]:
    not_good = got["not_as_asked"] + got["failed"]
    share = 100.0 * not_good / max(1, got["good"] + not_good)
    bound = Bound.NONE if target is None else Bound.AT_LEAST
    figures = [_figure(what, got["rate"], "/s", bound, target)]
    if share:
        figures.append(_figure(f"{what}: not as asked", share, "%"))
    return figures


def _settle(members: list[Member]) -> None:
    """Until nobody owes anything."""
    while any(member.do("state")["pending"] for member in members):
        pass


def _figure(what: str, value: float, unit: str, bound: Bound = Bound.NONE, target: float | None = None) -> Figure:
    return Figure(bench="swarm", what=what, value=value, unit=unit, bound=bound, target=target)
