"""Plays a scenario once in the virtual world, and checks every promise."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netsim.checks.registry import find_violations
from netsim.checks.violation import Violation
from netsim.history import History
from netsim.runner import RUNS_THROUGH, Run, error_text, parameters_of
from netsim.scenario.model import Scenario
from netsim.scenario.plan import Plan, plan_of
from netsim.virtual.scheduler import run_virtual
from netsim.virtual.trace import Trace
from netsim.virtual.world import VirtualWorld

SPARE_SECONDS = 600.0
"""Virtual time that a run may take beyond its phases, before it counts as stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """One run, checked. `trace` is empty unless it was asked for."""

    scenario: Scenario
    seed: int
    history: History
    violations: tuple[Violation, ...]
    trace: str = ""

    @property
    def unexpected(self) -> tuple[Violation, ...]:
        """The violations of checks that are not expected to fail."""
        return tuple(one for one in self.violations if one.check not in self.scenario.expected_to_fail)


def play(scenario: Scenario, seed: int, *, with_trace: bool = False) -> RunResult:
    """Run a scenario once in the virtual world, and check it."""
    limit = scenario.limits.faults_seconds + scenario.limits.settle_seconds + SPARE_SECONDS
    plan = plan_of(scenario, seed)
    history = History(parameters=parameters_of(plan))
    traces: list[Trace] = []
    violations: tuple[Violation, ...] = ()
    with _without_logs():
        try:
            run_virtual(seed, _in_virtual_world, plan, history, traces, limit_seconds=limit)
        except Exception as error:
            violations = (Violation(check=RUNS_THROUGH, text=error_text(error)),)
    violations += find_violations(history)
    trace = str(traces[0]) if with_trace and traces else ""
    return RunResult(scenario=scenario, seed=seed, history=history, violations=violations, trace=trace)


async def _in_virtual_world(plan: Plan, history: History, traces: list[Trace]) -> None:
    async with VirtualWorld.open(plan.scenario, plan.seed) as world:
        traces.append(world.trace)
        await Run(plan, world, history).play()


@contextmanager
def _without_logs() -> Iterator[None]:
    """Nodes under faults log much that says nothing of a failed run."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
