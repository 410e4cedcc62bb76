"""Plays a plan in a world: clients call, faults come, all is healed, and the history says what happened.

Two phases. First the faults, for `faults_seconds`; then everything is healed, and the world has `settle_seconds` to
settle. At the end every key is read at every node once more. `checks` judges the history.
"""

import traceback
from collections import defaultdict
from math import inf

import trio

from netsim.faults.kinds import SlowLink
from netsim.history import History, Operation, RunParameters
from netsim.nemesis import Baseline, Nemesis
from netsim.scenario.model import Scenario
from netsim.scenario.plan import Plan
from netsim.workload import Call, key_names
from netsim.world import CallResult, DiskQuality, World
from protocols.policy.rtt import stretch

POLL_SECONDS = 0.25
SAMPLE_SECONDS = 0.5
LATE_SECONDS = 1.0
"""A client leaves out a call that it could not make for so long, as it waited for another one."""
RUNS_THROUGH = "runs-through"
"""The check that a run comes to its end: no node fails by itself, and no task waits or works for ever."""


class Run:
    """One plan in one world, once."""

    def __init__(self, plan: Plan, world: World, history: History) -> None:
        self._plan = plan
        self._world = world
        self._scenario = plan.scenario
        self._keys = key_names(plan.scenario.workload.keys)
        self._nemesis = Nemesis(world, history, _baseline(plan.scenario), ends_at=plan.scenario.limits.faults_seconds)
        self.history = history
        self._seen: dict[tuple[str, str], tuple[str, ...]] = {}
        """By client and key: the digests of the heads that the client saw or wrote last."""

    async def play(self) -> None:
        async with trio.open_nursery() as sampling:
            sampling.start_soon(self._sample_for_ever)
            async with trio.open_nursery() as nursery:
                for calls in self._by_client():
                    nursery.start_soon(self._run_client, calls)
                nursery.start_soon(self._play_faults)
                await self._world.sleep_until(self._scenario.limits.faults_seconds)
            await self._nemesis.heal()
            await self._settle()
            await self._read_everything()
            sampling.cancel_scope.cancel()

    async def _play_faults(self) -> None:
        async with trio.open_nursery() as nursery:
            for fault in self._plan.faults:
                nursery.start_soon(fault.play, self._nemesis)

    def _by_client(self) -> list[list[Call]]:
        calls: dict[str, list[Call]] = defaultdict(list)
        for call in self._plan.calls:
            calls[call.client].append(call)
        return list(calls.values())

    # -- clients ----------------------------------------------------------------------------------------------

    async def _run_client(self, calls: list[Call]) -> None:
        for call in calls:
            await self._world.sleep_until(call.at)
            is_absent = self._world.status(call.node).absence
            if not is_absent and self._world.now() - call.at <= LATE_SECONDS:
                await self._call(call)

    async def _call(self, call: Call, *, is_final: bool = False) -> None:
        world = self._world
        status = world.status(call.node)
        interruptions, disk = status.interruptions, status.disk
        flips, backend = len(status.flips), status.in_force
        called = world.now()
        result = await world.call(call, self._seen.get((call.client, call.key), ()))
        is_excused = status.interruptions != interruptions
        self._remember(call, result)
        self.history.operations.append(
            Operation(
                id=call.id,
                client=call.client,
                node=call.node,
                backend=status.backend_since(flips, backend),
                disk=disk,
                kind=call.kind,
                key=call.key,
                how=call.how,
                called=called,
                returned=world.now(),
                outcome=result.outcome,
                error=result.error,
                excused="its node was stopped or frozen meanwhile" if is_excused else "",
                is_final=is_final,
                receipt=result.receipt,
                answer=result.answer,
                digest=result.digest,
                node_seconds=result.node_seconds,
            )
        )

    def _remember(self, call: Call, result: CallResult) -> None:
        if result.receipt is not None:
            self._seen[call.client, call.key] = (result.receipt.digest,)
        elif result.answer is not None:
            self._seen[call.client, call.key] = tuple(head.digest for head in result.answer.heads)

    # -- the end ----------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Wait until the world has settled, or the bound is reached."""
        until = self._world.now() + self._scenario.limits.settle_seconds
        while self._world.now() < until:
            self.history.unsettled = await self._world.unsettled()
            if not self.history.unsettled:
                self.history.settled_at = self._world.now()
                return
            await self._world.sleep_until(self._world.now() + POLL_SECONDS)

    async def _read_everything(self) -> None:
        """Record the state of every node; then read every key at every node, which may repair what it finds."""
        nodes = [node for node in self._scenario.nodes if self._world.status(node).is_running]
        number = len(self._plan.calls)
        self.history.parameters.holders.update({key: self._world.holders(key) for key in self._keys})
        for node in nodes:
            self.history.states.append(await self._world.final_state(node))
        for node in nodes:
            for key in self._keys:
                number += 1
                call = Call(id=number, at=self._world.now(), client="end", node=node, kind="read", key=key, how="auto")
                await self._call(call, is_final=True)

    async def _sample_for_ever(self) -> None:
        while True:
            self.history.samples.append(self._world.sample())
            await self._world.sleep_until(self._world.now() + SAMPLE_SECONDS)


def parameters_of(plan: Plan) -> RunParameters:
    """What a checker must know of a plan."""
    scenario, settings = plan.scenario, plan.scenario.settings
    in_hybrid = float(str(settings.get("deadline_ms", 100))) / 1000.0
    otherwise = float(str(settings.get("real_deadline_ms", 1000))) / 1000.0
    return RunParameters(
        scenario=scenario.name,
        seed=plan.seed,
        nodes=scenario.nodes,
        replication=scenario.replication,
        deadline_seconds={"hybrid": in_hybrid, "real": stretch(otherwise, _round_trip(plan)), "mock": otherwise},
        freshness_seconds=float(str(settings.get("read_freshness_ms", 5000))) / 1000.0,
        faults_seconds=scenario.limits.faults_seconds,
        settle_seconds=scenario.limits.settle_seconds,
        tasks_per_node=scenario.limits.tasks_per_node,
        frames_per_link=scenario.limits.frames_per_link,
        store_deadline_seconds=float(str(settings.get("store_deadline_ms", 5000))) / 1000.0,
        has_fallback=settings.get("fallback_on_error") is not False,
        byzantine=scenario.byzantine,
        late=scenario.late,
    )


def error_text(error: Exception) -> str:
    """The error that ended a run, with its traceback."""
    cause = innermost(error)
    return f"the world ended by {type(cause).__name__}: {cause}\n{''.join(traceback.format_exception(cause))}"


def innermost(error: BaseException) -> BaseException:
    """The first exception inside exception groups, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _baseline(scenario: Scenario) -> Baseline:
    disk = DiskQuality(commit_ms=scenario.commit_ms)
    return Baseline(nodes=scenario.nodes, byzantine=scenario.byzantine, link=scenario.link, disk=disk)


def _round_trip(plan: Plan) -> float:
    """The longest round trip over the links of a plan, in seconds; infinite where frames are lost and sent again."""
    links = [plan.scenario.link, *(fault.quality for fault in plan.faults if isinstance(fault, SlowLink))]
    return max(inf if link.loss else 2.0 * (link.latency_ms + link.jitter_ms) / 1000.0 for link in links)
