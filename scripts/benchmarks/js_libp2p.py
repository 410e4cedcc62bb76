"""Our nodes and js-libp2p's kad-dht at the same work, in one run: puts and gets of 256 bytes, by 1 and by 8 callers.

One process a node, 5 and 10 of them, all connected with all; the callers are on one node. k is 20 on both sides, so
every node holds everything. A put counts when every other node has taken the value: of js-libp2p when it echoed it,
which it keeps in memory; of ours when it has checked the signature and committed the envelope with synchronous FULL. A
get asks the swarm for the best value, whatever the node itself holds: js-libp2p every holder, ours `read_quorum` of
them. js-libp2p takes any value here: a check of ours in JavaScript would be its cost, and is not its own.

The same with the settings of a node that is only started: a put counts with two acknowledgements, the others follow.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.figures import Bound, Figure
from benchmarks.fleet import fleet
from benchmarks.js_node import JsNode
from benchmarks.js_packages import JsUnavailable, installed

NODES = (5, 10)
CALLERS = 8
SECONDS = 4.0
SIZE_BYTES = 256
READ = 100
"""The number of addresses that are read in turn."""
MADE = 4_000
"""The number of envelopes signed beforehand: more than a run uses."""
WAIT_SECONDS = 120.0
LOAD_SECONDS_MAX = 600.0
QUICKER_MIN = 8.0
MORE_MIN = 20.0

Results = dict[str, dict[str, Any]]
"""By what was done: 'put 1', 'put 8', 'get 1', 'get 8'; and 'rss', the bytes of each node."""


def run() -> list[Figure]:
    try:
        packages = installed()
    except JsUnavailable as error:
        print(f"not measured: {error}", file=sys.stderr)
        return []
    return [figure for nodes in NODES for figure in _at(nodes, packages)]


def _at(nodes: int, packages: Path) -> Iterator[Figure]:
    theirs = _theirs(nodes, packages)
    every = _ours(nodes, acknowledgements=nodes - 1)
    usual = _ours(nodes, acknowledgements=2)
    yield from _figures(f"{nodes} nodes, js-libp2p", theirs)
    yield from _figures(f"{nodes} nodes, ours, a put with every copy", every)
    yield from _figures(f"{nodes} nodes, ours, a put with 2 acknowledgements", usual)
    for kind in ("put", "get"):
        what = f"{nodes} nodes: {kind} p50 of js-libp2p over ours"
        yield _ratio(what, theirs[f"{kind} 1"]["p50_ms"] / every[f"{kind} 1"]["p50_ms"], QUICKER_MIN)
        what = f"{nodes} nodes: {kind}s a second of ours over js-libp2p, {CALLERS} callers"
        yield _ratio(what, every[f"{kind} {CALLERS}"]["rate"] / theirs[f"{kind} {CALLERS}"]["rate"], MORE_MIN)


def _figures(who: str, results: Results) -> Iterator[Figure]:
    for kind in ("put", "get"):
        for share in ("p50", "p95"):
            yield _figure(f"{who}: {kind} {share}, 1 caller", results[f"{kind} 1"][f"{share}_ms"], "ms")
        yield _figure(f"{who}: {kind}, {CALLERS} callers", results[f"{kind} {CALLERS}"]["rate"], "/s")
    bad = sum(each["not_as_asked"] + each["failed"] for name, each in results.items() if name != "rss")
    yield _figure(f"{who}: calls that failed or had too few copies", bad, "")
    yield _figure(f"{who}: memory of a node (RSS)", results["rss"]["mean"] / 1e6, "MB")


# -- js-libp2p --------------------------------------------------------------------------------------------------------


def _theirs(nodes: int, packages: Path) -> Results:
    with _js_fleet(nodes, packages) as members:
        one = members[0]
        facts: dict[str, Any] = {"copies": nodes - 1, "sizeBytes": SIZE_BYTES, "count": READ, "most": 1 << 30}
        _load(one, what="put", run="read", callers=CALLERS, seconds=LOAD_SECONDS_MAX, **facts | {"most": READ})
        results: Results = {}
        for what in ("put", "get"):
            for callers in (1, CALLERS):
                run = "read" if what == "get" else f"c{callers}"
                load = _load(one, what=what, run=run, callers=callers, seconds=SECONDS, **facts)
                results[f"{what} {callers}"] = load
        return results | {"rss": _memory(member.pid for member in members)}


def _load(one: JsNode, **facts: Any) -> dict[str, Any]:
    one.send("load", **facts)
    return one.answer(LOAD_SECONDS_MAX)


@contextmanager
def _js_fleet(nodes: int, packages: Path) -> Iterator[list[JsNode]]:
    """js-libp2p nodes that have each other in their routing tables."""
    with TemporaryDirectory(prefix="bzzz-bench-") as folder, ExitStack() as started:
        members: list[JsNode] = []
        for number in range(nodes):
            log = Path(folder, f"js{number}.log")
            member = JsNode(packages, seed=number.to_bytes(32, "big"), log=log, is_plain=True)
            started.callback(member.kill)
            for earlier in members:
                member.do("connect", address=earlier.address)
            members.append(member)

        _wait(lambda: all(_knows(member, nodes - 1) for member in members))
        yield members


def _knows(member: JsNode, others: int) -> bool:
    """Whether all others are in its routing table; on a busy machine one that was left out gets in by a query."""
    if len(member.do("table")["peers"]) == others:
        return True
    member.do("getClosestPeers", key="/ucxl/everybody")
    return False


# -- ours -------------------------------------------------------------------------------------------------------------


def _ours(nodes: int, *, acknowledgements: int) -> Results:
    with fleet(nodes, replication=20, write_quorum=acknowledgements, read_quorum=2) as members:
        one = members[0]
        one.do("make", count=READ, run="read")
        one.do("put", callers=CALLERS, seconds=60.0)
        results: Results = {}
        for callers in (1, CALLERS):
            one.do("make", count=MADE, run=f"c{callers}")
            results[f"put {callers}"] = one.do("put", callers=callers, seconds=SECONDS)
            _wait(lambda: not one.do("state")["pending"])
        for callers in (1, CALLERS):
            facts = {"run": "read", "count": READ, "consistency": "swarm", "callers": callers, "seconds": SECONDS}
            results[f"get {callers}"] = one.do("get", **facts)
        return results | {"rss": _memory(member.process.pid for member in members)}


# -- figures ----------------------------------------------------------------------------------------------------------


def _wait(condition: Callable[[], bool]) -> None:
    """Until the nodes have met, or have delivered every copy."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the nodes of a bench did not meet, or did not deliver their copies")
        time.sleep(0.05)


def _memory(pids: Iterator[int]) -> dict[str, Any]:
    return {"mean": mean(psutil.Process(pid).memory_info().rss for pid in pids)}


def _ratio(what: str, value: float, least: float) -> Figure:
    return Figure(bench="js_libp2p", what=what, value=value, unit="x", bound=Bound.AT_LEAST, target=least)


def _figure(what: str, value: float, unit: str) -> Figure:
    return Figure(bench="js_libp2p", what=what, value=value, unit=unit)
