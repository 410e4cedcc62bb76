"""The swarm in real processes: round trips; puts with 1 to 3 durable copies; gets of one and of the newest of three.

1 to 256 callers at 2, 3 and 5 nodes, at the DHT's interface and through HTTP; all nodes at once; one of five frozen.

`copies` includes the node's own: three copies are its own and two acknowledgements. The receipts decide what counts;
each bench shows the share of its calls that did not get what they asked for.
"""

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.figures import Bound, Figure
from benchmarks.fleet import FleetNode, fleet

SECONDS = 2.0
CALLERS = (1, 8, 64, 256)
NODES = (2, 3, 5)
COPIES = (1, 2, 3)
MADE = {1: 2_500, 8: 10_000, 64: 18_000, 256: 18_000}
"""The number of envelopes signed beforehand: more than a run uses."""
LAPSE_SECONDS = 6.0
"""With a holder frozen for so long, a node's own copies are too old to be answered without asking."""
READ = 1_000
"""The number of addresses that are read in turn."""

WANTED = {
    "2 nodes: put, 2 copies, 64 callers": 6_000.0,
    "5 nodes: put, 3 copies, 8 callers": 1_500.0,
    "5 nodes: put, 3 copies, 64 callers": 3_000.0,
    "5 nodes: get, newest of three, 8 callers": 4_000.0,
}


def run() -> list[Figure]:
    figures: list[Figure] = []
    for nodes in NODES:
        figures.extend(_at(nodes))
    return [*figures, *_all_at_once(), *_frozen("hybrid"), *_frozen("real")]


def _at(nodes: int) -> Iterator[Figure]:
    """Every load on one of `nodes` nodes."""
    for copies in (each for each in COPIES if each <= nodes):
        others = copies - 1
        settings: dict[str, Any] = {"replication": max(1, others), "write_quorum": max(1, others)}
        if not others:  # hints for the others are kept, and no call waits for them
            settings["backend"] = "mock"
        with fleet(nodes, read_quorum=min(2, nodes - 1), **settings) as members:
            one = members[0]
            _warm_up(one)
            if copies == 2 and nodes == 2:
                yield from _round_trips(one)
            for callers in CALLERS:
                yield from _put(one, nodes, copies, callers)
            if copies == min(3, nodes):
                one.do("make", count=READ, run="read")
                one.do("put", callers=64, seconds=60.0)
                _settle(members)
                yield from _gets(one, nodes)


def _warm_up(one: FleetNode) -> None:
    """Write until the write-ahead log has its full size on every disk: growing that file costs half a commit."""
    one.do("make", count=MADE[64], run="warm")
    one.do("put", callers=64, seconds=SECONDS)


def _round_trips(one: FleetNode) -> Iterator[Figure]:
    for callers in CALLERS:
        got = one.do("trip", callers=callers, seconds=SECONDS)
        what = f"2 nodes: stream round trip, {_by(callers)}"
        if callers == 1:
            yield _figure(f"{what}, p50", got["p50_ms"], "ms", Bound.AT_MOST, 0.4)
        yield _figure(what, got["rate"], "/s")


