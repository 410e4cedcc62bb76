"""Faults over time: brings each of a plan's upon a world, takes it back, and at last heals everything.

Faults may overlap. Cuts are counted, so that a link is whole again when the last of them ends; of links and disks that
two faults want to be different, the later fault has its way, and the earlier one again after it.

*Pause* models a machine that others cannot hear (a stopped process, a long collection of garbage, a power cut of its
switch): connections stay, frames wait, nobody calls it, and calls under way are excused. It does not stop the node's
own tasks, whose timers go on: a process that really stands still is for the world of real processes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product

import trio

from netsim.history import Event, History, Opened
from netsim.scenario.model import Fault, FaultKind, LinkQuality, Scenario
from netsim.world import World


class Nemesis:
    """Brings faults upon one world; what it does is written into `history`."""

    def __init__(self, world: World, scenario: Scenario, history: History) -> None:
        self._world = world
        self._scenario = scenario
        self._history = history
        self._cuts: Counter[tuple[str, str]] = Counter()
        self._links: list[Fault] = []
        self._disks: list[Fault] = []
        self._gone: dict[str, None] = {}
        """Those that not even healing brings back."""

    async def run(self, faults: Iterable[Fault]) -> None:
        """Each at its time; ends when all have ended that end by themselves."""
        async with trio.open_nursery() as nursery:
            for fault in faults:
                nursery.start_soon(self._play, fault)

    async def heal(self) -> None:
        """Nothing is wrong any more, whatever was; who is down comes back."""
        world, scenario = self._world, self._scenario
        for pair in self._cuts:
            world.mend(*pair)
        self._cuts.clear()
        self._links.clear()
        self._set_links()
        self._disks.clear()
        for node in scenario.nodes:
            self._set_disk(node)
            world.resume(node)
            world.mend_clock(node)
        for liar in scenario.liars:
            await world.end_lying(liar)
        for node in scenario.nodes:
            if node not in self._gone and node not in scenario.liars:
                await self._start(node)
                if world.condition(node).in_force != world.condition(node).backend:
                    await self._flip(node, world.condition(node).backend)
        self._say("heal", scenario.nodes, "everything was healed")
        self._history.healed_at = world.now()

    # -- one fault --------------------------------------------------------------------------------------------

    async def _play(self, fault: Fault) -> None:
        await self._world.sleep_until(fault.at)
        if fault.kind is FaultKind.PARTITION and fault.every_seconds is not None:
            await self._flap(fault, fault.every_seconds)
        elif fault.every_seconds is not None:
            await self._one_by_one(fault, fault.every_seconds)
        else:
            for node in fault.nodes or ("",):
                await self._begin(fault, node)
            if fault.until is not None:
                await self._world.sleep_until(fault.until)
                for node in fault.nodes or ("",):
                    await self._end(fault, node)

    async def _flap(self, fault: Fault, every_seconds: float) -> None:
        until = self._scenario.limits.faults_seconds if fault.until is None else fault.until
        at = fault.at
        while at < until:
            await self._begin(fault, "")
            await self._world.sleep_until(min(until, at + every_seconds / 2))
            await self._end(fault, "")
            at += every_seconds
            await self._world.sleep_until(min(until, at))

    async def _one_by_one(self, fault: Fault, every_seconds: float) -> None:
        """The same for one node after the other; each time as long as it would be for all."""
        async with trio.open_nursery() as nursery:
            for number, node in enumerate(fault.nodes):
                nursery.start_soon(self._one, fault, node, number * every_seconds)

    async def _one(self, fault: Fault, node: str, later: float) -> None:
        await self._world.sleep_until(fault.at + later)
        await self._begin(fault, node)
        if fault.until is not None:
            await self._world.sleep_until(fault.until + later)
            await self._end(fault, node)

    async def _begin(self, fault: Fault, node: str) -> None:
        world = self._world
        match fault.kind:
            case FaultKind.CRASH | FaultKind.RESTART:
                await self._take_down(fault, node)
            case FaultKind.PAUSE:
                if world.condition(node).absence == "":
                    world.pause(node)
                    self._say("pause", (node,), f"{node} froze")
            case FaultKind.PARTITION:
                self._cut(_parted(fault))
                groups = " from ".join("+".join(group) for group in fault.groups)
                self._say("partition", _all(fault.groups), f"{groups} were parted" if len(fault.groups) > 1 else groups)
            case FaultKind.CUT:
                self._cut(_one_way(fault))
                how = "cut from" if fault.both_ways else "no longer heard by"
                self._say(
                    "cut",
                    _all((fault.sources, fault.targets)),
                    f"{_and(fault.sources)} was {how} {_and(fault.targets)}",
                )
            case FaultKind.LINK:
                self._links.append(fault)
                self._set_links()
                self._say("link", self._scenario.nodes, f"links became bad: {_quality(fault.link)}")
            case FaultKind.DISK:
                if fault not in self._disks:
                    self._disks.append(fault)
                self._set_disk(node)
                what = "full" if fault.is_full else "stalled" if fault.is_stalled else f"slow ({fault.commit_ms:g} ms)"
                self._say("disk", (node,), f"the disk of {node} was {what}")
            case FaultKind.CLOCK | FaultKind.JUMP:
                world.move_clock(node, fault.off_seconds)
                self._say("clock", (node,), f"the clock of {node} went {fault.off_seconds:+g} s")
            case FaultKind.FLIP:
                await self._flip(node, fault.backend or self._scenario.backend_of(node))
            case FaultKind.JOIN:
                await self._start(node)
            case FaultKind.LIE:
                await world.begin_lying(node)
                self._say("lie", (node,), f"{node} came, and lies")

    async def _end(self, fault: Fault, node: str) -> None:
        world = self._world
        match fault.kind:
            case FaultKind.CRASH | FaultKind.RESTART:
                if node not in self._gone:
                    await self._start(node, fault.backend)
            case FaultKind.PAUSE:
                if world.condition(node).is_paused:
                    world.resume(node)
                    self._say("resume", (node,), f"{node} thawed")
            case FaultKind.PARTITION:
                self._mend(_parted(fault))
                self._say("mend", _all(fault.groups), f"{' and '.join('+'.join(g) for g in fault.groups)} met again")
            case FaultKind.CUT:
                self._mend(_one_way(fault))
                self._say(
                    "mend",
                    _all((fault.sources, fault.targets)),
                    f"{_and(fault.targets)} heard {_and(fault.sources)} again",
                )
            case FaultKind.LINK:
                self._links.remove(fault)
                self._set_links()
                self._say("link", self._scenario.nodes, "links were good again")
            case FaultKind.DISK:
                if fault in self._disks and node == fault.nodes[-1]:
                    self._disks.remove(fault)
                    for each in fault.nodes:
                        self._set_disk(each)
                        self._say("disk-good", (each,), f"the disk of {each} was good again")
            case FaultKind.CLOCK:
                world.move_clock(node, -fault.off_seconds)
                self._say("clock", (node,), f"the clock of {node} went {-fault.off_seconds:+g} s")
            case FaultKind.LIE:
                await world.end_lying(node)
                self._say("lie", (node,), f"{node} left")
            case _:
                pass

    # -- processes --------------------------------------------------------------------------------------------

    async def _take_down(self, fault: Fault, node: str) -> None:
        world = self._world
        if fault.is_forever:
            self._gone[node] = None
        if not world.condition(node).is_running:
            return
        if fault.kind is FaultKind.CRASH:
            self._say("crash", (node,), f"{node} was killed{' for good' if fault.is_forever else ''}")
            await world.crash(node)
        else:
            self._say("stop", (node,), f"{node} was stopped")
            await world.stop(node)
        if fault.loses_disk:
            disk = world.condition(node).disk
            world.lose_disk(node)
            self._say("disk-lost", (node,), f"{node} lost its disk, number {disk}")

    async def _start(self, node: str, backend: str | None = None) -> None:
        world = self._world
        condition = world.condition(node)
        if condition.is_running:
            return
        found = await world.on_disk(node)
        if found:
            opened = Opened(at=world.now(), node=node, disk=condition.disk, digests=found)
            self._history.opened.append(opened)
        switched = f" as {backend}" if backend is not None and backend != condition.backend else ""
        self._say("start", (node,), f"{node} started{switched}")
        await world.start(node, backend=backend)

    async def _flip(self, node: str, backend: str) -> None:
        before = self._world.condition(node).in_force
        if not self._world.condition(node).absence and await self._world.flip(node, backend) and before != backend:
            self._say("flip", (node,), f"{node} was turned from {before} to {backend}")

    # -- links and disks --------------------------------------------------------------------------------------

    def _cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        for pair in pairs:
            self._cuts[pair] += 1
            if self._cuts[pair] == 1:
                self._world.cut(*pair)

    def _mend(self, pairs: Iterable[tuple[str, str]]) -> None:
        for pair in pairs:
            if self._cuts[pair] == 1:
                self._world.mend(*pair)
            self._cuts[pair] = max(0, self._cuts[pair] - 1)

    def _set_links(self) -> None:
        quality = self._scenario.link
        others: dict[tuple[str, str], LinkQuality] = {}
        for fault in self._links:
            if fault.sources:
                others.update(dict.fromkeys(_one_way(fault), fault.link))
            else:
                quality = fault.link
        self._world.set_links(quality, others)

    def _set_disk(self, node: str) -> None:
        commit_ms, is_full, is_stalled = self._scenario.commit_ms, False, False
        for fault in self._disks:
            if node in fault.nodes:
                commit_ms = fault.commit_ms or self._scenario.commit_ms
                is_full, is_stalled = fault.is_full, fault.is_stalled
        self._world.set_disk(node, commit_ms=commit_ms, is_full=is_full, is_stalled=is_stalled)

    def _say(self, kind: str, nodes: tuple[str, ...], text: str) -> None:
        self._history.events.append(Event(at=self._world.now(), kind=kind, nodes=nodes, text=text))
        self._world.note("world", kind, text)


def _parted(fault: Fault) -> Iterator[tuple[str, str]]:
    """Every pair of different groups, both ways."""
    for one in fault.groups:
        for other in fault.groups:
            if one is not other:
                yield from product(one, other)


def _one_way(fault: Fault) -> list[tuple[str, str]]:
    there = [pair for pair in product(fault.sources, fault.targets) if pair[0] != pair[1]]
    back = [(target, source) for source, target in there] if fault.both_ways else []
    return list(dict.fromkeys(there + back))


def _all(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node for group in groups for node in group))


def _and(nodes: Iterable[str]) -> str:
    return "+".join(nodes)


def _quality(link: LinkQuality) -> str:
    return (
        f"{link.latency_ms:g} ms and up to {link.jitter_ms:g} more, {link.loss:.0%} lost, "
        f"{link.duplication:.0%} doubled, {link.reordering:.0%} reordered"
    )
