"""Kademlia: what lookups cost in swarms of up to 10,000 nodes, with dead peers, under churn and among liars.

On virtual time, in one thread: requests and answers take 20 to 80 ms each, a dead peer never answers. Only the memory
is that of this process.
"""

import gc
from collections.abc import Iterator
from dataclasses import replace

import psutil

from benchmarks.figures import Bound, Figure
from netsim.kademlia.measure import MeasuredLookups, Measurement
from netsim.kademlia.replicas import ReplicaSwarm
from netsim.kademlia.swarm import LookupLie
from protocols.kademlia.lookup import LookupOptions

SEED = 1
SIZES = (100, 1_000, 10_000)
JOINED_MAX = 1_000
"""Larger swarms get tables as joins would have made them, drawn at random: to let 10,000 join takes many minutes."""
KEYS = 50
GETS, SEARCHES = 1_000, 500
HOPS_MAX = 4.0
DEAD = ((0.1, None), (0.3, 99.0), (0.5, None))
"""A share of dead peers, and the wanted success in per cent."""
CHURN_NODES, CHURN_MINUTES, SESSION_MINUTES = 500, 20, 60.0
REPLICA_NODES, REPLICA_KEYS, VERSION_BYTES = 60, 150, 1024
"""Each node holds 50 of the keys, as 20 nodes do each key; the figures are for a hundred keys a node."""
REPLICA_CHURN = ((60.0, 60), (720.0, 120))
"""The mean length of a session, and for how long nodes come and go, in minutes."""
LIARS = (0.1, 0.3)
PATHS = (1, 2, 4)


def run() -> list[Figure]:
    figures: list[Figure] = []
    for size in SIZES:
        figures.extend(_sized(size))
    figures.extend(_churn())
    figures.extend(_replicas())
    return figures


def _sized(size: int) -> Iterator[Figure]:
    gc.collect()
    before = psutil.Process().memory_info().rss
    swarm = Measurement(SEED, size, keys=KEYS, joined=size <= JOINED_MAX)
    swarm.freeze()
    name = f"{size:,} nodes"
    kib = (psutil.Process().memory_info().rss - before) / 1024 / size
    yield _figure(f"{name}: memory a node", kib, "KiB", most=4 * 1024 * 1024 / SIZES[-1])
    sizes = swarm.table_sizes()
    yield _figure(f"{name}: contacts a node", sum(sizes) / len(sizes), "")
    gets, searches = swarm.get(GETS), swarm.find_nearest(SEARCHES)
    yield from _lookups(f"{name}: a value", gets, success=99.9)
    yield from _lookups(f"{name}: the 20 nearest", searches, success=99.9, hops=HOPS_MAX)
    if size == JOINED_MAX:
        yield from _liars(swarm, name)
    gone = 0.0
    for share, success in DEAD:
        swarm.kill((share - gone) / (1.0 - gone))
        gone = share
        dead = f"{name}, {100 * share:.0f} % dead"
        yield from _lookups(f"{dead}: a value", swarm.get(GETS), success=success)
        yield from _lookups(f"{dead}: the 20 nearest", swarm.find_nearest(SEARCHES), success=success)


def _liars(swarm: Measurement, name: str) -> Iterator[Figure]:
    for lie in LookupLie:
        for share in LIARS:
            swarm.corrupt(share, lie)
            for paths in PATHS:
                kind = "name each other" if lie is LookupLie.ACCOMPLICES else "make up peers"
                what = f"{name}, {100 * share:.0f} % {kind}, {paths} path{'s' if paths > 1 else ''}: a value"
                yield from _lookups(what, swarm.get(GETS // 2, LookupOptions(paths=paths)))
    swarm.corrupt(0.0, LookupLie.ACCOMPLICES)


def _churn() -> Iterator[Figure]:
    swarm = Measurement(SEED, CHURN_NODES, keys=0, joined=True)
    sent, began = swarm.messages, swarm.now
    found = swarm.churn(CHURN_MINUTES, session_minutes=SESSION_MINUTES, lookups=20)
    name = f"{CHURN_NODES} nodes, each for {SESSION_MINUTES:.0f} min"
    yield from _lookups(f"{name}: the 20 nearest", found)
    hours = (swarm.now - began) / 3600.0
    yield _figure(f"{name}: messages a node and hour", (swarm.messages - sent) / CHURN_NODES / hours, "")


def _replicas() -> Iterator[Figure]:
    """What it costs to keep 20 replicas of each key alive: of a node that holds a hundred keys with a version each."""
    for session_minutes, minutes in REPLICA_CHURN:
        swarm = ReplicaSwarm(SEED, REPLICA_NODES, keys=REPLICA_KEYS, version_bytes=VERSION_BYTES)
        before = replace(swarm.traffic)
        swarm.churn(minutes, session_minutes=session_minutes)
        missing, lost = swarm.missing()
        share = REPLICA_NODES * minutes / 60.0 * (REPLICA_KEYS * swarm.replication / REPLICA_NODES / 100.0) * 1024.0
        name = f"{REPLICA_NODES} nodes, each for {session_minutes / 60.0:.0f} h, 100 keys of 1 KiB a node"
        content = (swarm.traffic.content_bytes - before.content_bytes) / share
        questions = (swarm.traffic.question_bytes - before.question_bytes) / share
        yield _figure(f"{name}: copies sent a node and hour", content, "KiB")
        yield _figure(f"{name}: questions and answers a node and hour", questions, "KiB")
        yield _figure(f"{name}: replicas missing then", 100.0 * missing / (REPLICA_KEYS * swarm.replication), "%")
        yield _figure(f"{name}: keys lost", lost, "", most=0.0)


def _lookups(
    what: str, found: MeasuredLookups, *, success: float | None = None, hops: float | None = None
) -> Iterator[Figure]:
    yield _figure(f"{what}: found", found.success_percent, "%", least=success)
    yield _figure(f"{what}: hops, p50", found.hops(0.5), "", most=hops)
    yield _figure(f"{what}: hops, p99", found.hops(0.99), "")
    yield _figure(f"{what}: requests, p50", found.requests(0.5), "")
    yield _figure(f"{what}: requests, p99", found.requests(0.99), "", most=LookupOptions().requests_max)
    yield _figure(f"{what}: time, p50", found.seconds(0.5), "s")
    yield _figure(f"{what}: time, p99", found.seconds(0.99), "s", most=LookupOptions().seconds_max)


def _figure(what: str, value: float, unit: str, *, least: float | None = None, most: float | None = None) -> Figure:
    bound = Bound.AT_LEAST if least is not None else Bound.AT_MOST if most is not None else Bound.NONE
    target = most if least is None else least
    return Figure(bench="kademlia", what=what, value=value, unit=unit, bound=bound, target=target)
