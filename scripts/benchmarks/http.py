"""The HTTP API of one node of three: puts through kept connections, many callers against fewer, reads beside writes.

The kept connections give 5 seconds to each put, as the callers in process do; the others have the usual deadline.
Every load is run several times in turns, and medians are given: a machine that is slow for a moment is slow for all.
With the folder of another checkout the nodes of that one run in the same turns, and the figures are ratios, too.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Bound, Figure
from benchmarks.fleet import FleetNode, fleet

SECONDS = 2.0
ROUNDS = 3
KEPT = 16
MANY, FEWER = 256, 64
READS = 500
"""Addresses that are read in turn."""


def run(against: Path | None = None) -> list[Figure]:
    """`against` is another checkout, with a `.venv` of its own (its `./scripts/bootstrap bench` makes it)."""
    with ExitStack() as stack:
        own = stack.enter_context(_three(None))[0]
        others = [stack.enter_context(_three(against))[0]] if against is not None else []
        for node in (own, *others):
            node.do("make", count=18_000, run="warm")  # until the write-ahead log has its full size
            node.do("put", callers=64, seconds=SECONDS)
        return [*_kept(own, others), *_many(own), *_beside_writes(own)]


def _three(checkout: Path | None) -> AbstractContextManager[list[FleetNode]]:
    return fleet(3, checkout=checkout, replication=2, write_quorum=2, read_quorum=2)


def _kept(own: FleetNode, others: list[FleetNode]) -> Iterator[Figure]:
    """16 kept connections: rates, the CPU time that the API adds to a put, and both against the other checkout."""
    rounds: dict[str, list[dict[str, Any]]] = {"put": [], "write": [], "plain": [], "other": []}
    for number in range(ROUNDS):
        for other in others:
            rounds["other"].append(_puts(other, KEPT, f"other{number}", do="write", timeout_ms=5_000))
        rounds["put"].append(_puts(own, KEPT, f"kept{number}", timeout_ms=5_000))
        rounds["write"].append(_puts(own, KEPT, f"signed{number}", do="write", timeout_ms=5_000))
        own.do("make", count=10_000, run=f"plain{number}")
        rounds["plain"].append(own.do("put", callers=KEPT, seconds=SECONDS))
    what = f"3 nodes: put through HTTP, 3 copies, {KEPT} kept connections"
    yield _figure(f"{what}, signed beforehand", _median(rounds["put"], "rate"), "/s", Bound.AT_LEAST, 1_000.0)
    yield _figure(f"{what}, signed by the node", _median(rounds["write"], "rate"), "/s")
    api_ms = _median(rounds["put"], "node_cpu_ms") - _median(rounds["plain"], "cpu_ms")
    yield _figure("the API's own time in the node, a put", api_ms, "ms")
    if others:  # signed by the node: the other checkout may know another format of envelopes
        for name, words in (("rate", "rate"), ("node_cpu_ms", "the node's time a put")):
            ratio = _median(rounds["write"], name) / _median(rounds["other"], name)
            yield _figure(f"{what}, signed by the node: {words} over that of the other checkout", ratio, "x")


def _many(own: FleetNode) -> Iterator[Figure]:
    """Many callers get at least as many puts acknowledged in time as fewer do."""
    rounds: dict[int, list[dict[str, Any]]] = {FEWER: [], MANY: []}
    for number in range(ROUNDS):
        for callers, results in rounds.items():
            results.append(_puts(own, callers, f"by{callers}in{number}", seconds=2 * SECONDS))
    for callers, results in rounds.items():
        yield _figure(f"3 nodes: put through HTTP, 3 copies, {callers} callers", _median(results, "rate"), "/s")
        for status, meaning in (("202", "stored here, late for the others"), ("503", "refused at once")):
            share = _median([_share(each, status) for each in results], status)
            yield _figure(f"the same: {meaning}", share, "%")
    ratio = _median(rounds[MANY], "rate") / _median(rounds[FEWER], "rate")
    yield _figure(f"acknowledged puts of {MANY} callers over those of {FEWER}", ratio, "x", Bound.AT_LEAST, 1.0)


def _share(result: dict[str, Any], status: str) -> dict[str, float]:
    statuses = result["statuses"]
    return {status: 100.0 * statuses.get(status, 0) / max(1, sum(statuses.values()))}


def _beside_writes(own: FleetNode) -> Iterator[Figure]:
    """Reads and probes while many callers write."""
    own.through_http("put", count=READS, run="read", callers=KEPT, seconds=60.0, status=201)
    for do, what in (("get", "get of what is held"), ("health", "/health")):
        facts = {"run": "read", "count": READS, "consistency": "local", "callers": 4, "status": 200}
        puts = own.http_callers("put", count=16_000, run=f"beside{do}", callers=MANY, seconds=2 * SECONDS, status=201)
        with puts, own.http_callers(do, seconds=SECONDS, **facts) as reads:
            puts.go()
            reads.go()
            got = reads.result()
            puts.result()
        name = f"3 nodes: {what} through HTTP beside {MANY} callers that put"
        yield _figure(f"{name}: p99", got["p99_ms"] or float("inf"), "ms")
        yield _figure(f"{name}: failed", got["failed"] + got["not_as_asked"], "", Bound.AT_MOST, 0)


def _puts(
    node: FleetNode, callers: int, run: str, *, do: str = "put", seconds: float = SECONDS, **facts: Any
) -> dict[str, Any]:
    facts = {"count": int(seconds * 4_000), "run": run, "callers": callers, "seconds": seconds, "status": 201, **facts}
    return node.through_http(do, **facts)


def _median(results: list[dict[str, Any]], name: str) -> float:
    return float(median(result[name] for result in results))


def _figure(what: str, value: float, unit: str, bound: Bound = Bound.NONE, target: float | None = None) -> Figure:
    return Figure(bench="http", what=what, value=value, unit=unit, bound=bound, target=target)
