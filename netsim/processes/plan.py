"""What five real processes suffer, and what their clients do meanwhile: a scenario drawn from a seed. Pure.

The same seconds and seed give the same plan: who is frozen, killed, parted from whom and turned to which backend, and
when. What the processes make of it is up to the machine, so a failure that hangs on a moment may take a few tries.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from netsim.scenario.model import Fault, FaultKind, Parents, Scenario, ScenarioLimits, Workload
from netsim.scenario.plan import Call, Plan, plan_of

NODES = ("n1", "n2", "n3", "n4", "n5")
TURNS = {
    "hybrid": {"hybrid": 0.75, "mock": 0.125, "real": 0.125},
    "mock": {"mock": 0.3, "hybrid": 0.55, "real": 0.15},
    "real": {"real": 0.3, "hybrid": 0.55, "mock": 0.15},
}
"""What a node is turned to each second, or stays, by what it is: mostly hybrid, which is what is judged most."""
BLOWS = (FaultKind.PAUSE, FaultKind.CRASH, FaultKind.PARTITION)
KINDS = (*BLOWS, FaultKind.FLIP)
"""All that real processes suffer."""
SECONDS_MIN = 10.0
BLOW_SECONDS = 2.0
"""One blow after another, each lasting up to twice as long."""
FREEZE_SECONDS_MAX = 4.0
"""Shorter than the patience of a client, which is to hear what a thawed node answers."""
START_SECONDS_MAX = 8.0
"""How long a node that was killed is left alone from the moment when it is started again."""
QUIET_SECONDS = 1.5
"""At the beginning and at the end nothing is done to anybody: what began later would end with the healing alone."""
SLACK_SECONDS = 0.050
ERRORS_MAX = 0.001


def live_plan(seconds: float, seed: int) -> Plan:
    """Every call and every fault of one run. The writers begin by writing each key once, so that there is something to
    read everywhere before anything goes wrong."""
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
    """The scenario of one run, `seconds` of faults long (`SECONDS_MIN` at least)."""
    assert seconds >= SECONDS_MIN
    chance = random.Random(f"{seed}/live")
    faults = [*_flips(seconds, chance), *_blows(seconds, chance)]
    return Scenario(
        name="live",
        about="five processes, frozen, killed, parted and turned from backend to backend",
        nodes=NODES,
        workload=Workload(
            clients=9, readers=5, calls_per_second=180.0, writes=0.8, deletes=0.0, keys=60, skew=0.6, swarm=0.0
        ),
        limits=ScenarioLimits(faults_seconds=seconds, settle_seconds=90.0),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
    )


def unplayable(faults: Iterable[Fault]) -> str:
    """Which of these faults real processes cannot suffer, and what of it, or ''."""
    for number, fault in enumerate(faults, start=1):
        if fault.kind not in KINDS:
            return f"fault {number}, kind '{fault.kind}': real processes suffer {', '.join(KINDS)} alone"
        if fault.loses_disk:
            return f"fault {number}, loses_disk: a real process keeps its disk"
        if fault.kind is FaultKind.CRASH and fault.backend is not None:
            return f"fault {number}, backend '{fault.backend}': a real process is started as what it was"
    return ""


def _flips(seconds: float, chance: random.Random) -> Iterator[Fault]:
    """Every second one node at least is turned, each to another backend than it has."""
    backends = dict.fromkeys(NODES, "hybrid")
    for second in range(2, int(seconds)):
        before = dict(backends)
        while backends == before:
            for node, backend in before.items():
                (backends[node],) = chance.choices([*TURNS[backend]], [*TURNS[backend].values()])
        for node, backend in backends.items():
            if backend != before[node]:
                yield Fault(kind=FaultKind.FLIP, at=float(second), nodes=(node,), backend=backend)


def _blows(seconds: float, chance: random.Random) -> Iterator[Fault]:
    """Each kind in turn, in an order that is drawn anew each time; at most one partition at a time, and no node is
    frozen or killed that still suffers from the last time."""
    free_at = dict.fromkeys(NODES, 0.0)
    parted_until = 0.0
    kinds: list[FaultKind] = []
    at = QUIET_SECONDS + chance.random()
    while at < seconds - QUIET_SECONDS:
        if not kinds:
            kinds = chance.sample(BLOWS, len(BLOWS))
        kind = kinds.pop()
        until = min(seconds, at + chance.uniform(0.5, FREEZE_SECONDS_MAX))
        if kind is FaultKind.PARTITION:
            if parted_until <= at:
                parted_until = until
                yield Fault(kind=kind, at=at, until=until, groups=_groups(chance))
        elif free := [node for node in NODES if free_at[node] <= at]:
            nodes = tuple(sorted(chance.sample(free, min(len(free), chance.choice((1, 1, 2))))))
            rest = START_SECONDS_MAX if kind is FaultKind.CRASH else 0.0
            free_at.update(dict.fromkeys(nodes, until + rest))
            yield Fault(kind=kind, at=at, until=until, nodes=nodes)
        at += chance.uniform(0.5, 1.5) * BLOW_SECONDS


def _groups(chance: random.Random) -> tuple[tuple[str, ...], ...]:
    """Two sides, now and then three: no side is empty."""
    shuffled = chance.sample(NODES, len(NODES))
    first = chance.randint(1, 3)
    sides = [shuffled[:first], shuffled[first:]]
    if len(sides[1]) > 2 and chance.random() < 0.3:
        sides[1:] = [sides[1][:1], sides[1][1:]]
    return tuple(tuple(sorted(side)) for side in sides)
