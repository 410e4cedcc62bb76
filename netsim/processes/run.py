"""One run of `bzzz sim live`: a plan that five real processes play, checked like a run of every other world."""

import shlex
import signal
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from netsim.checks.latency import calls_due
from netsim.checks.registry import CHECKS, find_violations
from netsim.checks.violation import Violation
from netsim.durations import DurationSummary
from netsim.history import History, Outcome
from netsim.history_file import history_lines
from netsim.processes.machine_load import machine_load
from netsim.processes.node import NodeProcessFailed
from netsim.processes.plan import DISK_SECONDS, ERRORS_MAX, SLACK_SECONDS, live_plan
from netsim.processes.screen import Screen
from netsim.processes.workload_client import NoAnswer
from netsim.processes.world import ProcessWorld
from netsim.report import failure_report
from netsim.runner import RUNS_THROUGH, Run, error_text, innermost, parameters_of
from netsim.scenario.plan import Plan

ENDS = "ends"
"""The check that every process ends when it is asked to, and leaves no port taken."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True, kw_only=True)
class ProcessRun:
    """One run: its arguments, and its results."""

    seconds: float
    seed: int
    screen: Screen
    keep: bool = False
    history: History = field(init=False)
    violations: tuple[Violation, ...] = ()
    interrupted: int | None = None
    """The signal that ended the run."""
    _plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        self._plan = live_plan(self.seconds, self.seed)
        parameters = replace(
            parameters_of(self._plan), slack_seconds=SLACK_SECONDS, disk_seconds=DISK_SECONDS, errors_max=ERRORS_MAX,
            spreads_all=False, is_known_to_all=False,
        )  # fmt: skip
        self.history = History(parameters=parameters)

    @property
    def command(self) -> str:
        """The command that plays the same plan again."""
        return f"bzzz sim live --seconds {self.seconds:g} --seed {self.seed}"

    def play(self) -> int:
        """Run, check, report. The exit code: 0, or 1 when a check was broken; 128 and the signal's number."""
        began = time.monotonic()
        try:
            trio.run(self._until_interrupted)
        except Exception as error:
            cause = innermost(error)
            text = str(cause) if isinstance(cause, NodeProcessFailed | NoAnswer) else error_text(error)
            self.violations += (Violation(check=RUNS_THROUGH, text=text),)
        if self.interrupted is None:
            slack_seconds = SLACK_SECONDS * machine_load()
            self.history.parameters = replace(self.history.parameters, slack_seconds=slack_seconds)
            self.violations += find_violations(self.history)
        return self._report(time.monotonic() - began)

    async def _until_interrupted(self) -> None:
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:

                async def listen() -> None:
                    async for number in signals:  # a second signal waits until nothing is left
                        self.interrupted = self.interrupted or number
                        nursery.cancel_scope.cancel()

                nursery.start_soon(listen)
                await self._in_process_world()
                nursery.cancel_scope.cancel()

    async def _in_process_world(self) -> None:
        self.screen.chapter(f"Five nodes, {self.seconds:g} seconds of faults, seed {self.seed}", command=self.command)
        self.screen.act("start", "starting five nodes, and waiting until all have met")

        def note(kind: str, text: str) -> None:
            at = world.now()
            self.screen.note(f"{at:7.2f} s  {text}", at=round(at, 3), kind=kind)
            if kind == "heal":
                self.screen.act("settle", "waiting until no hints are left and all nodes have the same heads")

        world: ProcessWorld
        opened: list[ProcessWorld] = []
        try:
            async with ProcessWorld.open(self._plan.scenario, note, keep=lambda: self.keep) as world:
                opened.append(world)
                self.screen.act("suffer", "nodes are paused, killed, parted and flipped, under calls")
                await Run(self._plan, world, self.history).play()
                if self.keep:
                    self._introduce(world)
        finally:
            for ended in opened:
                if ended.complaints:
                    self.violations += (Violation(check=ENDS, text="; ".join(ended.complaints)),)

    def _introduce(self, world: ProcessWorld) -> None:
        """Show how to use the nodes that are kept, and how to end them."""
        path = Path(world.folder) / "history.jsonl"
        path.write_text("".join(f"{line}\n" for line in history_lines(self.history)), "utf-8")
        names = ", ".join(f"{node.name} {node.api}" for node in world.nodes)
        pids = " ".join(str(node.pid) for node in world.nodes)
        self.screen.note(
            f"The nodes still run: {names}\n"
            f"The history is in {path}, the log of each node in {world.folder}/<name>/node.log\n"
            f"End them and remove their data:  kill {pids}; rm -r {shlex.quote(world.folder)}",
            nodes=[{"name": node.name, "api": node.api, "pid": node.pid} for node in world.nodes],
            folder=world.folder,
        )

    def _report(self, seconds: float) -> int:
        is_good = self.interrupted is None and not self.violations
        facts = live_facts(self.history)
        names = list(dict.fromkeys(one.check for one in self.violations))
        for name in (*CHECKS, RUNS_THROUGH, ENDS) if self.interrupted is None else ():
            count = sum(one.check == name for one in self.violations)
            self.screen.check(name, f"{name}: broken {count} times" if count else name, holds=not count, broken=count)
        if self.violations:
            self.screen.note(failure_report("live", self.seed, self.history, self.violations, replay=self.command))
        lines = [_facts_text(facts)]
        if self.interrupted is not None:
            lines.append(f"interrupted ({signal.Signals(self.interrupted).name}); nothing was left behind")
        elif is_good:
            lines.append(f"Every check held, after {seconds:.0f} s.")
        else:
            lines.append(f"NOT every check held ({', '.join(names)}), after {seconds:.0f} s. Again: {self.command}")
        self.screen.summary(
            "\n".join(lines), ok=is_good, interrupted=self.interrupted is not None, broken=names, seed=self.seed,
            seconds=round(seconds, 1), command=self.command, **facts,
        )  # fmt: skip
        return 128 + self.interrupted if self.interrupted is not None else 0 if is_good else 1


