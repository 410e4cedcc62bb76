"""The plan of a live run: the faults of five real processes and the calls of their clients, drawn from a seed. Pure.

The same seconds and seed give the same plan: which node is paused, killed, parted from which and flipped to which
backend, and when. The result depends on the machine too, so a failure that needs an exact moment may take a few tries.
"""

import random
from collections.abc import Iterator
from dataclasses import replace

from netsim.faults.base import Fault
from netsim.faults.kinds import Crash, Flip, Partition, Pause
from netsim.scenario.model import Scenario, ScenarioLimits
from netsim.scenario.plan import Plan, plan_of
from netsim.workload import Call, Parents, Workload

NODES = ("n1", "n2", "n3", "n4", "n5")
FLIP_CHANCES = {
    "hybrid": {"hybrid": 0.75, "mock": 0.125, "real": 0.125},
    "mock": {"mock": 0.3, "hybrid": 0.55, "real": 0.15},
    "real": {"real": 0.3, "hybrid": 0.55, "mock": 0.15},
}
"""By a node's backend: the chances of each backend for the next second. Mostly hybrid, which most checks are about."""
DRAWN_KINDS: tuple[type[Fault], ...] = (Pause, Crash, Partition)
"""The kinds that are drawn one after the other, beside the flips."""
SECONDS_MIN = 10.0
FAULT_SECONDS = 2.0
"""The mean time between the begins of two faults."""
FREEZE_SECONDS_MAX = 4.0
"""Shorter than the timeout of a client, which must get the answer of a node that was paused."""
START_SECONDS_MAX = 8.0
"""How long a killed node has no other fault, from the moment when it is started again."""
QUIET_SECONDS = 1.5
"""At the beginning and at the end no fault begins: a later one would only end with the healing."""
SLACK_SECONDS = 0.050
"""How much longer than its deadline a call may take on a machine that is not busy."""
DISK_SECONDS = 1.0
ERRORS_MAX = 0.001


def live_plan(seconds: float, seed: int) -> Plan:
    """Every call and every fault of one run. The writers begin by writing each key once, so that every node has
    something to read before the first fault."""
    plan = plan_of(live_scenario(seconds, seed), seed)
    workload = plan.scenario.workload
    writers = workload.clients - workload.readers
    first = (
        Call(
            id=0, at=QUIET_SECONDS * number / (2 * workload.keys), client=f"c{number % writers + 1}",
            node=NODES[number % writers], kind="write", key=f"k{number + 1}", how=Parents.NODE, size_bytes=50,
        )
        for number in range(workload.keys)
    )  # fmt: skip
    calls = sorted((*first, *plan.calls), key=lambda call: call.at)
    return replace(plan, calls=tuple(replace(call, id=number) for number, call in enumerate(calls, start=1)))


def live_scenario(seconds: float, seed: int) -> Scenario:
    """The scenario of one run, with `seconds` of faults (`SECONDS_MIN` at least)."""
    assert seconds >= SECONDS_MIN
    rng = random.Random(f"{seed}/live")
    faults = [*_flips(seconds, rng), *_faults(seconds, rng)]
    return Scenario(
        name="live",
        about="five processes that are paused, killed and parted, and flipped from backend to backend",
        nodes=NODES,
        workload=Workload(
            clients=9, readers=5, calls_per_second=180.0, writes=0.8, deletes=0.0, keys=60, skew=0.6, swarm=0.0
        ),
        limits=ScenarioLimits(faults_seconds=seconds, settle_seconds=90.0),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
    )


def _flips(seconds: float, rng: random.Random) -> Iterator[Fault]:
    """Every second at least one node is flipped, each to another backend than it has."""
    backends = dict.fromkeys(NODES, "hybrid")
    for second in range(2, int(seconds)):
        before = dict(backends)
        while backends == before:
            for node, backend in before.items():
                (backends[node],) = rng.choices([*FLIP_CHANCES[backend]], [*FLIP_CHANCES[backend].values()])
        for node, backend in backends.items():
            if backend != before[node]:
                yield Flip(at=float(second), nodes=(node,), backend=backend)


def _faults(seconds: float, rng: random.Random) -> Iterator[Fault]:
    """Each drawn kind in turn, in an order that is drawn each time. At most one partition at a time; and a node is not
    paused or killed before its last fault has ended."""
    free_at = dict.fromkeys(NODES, 0.0)
    parted_until = 0.0
    kinds: list[type[Fault]] = []
    at = QUIET_SECONDS + rng.random()
    while at < seconds - QUIET_SECONDS:
        if not kinds:
            kinds = rng.sample(DRAWN_KINDS, len(DRAWN_KINDS))
        kind = kinds.pop()
        until = min(seconds, at + rng.uniform(0.5, FREEZE_SECONDS_MAX))
        if kind is Partition:
            if parted_until <= at:
                parted_until = until
                yield Partition(at=at, until=until, groups=_groups(rng))
        elif free := [node for node in NODES if free_at[node] <= at]:
            nodes = tuple(sorted(rng.sample(free, min(len(free), rng.choice((1, 1, 2))))))
            rest = START_SECONDS_MAX if kind is Crash else 0.0
            free_at.update(dict.fromkeys(nodes, until + rest))
            yield kind(at=at, until=until, nodes=nodes)
        at += rng.uniform(0.5, 1.5) * FAULT_SECONDS


def _groups(rng: random.Random) -> tuple[tuple[str, ...], ...]:
    """Two sides, sometimes three. No side is empty."""
    shuffled = rng.sample(NODES, len(NODES))
    first = rng.randint(1, 3)
    sides = [shuffled[:first], shuffled[first:]]
    if len(sides[1]) > 2 and rng.random() < 0.3:
        sides[1:] = [sides[1][:1], sides[1][1:]]
    return tuple(tuple(sorted(side)) for side in sides)
