"""A scenario and a seed make a plan: every call and every fault, with its time. Pure: the same plan in every world.

Calls come as a Poisson process shared out among the clients; a client that is still waiting when its next call is due
makes it late, or not at all (see `netsim/runner.py`). Faults that are drawn (`Chaos`) become ordinary ones here.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from netsim.scenario.model import Chaos, Fault, FaultKind, LinkQuality, Parents, Scenario, Workload

CONSISTENCIES = ("auto", "local", "swarm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that a client will make. `id` counts from 1 over the whole plan."""

    id: int
    at: float
    client: str
    node: str
    kind: str
    """write, delete or read"""
    key: str
    how: str
    """Of a write: `Parents`; of a read: the consistency."""
    size_bytes: int = 0

    @property
    def is_write(self) -> bool:
        return self.kind != "read"

    def content(self) -> bytes:
        """What it writes: tells which call it was, then filler."""
        return f"{self.client}/{self.id} ".encode().ljust(self.size_bytes, b".") if self.kind == "write" else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    scenario: Scenario
    seed: int
    calls: tuple[Call, ...]
    """By time."""
    faults: tuple[Fault, ...]
    """By time."""


def plan_of(scenario: Scenario, seed: int) -> Plan:
    """The plan of one run."""
    faults = [*scenario.faults]
    if scenario.chaos is not None:
        faults += _drawn(scenario, scenario.chaos, _chance(seed, "faults"))
    return Plan(
        scenario=scenario,
        seed=seed,
        calls=tuple(_calls(scenario, _chance(seed, "calls"))),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
    )


def _chance(seed: int, purpose: str) -> random.Random:
    return random.Random(f"{seed}/plan/{purpose}")


# -- the workload ---------------------------------------------------------------------------------------------------


def _calls(scenario: Scenario, rng: random.Random) -> Iterator[Call]:
    workload = scenario.workload
    nodes = workload.nodes or tuple(node for node in scenario.nodes if node not in scenario.liars)
    until = scenario.limits.faults_seconds if workload.until is None else workload.until
    weights = list(accumulate((number + 1) ** -workload.skew for number in range(workload.keys)))
    at, number = 0.0, 0
    while workload.calls_per_second:
        at += rng.expovariate(workload.calls_per_second)
        if at >= until:
            return
        number += 1
        client = rng.randrange(workload.clients)
        key = rng.choices(range(workload.keys), cum_weights=weights)[0]
        yield Call(
            id=number,
            at=at,
            client=f"c{client + 1}",
            node=nodes[client % len(nodes)],
            key=f"k{key + 1}",
            **_what(workload, rng, is_reader=client >= workload.clients - workload.readers),
        )


def _what(workload: Workload, rng: random.Random, *, is_reader: bool) -> dict[str, Any]:
    if rng.random() >= workload.writes or is_reader:
        return {"kind": "read", "how": _one_of(rng, (("local", workload.local), ("swarm", workload.swarm)), "auto")}
    how = _one_of(rng, ((Parents.SEEN, workload.seen), (Parents.NONE, workload.blind)), Parents.NODE)
    kind = "delete" if rng.random() < workload.deletes else "write"
    return {"kind": kind, "how": str(how), "size_bytes": rng.randint(*workload.size_bytes)}


def _one_of(rng: random.Random, shares: tuple[tuple[str, float], ...], rest: str) -> str:
    drawn = rng.random()
    for choice, share in shares:
        if drawn < share:
            return choice
        drawn -= share
    return rest


# -- drawn faults ---------------------------------------------------------------------------------------------------


def _drawn(scenario: Scenario, chaos: Chaos, rng: random.Random) -> Iterator[Fault]:
    """One after the other; what a node suffers from one kind ends before it suffers from that kind again."""
    nodes = [node for node in scenario.nodes if node not in scenario.liars]
    end = scenario.limits.faults_seconds
    free_at: dict[tuple[str, str], float] = {}
    at = 0.0
    while (at := at + rng.expovariate(1.0 / chaos.every_seconds)) < end:
        kind = rng.choice(chaos.kinds)
        fault = _draw(kind, nodes, at, min(end, at + rng.random() * chaos.longest_seconds + 0.05), rng)
        suffering = [(node, _family(kind)) for node in fault.nodes] or [("*", _family(kind))]
        if any(free_at.get(one, 0.0) >= at for one in suffering):
            continue
        free_at.update(dict.fromkeys(suffering, fault.until if fault.until is not None else end))
        yield fault


def _family(kind: FaultKind) -> str:
    """Kinds that cannot befall a node at the same time."""
    is_life = kind in (FaultKind.CRASH, FaultKind.RESTART, FaultKind.PAUSE)
    is_clock = kind in (FaultKind.CLOCK, FaultKind.JUMP)
    return "life" if is_life else "clock" if is_clock else str(kind)


def _draw(kind: FaultKind, nodes: list[str], at: float, until: float, rng: random.Random) -> Fault:
    fault = Fault(kind=kind, at=at, until=until)
    shuffled = rng.sample(nodes, len(nodes))
    few = tuple(sorted(shuffled[: rng.choice((1, 1, 1, 2))]))
    match kind:
        case FaultKind.PARTITION:
            cut = rng.randint(1, max(1, len(nodes) - 1))
            flaps = rng.choice((None, None, rng.uniform(0.2, 2.0)))
            groups = (tuple(sorted(shuffled[:cut])), tuple(sorted(shuffled[cut:])))
            return replace(fault, groups=tuple(group for group in groups if group), every_seconds=flaps)
        case FaultKind.CUT:
            return replace(fault, sources=few, targets=tuple(sorted(shuffled[2:4])), both_ways=rng.random() < 0.4)
        case FaultKind.LINK:
            quality = LinkQuality(
                latency_ms=rng.choice((0.5, 5.0, 40.0, 200.0)),
                jitter_ms=rng.choice((0.5, 20.0)),
                loss=rng.choice((0.0, 0.02, 0.2)),
                duplication=rng.choice((0.0, 0.1)),
                reordering=rng.choice((0.0, 0.2)),
            )
            return replace(fault, link=quality)
        case FaultKind.DISK:
            which = rng.randrange(4)
            return replace(
                fault,
                nodes=few,
                commit_ms=rng.choice((5.0, 50.0, 400.0)) if which < 2 else 0.0,
                is_full=which == 2,
                is_stalled=which == 3,
            )
        case FaultKind.CLOCK:
            return replace(fault, nodes=few, off_seconds=rng.choice((120.0, 31_536_000.0, -120.0, -30.0, 50.0, 5.0)))
        case FaultKind.JUMP:
            return replace(fault, nodes=few, until=None, off_seconds=rng.uniform(-90.0, 90.0))
        case _:
            return replace(fault, nodes=few)