def _put(one: FleetNode, nodes: int, copies: int, callers: int) -> Iterator[Figure]:
    what = f"{nodes} nodes: put, {copies} {'copies' if copies > 1 else 'copy'}, {_by(callers)}"
    one.do("make", count=MADE[callers], run=f"c{callers}")
    got = one.do("put", callers=callers, seconds=SECONDS)
    yield from _calls(what, got)
    if callers == 1 and (nodes, copies) == (5, 3):
        yield _figure(f"{what}, p50", got["p50_ms"], "ms", Bound.AT_MOST, 2.0)
    # 201 means replicated, 202 stored on that node, which is one copy.
    facts = {"callers": callers, "seconds": SECONDS, "status": 202 if copies == 1 else 201}
    got = one.through_http("put", count=MADE[callers] // 3, run=f"h{callers}", **facts)
    yield from _calls(f"{what}, HTTP", got)


def _gets(one: FleetNode, nodes: int) -> Iterator[Figure]:
    for consistency, kind in (("auto", "of one"), ("swarm", f"newest of {min(3, nodes)}")):
        kind = "newest of three" if kind == "newest of 3" else kind
        for callers in CALLERS:
            what = f"{nodes} nodes: get, {kind}, {_by(callers)}"
            facts = {"run": "read", "count": READ, "consistency": consistency, "callers": callers, "seconds": SECONDS}
            yield from _calls(what, one.do("get", **facts))
            yield from _calls(f"{what}, HTTP", one.through_http("get", status=200, **facts))


def _all_at_once() -> Iterator[Figure]:
    with fleet(5, replication=2, write_quorum=2, read_quorum=2) as members:
        for number, member in enumerate(members):
            member.do("make", count=8_000, run=f"all{number}")
        for member in members:
            member.send("put", callers=16, seconds=SECONDS)
        answers = [member.answer() for member in members]
        together = {name: sum(answer[name] for answer in answers) for name in answers[0] if "_ms" not in name}
        what = "5 nodes: all putting at once, 3 copies, together"
        yield _figure(what, together["rate"], "/s", Bound.AT_LEAST, 2_000)
        yield from _not_as_asked(what, together)


def _frozen(backend: str) -> Iterator[Figure]:
    """The same load twice on one node of five: with all nodes well, and with one frozen in the middle."""
    with fleet(5, backend=backend, replication=20, write_quorum=2 if backend == "real" else 1) as members:
        one, frozen = members[0], members[-1]
        rounds: dict[str, tuple[dict[str, Any], ...]] = {}
        for name in ("well", "frozen"):
            one.do("make", count=8_000, run=name)
            one.send("put", callers=4, seconds=SECONDS, timeout=0.1 if backend == "hybrid" else 1.0)
            if name == "frozen":
                time.sleep(SECONDS / 3.0)
                frozen.freeze()
            puts = one.answer()
            if name == "frozen":
                time.sleep(LAPSE_SECONDS)
            facts = {"run": name, "count": 500, "consistency": "auto", "callers": 4, "seconds": SECONDS}
            rounds[name] = (
                puts,
                one.do("get", is_resolved=True, **facts),
                one.through_http("get", status=200, **facts),
                one.do("get", timeout=1.0, **facts),
            )
        frozen.thaw()
    for at, what in enumerate(("put", "get", "get through HTTP", "get at the DHT")):
        well, ill = rounds["well"][at], rounds["frozen"][at]
        ratio = ill["p99_ms"] / well["p99_ms"]
        bound, target = (Bound.AT_MOST, 2.0) if backend == "hybrid" else (Bound.NONE, None)
        name = f"one of five frozen, {backend}"
        yield _figure(f"{name}: {what} p99 over the same without", ratio, "x", bound, target)
        yield _figure(f"{name}: {what} p99", ill["p99_ms"], "ms")
        yield _figure(f"{name}: {what}: failed", ill["failed"], "", Bound.AT_MOST, 0)


def _calls(what: str, got: dict[str, Any]) -> Iterator[Figure]:
    target = WANTED.get(what)
    yield _figure(what, got["rate"], "/s", Bound.NONE if target is None else Bound.AT_LEAST, target)
    yield from _not_as_asked(what, got)


def _not_as_asked(what: str, got: dict[str, Any]) -> Iterator[Figure]:
    not_good = got["not_as_asked"] + got["failed"]
    if not_good:
        yield _figure(f"{what}: not as asked", 100.0 * not_good / (got["good"] + not_good), "%")


def _by(callers: int) -> str:
    return "1 caller" if callers == 1 else f"{callers} callers"


def _settle(members: list[FleetNode]) -> None:
    """Wait until no hints are left."""
    while any(member.do("state")["pending"] for member in members):
        pass


def _figure(what: str, value: float, unit: str, bound: Bound = Bound.NONE, target: float | None = None) -> Figure:
    return Figure(bench="swarm", what=what, value=value, unit=unit, bound=bound, target=target)
