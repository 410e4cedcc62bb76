"""Plays a plan in a world: clients call, faults come, all is healed, and the history says what happened.

Two phases. First the faults, for `faults_seconds`; then everything is healed, and the world has `settle_seconds` to be
well again. At the end every node is read once more and looked into. What it all means is for `checks` to say.
"""

import logging
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from netsim.checks.registry import judge
from netsim.checks.violation import Violation
from netsim.faults import Nemesis
from netsim.history import History, Operation, Setting
from netsim.scenario.model import Scenario
from netsim.scenario.plan import Call, Plan, plan_of
from netsim.virtual.scheduler import run_virtual
from netsim.virtual.trace import Trace
from netsim.virtual.world import VirtualWorld
from netsim.world import CallResult, World
from protocols.policy.rtt import stretch

POLL_SECONDS = 0.25
SAMPLE_SECONDS = 0.5
LATE_SECONDS = 1.0
"""A client that could not make a call for so long, as it waited for another one, leaves it out."""
RUNS_THROUGH = "runs-through"
"""The check that a world comes to its end at all: no node fails by itself, and none waits or works for ever."""
SPARE_SECONDS = 600.0
"""Virtual time that a run may take beyond its phases, before it counts as stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One run, judged. `trace` is empty unless it was asked for."""

    scenario: Scenario
    seed: int
    history: History
    broken: tuple[Violation, ...]
    trace: str = ""

    @property
    def unexpected(self) -> tuple[Violation, ...]:
        """What was broken, and is not expected to be."""
        return tuple(one for one in self.broken if one.check not in self.scenario.expected_to_fail)


def play(scenario: Scenario, seed: int, *, with_trace: bool = False) -> Played:
    """Run a scenario once in the virtual world, and judge it."""
    limit = scenario.limits.faults_seconds + scenario.limits.settle_seconds + SPARE_SECONDS
    plan = plan_of(scenario, seed)
    history = History(setting=setting_of(plan))
    traces: list[Trace] = []
    broken: tuple[Violation, ...] = ()
    with _quiet():
        try:
            run_virtual(seed, _in_virtual_world, plan, history, traces, limit_seconds=limit)
        except Exception as error:
            broken = (Violation(check=RUNS_THROUGH, text=in_words(error)),)
    trace = str(traces[0]) if with_trace and traces else ""
    return Played(scenario=scenario, seed=seed, history=history, broken=broken + judge(history), trace=trace)


async def _in_virtual_world(plan: Plan, history: History, traces: list[Trace]) -> None:
    async with VirtualWorld.open(plan.scenario, plan.seed) as world:
        traces.append(world.trace)
        await Run(plan, world, history).play()