def live_facts(history: History) -> dict[str, Any]:
    """The numbers of a run. Hybrid calls: those that began in hybrid, at nodes that were neither stopped nor paused.
    They are due an answer, unless they read what the node never showed. Milliseconds are by the node's clock, except
    those at the client."""
    during = [op for op in history.operations if not op.is_final]
    hybrid = [op for op in during if op.backends[0] == "hybrid" and "real" not in op.backends and not op.excused]
    failed = [op for op in hybrid if op.outcome is not Outcome.OK]
    due = [op for op in calls_due(history) if not op.is_final]
    settled, healed = history.settled_at, history.healed_at
    return {
        "calls": len(during),
        "acknowledged": sum(op.is_write and op.outcome is Outcome.OK for op in during),
        "excused": sum(bool(op.excused) for op in during),
        "events": dict(Counter(event.kind for event in history.events)),
        "hybrid_calls": len(hybrid),
        "hybrid_failed": dict(Counter(op.error.partition(":")[0] for op in failed)),
        "due_calls": len(due),
        "due_failed": sum(op.outcome is not Outcome.OK for op in due),
        "allowed_late_ms": round(history.parameters.slack_seconds * 1000),
        "hybrid_ms": DurationSummary.of([op.seconds * 1000 for op in hybrid])._asdict(),
        "hybrid_at_the_client_ms": DurationSummary.of([(op.returned - op.called) * 1000 for op in hybrid])._asdict(),
        "settle_seconds": None if settled is None or healed is None else round(settled - healed, 2),
    }


def _facts_text(facts: dict[str, Any]) -> str:
    hybrid = DurationSummary(**facts["hybrid_ms"])
    events = ", ".join(f"{count} {kind}" for kind, count in facts["events"].items())
    failed = sum(facts["hybrid_failed"].values())
    lines = [f"{facts['calls']} calls, {facts['acknowledged']} writes acknowledged, under: {events or 'no faults'}"]
    lines.append(
        f"{failed} of {hybrid.calls} hybrid calls at nodes without a fault failed, {facts['due_failed']} of them due "
        f"an answer; at the node they took {hybrid}, and might be {facts['allowed_late_ms']} ms late on a machine so "
        "busy"
    )
    if facts["settle_seconds"] is not None:
        lines.append(f"all had settled {facts['settle_seconds']:.1f} s after healing")
    return "\n".join(lines)
