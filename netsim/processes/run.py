"""`bzzz sim live`: one plan, played by five real processes, judged by the checkers of every other world."""

import shlex
import signal
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from netsim.checks.latency import calls_due
from netsim.checks.registry import CHECKS, judge
from netsim.checks.violation import Violation
from netsim.demo.ledger import Spread
from netsim.history import History, Outcome
from netsim.processes.node import NodeProcessFailed
from netsim.processes.plan import ERRORS_MAX, SLACK_SECONDS, live_plan
from netsim.processes.screen import Screen
from netsim.processes.workload_client import NoAnswer
from netsim.processes.world import ProcessWorld
from netsim.report import told
from netsim.runner import RUNS_THROUGH, Run, in_words, setting_of
from netsim.scenario.plan import Plan

ENDS = "ends"
"""The check that every process ends when it is asked to, and leaves no port taken."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True, kw_only=True)
class ProcessRun:
    """One run: what is asked for, and what became of it."""

    seconds: float
    seed: int
    screen: Screen
    keep: bool = False
    history: History = field(init=False)
    broken: tuple[Violation, ...] = ()
    interrupted: int | None = None
    """The signal that ended it."""
    _plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        self._plan = live_plan(self.seconds, self.seed)
        setting = replace(
            setting_of(self._plan), slack_seconds=SLACK_SECONDS, errors_max=ERRORS_MAX, spreads_all=False,
            is_known_to_all=False,
        )  # fmt: skip
        self.history = History(setting=setting)

    @property
    def command(self) -> str:
        """What plays the same plan again."""
        return f"bzzz sim live --seconds {self.seconds:g} --seed {self.seed}"

    def play(self) -> int:
        """Run it, judge it, say so. The exit code: 0, or 1 when a check was broken; 128 and the signal's number."""
        began = time.monotonic()
        try:
            trio.run(self._until_interrupted)
        except Exception as error:
            cause = _innermost(error)
            words = str(cause) if isinstance(cause, NodeProcessFailed | NoAnswer) else in_words(error)
            self.broken += (Violation(check=RUNS_THROUGH, text=words),)
        if self.interrupted is None:
            self.broken += judge(self.history)
        return self._say(time.monotonic() - began)

    async def _until_interrupted(self) -> None:
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:

                async def listen() -> None:
                    async for number in signals:  # a second one waits until nothing is left
                        self.interrupted = self.interrupted or number
                        nursery.cancel_scope.cancel()

                nursery.start_soon(listen)
                await self._in_live_world()
                nursery.cancel_scope.cancel()

    async def _in_live_world(self) -> None:
        self.screen.chapter(f"Five nodes, {self.seconds:g} seconds of faults, seed {self.seed}", command=self.command)
        self.screen.act("start", "starting five nodes, and waiting until all have met")

        def note(kind: str, text: str) -> None:
            at = world.now()
            self.screen.note(f"{at:7.2f} s  {text}", at=round(at, 3), kind=kind)
            if kind == "heal":
                self.screen.act("settle", "waiting until nobody owes anything and all have the same heads")

        world: ProcessWorld
        opened: list[ProcessWorld] = []
        try:
            async with ProcessWorld.open(self._plan.scenario, note, keep=lambda: self.keep) as world:
                opened.append(world)
                self.screen.act("suffer", "nodes are frozen, killed, parted and turned, under calls")
                await Run(self._plan, world, self.history).play()
                if self.keep:
                    self._introduce(world)
        finally:
            for one in opened:
                if one.complaints:
                    self.broken += (Violation(check=ENDS, text="; ".join(one.complaints)),)

    def _introduce(self, world: ProcessWorld) -> None:
        """Say how to talk to what is kept, and how to end it."""
        path = Path(world.folder) / "history.jsonl"
        path.write_text("".join(f"{line}\n" for line in self.history.lines()), "utf-8")
        names = ", ".join(f"{node.name} {node.api}" for node in world.nodes)
        pids = " ".join(str(node.pid) for node in world.nodes)
        self.screen.note(
            f"The nodes still run: {names}\n"
            f"What happened is in {path}, what each node said in {world.folder}/<name>/node.log\n"
            f"End them and remove their data:  kill {pids}; rm -r {shlex.quote(world.folder)}",
            nodes=[{"name": node.name, "api": node.api, "pid": node.pid} for node in world.nodes],
            folder=world.folder,
        )

    # -- what is said of it -----------------------------------------------------------------------------------

    def _say(self, seconds: float) -> int:
        is_good = self.interrupted is None and not self.broken
        facts = live_facts(self.history)
        names = list(dict.fromkeys(one.check for one in self.broken))
        for name in (*CHECKS, RUNS_THROUGH, ENDS) if self.interrupted is None else ():
            count = sum(one.check == name for one in self.broken)
            self.screen.check(name, f"{name}: broken {count} times" if count else name, holds=not count, broken=count)
        if self.broken:
            self.screen.note(told("live", self.seed, self.history, self.broken, again=self.command))
        words = [_in_words(facts)]
        if self.interrupted is not None:
            words.append(f"interrupted ({signal.Signals(self.interrupted).name}); nothing was left behind")
        elif is_good:
            words.append(f"Every check held, after {seconds:.0f} s.")
        else:
            words.append(f"NOT every check held ({', '.join(names)}), after {seconds:.0f} s. Again: {self.command}")
        self.screen.summary(
            "\n".join(words), ok=is_good, interrupted=self.interrupted is not None, broken=names, seed=self.seed,
            seconds=round(seconds, 1), command=self.command, **facts,
        )  # fmt: skip
        return 128 + self.interrupted if self.interrupted is not None else 0 if is_good else 1


def live_facts(history: History) -> dict[str, Any]:
    """What a run was made of, in numbers. Hybrid calls: those issued in hybrid to nodes that nobody stopped; they
    are due an answer, unless they read what the node never showed. Milliseconds are its own, except at the client."""
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
        "hybrid_ms": Spread.of([op.seconds * 1000 for op in hybrid])._asdict(),
        "hybrid_at_the_client_ms": Spread.of([(op.returned - op.called) * 1000 for op in hybrid])._asdict(),
        "settle_seconds": None if settled is None or healed is None else round(settled - healed, 2),
    }


def _in_words(facts: dict[str, Any]) -> str:
    hybrid = Spread(**facts["hybrid_ms"])
    happened = ", ".join(f"{count} {kind}" for kind, count in facts["events"].items())
    failed = sum(facts["hybrid_failed"].values())
    lines = [f"{facts['calls']} calls, {facts['acknowledged']} writes acknowledged, under: {happened or 'nothing'}"]
    lines.append(
        f"{failed} of {hybrid.calls} hybrid calls at nodes that were left alone failed, {facts['due_failed']} of them "
        f"due an answer; at the node they took {hybrid}"
    )
    if facts["settle_seconds"] is not None:
        lines.append(f"all was well again {facts['settle_seconds']:.1f} s after healing")
    return "\n".join(lines)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