@contextmanager
def _quiet() -> Iterator[None]:
    """What nodes log while they suffer is not what a failed run is told by."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def in_words(error: Exception) -> str:
    """The error that ended a world, with where it came from."""
    innermost: BaseException = error
    while isinstance(innermost, BaseExceptionGroup):
        innermost = innermost.exceptions[0]
    lines = traceback.format_exception(innermost)
    return f"the world ended by {type(innermost).__name__}: {innermost}\n{''.join(lines)}"


class Run:
    """One plan, one world, once."""

    def __init__(self, plan: Plan, world: World, history: History) -> None:
        self._plan = plan
        self._world = world
        self._scenario = plan.scenario
        self.history = history
        self._seen: dict[tuple[str, str], tuple[str, ...]] = {}
        """By client and key: the digests of the heads it saw or wrote last."""

    async def play(self) -> None:
        nemesis = Nemesis(self._world, self._scenario, self.history)
        async with trio.open_nursery() as watching:
            watching.start_soon(self._sample_for_ever)
            async with trio.open_nursery() as nursery:
                for calls in self._by_client():
                    nursery.start_soon(self._client, calls)
                nursery.start_soon(nemesis.run, self._plan.faults)
                await self._world.sleep_until(self._scenario.limits.faults_seconds)
            await nemesis.heal()
            await self._settle()
            await self._look_round()
            watching.cancel_scope.cancel()

    def _by_client(self) -> list[list[Call]]:
        calls: dict[str, list[Call]] = defaultdict(list)
        for call in self._plan.calls:
            calls[call.client].append(call)
        return list(calls.values())

    # -- clients ----------------------------------------------------------------------------------------------

    async def _client(self, calls: list[Call]) -> None:
        for call in calls:
            await self._world.sleep_until(call.at)
            is_absent = self._world.condition(call.node).absence
            if not is_absent and self._world.now() - call.at <= LATE_SECONDS:
                await self._call(call)

    async def _call(self, call: Call, *, is_final: bool = False) -> None:
        world = self._world
        condition = world.condition(call.node)
        interruptions, disk = condition.interruptions, condition.disk
        turn, backend = len(condition.turns), condition.in_force
        called = world.now()
        answer = await world.call(call, self._seen.get((call.client, call.key), ()))
        is_excused = condition.interruptions != interruptions
        self._learn(call, answer)
        self.history.operations.append(
            Operation(
                id=call.id,
                client=call.client,
                node=call.node,
                backend=condition.backend_since(turn, backend),
                disk=disk,
                kind=call.kind,
                key=call.key,
                how=call.how,
                called=called,
                returned=world.now(),
                outcome=answer.outcome,
                error=answer.error,
                excused="its node was stopped or frozen meanwhile" if is_excused else "",
                is_final=is_final,
                receipt=answer.receipt,
                sight=answer.sight,
                digest=answer.digest,
                took=answer.took,
            )
        )

    def _learn(self, call: Call, answer: CallResult) -> None:
        if answer.receipt is not None:
            self._seen[call.client, call.key] = (answer.receipt.digest,)
        elif answer.sight is not None:
            self._seen[call.client, call.key] = tuple(head.digest for head in answer.sight.heads)

    # -- the end ----------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Wait until all is well, or the bound is reached."""
        until = self._world.now() + self._scenario.limits.settle_seconds
        while self._world.now() < until:
            self.history.unsettled = await self._world.unsettled()
            if not self.history.unsettled:
                self.history.settled_at = self._world.now()
                return
            await self._world.sleep_until(self._world.now() + POLL_SECONDS)

    async def _look_round(self) -> None:
        """All nodes are opened up; then every key is read at every node, which may repair what it finds."""
        nodes = [node for node in self._scenario.nodes if self._world.condition(node).is_running]
        number = len(self._plan.calls)
        keys = [f"k{key}" for key in range(1, self._scenario.workload.keys + 1)]
        self.history.setting.holders.update({key: self._world.holders(key) for key in keys})
        for node in nodes:
            self.history.states.append(await self._world.look(node))
        for node in nodes:
            for key in keys:
                number += 1
                call = Call(id=number, at=self._world.now(), client="end", node=node, kind="read", key=key, how="auto")
                await self._call(call, is_final=True)

    async def _sample_for_ever(self) -> None:
        while True:
            self.history.samples.append(self._world.sample())
            await self._world.sleep_until(self._world.now() + SAMPLE_SECONDS)


def _round_trip(scenario: Scenario) -> float:
    """What one takes over the slowest links that there are in a scenario, in seconds."""
    links = [scenario.link, *(fault.link for fault in scenario.faults)]
    return max(2.0 * (link.latency_ms + link.jitter_ms) / 1000.0 for link in links)


def setting_of(plan: Plan) -> Setting:
    """What a checker must know of a plan."""
    scenario, settings = plan.scenario, plan.scenario.settings
    in_hybrid = float(str(settings.get("deadline_ms", 100))) / 1000.0
    otherwise = float(str(settings.get("real_deadline_ms", 1000))) / 1000.0
    return Setting(
        scenario=scenario.name,
        seed=plan.seed,
        nodes=scenario.nodes,
        replication=scenario.replication,
        deadline_seconds={"hybrid": in_hybrid, "real": stretch(otherwise, _round_trip(scenario)), "mock": otherwise},
        freshness_seconds=float(str(settings.get("read_freshness_ms", 5000))) / 1000.0,
        faults_seconds=scenario.limits.faults_seconds,
        settle_seconds=scenario.limits.settle_seconds,
        tasks_per_node=scenario.limits.tasks_per_node,
        frames_per_link=scenario.limits.frames_per_link,
        has_fallback=settings.get("fallback_on_error") is not False,
        liars=scenario.liars,
        late=scenario.late,
    )
