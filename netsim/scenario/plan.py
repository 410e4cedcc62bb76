"""A plan: every call and every fault of one run, with its time. A scenario and a seed make it.

Pure: the same plan in every world. Faults that chaos draws become ordinary ones here.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from netsim.faults.base import Draw, Fault
from netsim.scenario.model import Chaos, Scenario
from netsim.workload import Call, draw_calls


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
    callable_nodes = [node for node in scenario.nodes if node not in scenario.byzantine]
    ends_at = scenario.limits.faults_seconds
    calls_until = ends_at if scenario.workload.until is None else scenario.workload.until
    faults = [*scenario.faults]
    if scenario.chaos is not None:
        faults += _draw_faults(scenario.chaos, callable_nodes, ends_at, _chance(seed, "faults"))
    return Plan(
        scenario=scenario,
        seed=seed,
        calls=tuple(draw_calls(scenario.workload, callable_nodes, calls_until, _chance(seed, "calls"))),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
    )


def _chance(seed: int, purpose: str) -> random.Random:
    return random.Random(f"{seed}/plan/{purpose}")


def _draw_faults(chaos: Chaos, nodes: list[str], end: float, rng: random.Random) -> Iterator[Fault]:
    """Faults one after the other. A node's fault of one family ends before its next one of that family begins."""
    free_at: dict[tuple[str, str], float] = {}
    at = 0.0
    while (at := at + rng.expovariate(1.0 / chaos.every_seconds)) < end:
        kind = rng.choice(chaos.kinds)
        until = min(end, at + rng.random() * chaos.longest_seconds + 0.05)
        shuffled = rng.sample(nodes, len(nodes))
        few = tuple(sorted(shuffled[: rng.choice((1, 1, 1, 2))]))
        fault = kind.draw(Draw(at=at, until=until, nodes=tuple(shuffled), few=few, rng=rng))
        family = kind.family or kind.kind
        places = [(node, family) for node in fault.nodes] or [("*", family)]
        if any(free_at.get(place, 0.0) >= at for place in places):
            continue
        free_at.update(dict.fromkeys(places, fault.until if fault.until is not None else end))
        yield fault
