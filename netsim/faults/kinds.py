"""The kinds of faults: one class for each, with its keys in a scenario file, its needs, draw, begin and end.

A new kind is one class in this file, or in `disk_kinds.py`, and its name in `KINDS`. If it does something new to a
world, it also needs an `Ability` and a method of `World`.

*Pause* in the virtual world models a machine that other nodes cannot reach (a stopped process, a long garbage
collection, a switch without power): connections stay, frames wait, clients do not call it, and calls under way are
excused. The node's own tasks and timers go on; a process that really stands still is in the world of processes.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Self

from netsim.faults.base import Draw, Fault
from netsim.faults.disk_kinds import BadDisk, Clone, OldCopy
from netsim.nemesis import Nemesis, Pair
from netsim.value_types import Backend, Groups, Nodes, Range
from netsim.world import Ability, LinkQuality

OffsetSeconds = Annotated[float, Range(-1e9, 1e9)]


# -- processes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash(Fault):
    """The process is killed, and started again at `until` (or when all heals), with its disk or without."""

    kind = "crash"
    keys = ("until", "nodes", "loses_disk", "is_forever", "every_seconds")
    ability = Ability.KILL
    family = "process"

    loses_disk: bool = False
    is_forever: bool = False
    """Not even healing brings the node back."""

    def needs(self) -> Iterator[tuple[str, Ability]]:
        yield from Fault.needs(self)
        if self.loses_disk:
            yield "loses_disk", Ability.LOSE_DISK

    def contradictions(self, alone: Collection[str]) -> Iterator[tuple[str, str]]:
        if self.until is not None and self.is_forever:
            yield "is_forever", "a crash with `until` is not for ever"

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        await nemesis.kill(node, loses_disk=self.loses_disk, is_forever=self.is_forever)

    async def end(self, nemesis: Nemesis, node: str) -> None:
        await nemesis.start(node)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart(Fault):
    """The process is stopped in good order, and started again at `until`; with `backend`, on that backend."""

    kind = "restart"
    keys = ("until", "nodes", "backend", "every_seconds")
    ability = Ability.RESTART
    family = "process"

    backend: Backend | None = None

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        await nemesis.stop(node)

    async def end(self, nemesis: Nemesis, node: str) -> None:
        await nemesis.start(node, self.backend)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Fault):
    """Nothing reaches the node, nothing leaves it, and clients do not call it."""

    kind = "pause"
    keys = ("until", "nodes", "every_seconds")
    ability = Ability.PAUSE
    family = "process"

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        if nemesis.world.status(node).absence == "":
            nemesis.world.pause(node)
            nemesis.record("pause", (node,), f"{node} froze")

    async def end(self, nemesis: Nemesis, node: str) -> None:
        if nemesis.world.status(node).is_paused:
            nemesis.world.resume(node)
            nemesis.record("resume", (node,), f"{node} thawed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(Fault):
    """The node does not run from the start: it starts now."""

    kind = "join"
    keys = ("nodes", "every_seconds")
    ability = Ability.JOIN
    can_be_drawn = False
    brings_nodes = True

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        await nemesis.start(node)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip(Fault):
    """The flag `backend` is set while the node runs; when all heals it is what it was at first."""

    kind = "flip"
    keys = ("nodes", "backend", "every_seconds")
    required = ("nodes", "backend")
    ability = Ability.FLIP
    can_be_drawn = False

    backend: Backend

    def contradictions(self, alone: Collection[str]) -> Iterator[tuple[str, str]]:
        for node in self.nodes:
            if node in alone:
                yield "nodes", f"{node} is started as mock, without a network, and its backend cannot be changed"

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        await nemesis.flip(node, self.backend)


@dataclass(frozen=True, slots=True, kw_only=True)
class Byzantine(Fault):
    """The machine runs a byzantine program: it equivocates, replays, forges and discards what it acknowledges, and its
    answers are lies. With `only_answers` it sends nothing by itself."""

    kind = "lie"
    keys = ("until", "nodes", "only_answers")
    ability = Ability.BYZANTINE
    can_be_drawn = False
    brings_nodes = True

    only_answers: bool = False

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        await nemesis.world.start_byzantine(node, attacks=not self.only_answers)
        nemesis.record("lie", (node,), f"{node} came, and lies")

    async def end(self, nemesis: Nemesis, node: str) -> None:
        await nemesis.world.stop_byzantine(node)
        nemesis.record("lie", (node,), f"{node} left")


# -- the network ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition(Fault):
    """`groups` cannot reach each other; with `every_seconds` the partition comes and goes in that time."""

    kind = "partition"
    keys = ("until", "groups", "every_seconds")
    required = ("groups",)
    ability = Ability.PARTITION

    groups: Groups

    @classmethod
    def draw(cls, drawn: Draw) -> Self:
        first = drawn.rng.randint(1, max(1, len(drawn.nodes) - 1))
        every_seconds = drawn.rng.choice((None, None, drawn.rng.uniform(0.2, 2.0)))
        sides = (tuple(sorted(drawn.nodes[:first])), tuple(sorted(drawn.nodes[first:])))
        groups = tuple(side for side in sides if side)
        return cls(at=drawn.at, until=drawn.until, groups=groups, every_seconds=every_seconds)

    def contradictions(self, alone: Collection[str]) -> Iterator[tuple[str, str]]:
        if len(self.groups) < 2:
            yield "groups", "a partition has two groups or more"

    async def play(self, nemesis: Nemesis) -> None:
        if self.every_seconds is None:
            await Fault.play(self, nemesis)
            return
        await nemesis.world.sleep_until(self.at)
        until = nemesis.ends_at if self.until is None else self.until
        at = self.at
        while at < until:
            await self.begin(nemesis, "")
            await nemesis.world.sleep_until(min(until, at + self.every_seconds / 2))
            await self.end(nemesis, "")
            at += self.every_seconds
            await nemesis.world.sleep_until(min(until, at))

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        nemesis.cut(self._pairs())
        groups = " from ".join(map("+".join, self.groups))
        text = f"{groups} were parted" if len(self.groups) > 1 else groups
        nemesis.record("partition", _unique(self.groups), text)

    async def end(self, nemesis: Nemesis, node: str) -> None:
        nemesis.repair(self._pairs())
        groups = " and ".join(map("+".join, self.groups))
        nemesis.record("mend", _unique(self.groups), f"{groups} met again")

    def _pairs(self) -> Iterator[Pair]:
        """Every pair of nodes of different groups, both ways."""
        for group in self.groups:
            for other in self.groups:
                if group is not other:
                    yield from product(group, other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(Fault):
    """Nothing from `sources` reaches `targets`; with `both_ways`, nor back."""

    kind = "cut"
    keys = ("until", "sources", "targets", "both_ways")
    required = ("sources", "targets")
    ability = Ability.CUT_ONE_WAY

    sources: Nodes
    targets: Nodes
    both_ways: bool = False

    @classmethod
    def draw(cls, drawn: Draw) -> Self:
        targets = tuple(sorted(drawn.nodes[2:4]))
        both_ways = drawn.rng.random() < 0.4
        return cls(at=drawn.at, until=drawn.until, sources=drawn.few, targets=targets, both_ways=both_ways)

    def contradictions(self, alone: Collection[str]) -> Iterator[tuple[str, str]]:
        yield from _to_itself(self.sources, self.targets)

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        nemesis.cut(_directions(self.sources, self.targets, self.both_ways))
        how = "cut from" if self.both_ways else "no longer heard by"
        text = f"{'+'.join(self.sources)} was {how} {'+'.join(self.targets)}"
        nemesis.record("cut", _unique((self.sources, self.targets)), text)

    async def end(self, nemesis: Nemesis, node: str) -> None:
        nemesis.repair(_directions(self.sources, self.targets, self.both_ways))
        text = f"{'+'.join(self.targets)} heard {'+'.join(self.sources)} again"
        nemesis.record("mend", _unique((self.sources, self.targets)), text)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowLink(Fault):
    """Links are slow, lose, duplicate or reorder frames: all links, or those from `sources` to `targets`."""

    kind = "link"
    keys = ("until", "sources", "targets", "both_ways", "quality")
    required = ()
    ability = Ability.SLOW_LINKS

    sources: Nodes = ()
    targets: Nodes = ()
    both_ways: bool = False
    quality: LinkQuality = field(default_factory=LinkQuality)

    @classmethod
    def draw(cls, drawn: Draw) -> Self:
        quality = LinkQuality(
            latency_ms=drawn.rng.choice((0.5, 5.0, 40.0, 200.0)),
            jitter_ms=drawn.rng.choice((0.5, 20.0)),
            loss=drawn.rng.choice((0.0, 0.02, 0.2)),
            duplication=drawn.rng.choice((0.0, 0.1)),
            reordering=drawn.rng.choice((0.0, 0.2)),
        )
        return cls(at=drawn.at, until=drawn.until, quality=quality)

    def contradictions(self, alone: Collection[str]) -> Iterator[tuple[str, str]]:
        if bool(self.sources) != bool(self.targets):
            yield "sources", "sources and targets are named together, or not at all"
        yield from _to_itself(self.sources, self.targets)

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        pairs = _directions(self.sources, self.targets, self.both_ways) if self.sources else None
        nemesis.change_links(self, self.quality, pairs)
        quality = self.quality
        nemesis.record_all(
            "link",
            f"links became bad: {quality.latency_ms:g} ms and up to {quality.jitter_ms:g} more, "
            f"{quality.loss:.0%} lost, {quality.duplication:.0%} doubled, {quality.reordering:.0%} reordered",
        )

    async def end(self, nemesis: Nemesis, node: str) -> None:
        nemesis.restore_links(self)
        nemesis.record_all("link", "links were good again")


# -- machines -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockOffset(Fault):
    """The wall clock is `off_seconds` off until the fault ends."""

    kind = "clock"
    keys = ("until", "nodes", "off_seconds")
    required = ("nodes", "off_seconds")
    ability = Ability.WRONG_CLOCK
    family = "clock"

    off_seconds: OffsetSeconds

    @classmethod
    def draw(cls, drawn: Draw) -> Self:
        off_seconds = drawn.rng.choice((120.0, 31_536_000.0, -120.0, -30.0, 50.0, 5.0))
        return cls(at=drawn.at, until=drawn.until, nodes=drawn.few, off_seconds=off_seconds)

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        _move_clock(nemesis, node, self.off_seconds)

    async def end(self, nemesis: Nemesis, node: str) -> None:
        _move_clock(nemesis, node, -self.off_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockJump(Fault):
    """The wall clock jumps by `off_seconds`, and stays there until all heals."""

    kind = "jump"
    keys = ("nodes", "off_seconds")
    required = ("nodes", "off_seconds")
    ability = Ability.WRONG_CLOCK
    family = "clock"

    off_seconds: OffsetSeconds

    @classmethod
    def draw(cls, drawn: Draw) -> Self:
        return cls(at=drawn.at, nodes=drawn.few, off_seconds=drawn.rng.uniform(-90.0, 90.0))

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        _move_clock(nemesis, node, self.off_seconds)


# -- the table ------------------------------------------------------------------------------------------------------

KINDS: dict[str, type[Fault]] = {
    kind.kind: kind
    for kind in (
        Crash, OldCopy, Clone, Restart, Pause, Partition, Cut, SlowLink, BadDisk, ClockOffset, ClockJump, Join, Flip,
        Byzantine,
    )
}  # fmt: skip
"""Every kind by its name in a scenario file."""


def _directions(sources: Iterable[str], targets: Iterable[str], both_ways: bool) -> tuple[Pair, ...]:
    forth = [pair for pair in product(sources, targets) if pair[0] != pair[1]]
    back = [(target, source) for source, target in forth] if both_ways else []
    return tuple(dict.fromkeys(forth + back))


def _to_itself(sources: tuple[str, ...], targets: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if sources and {*sources} == {*targets} and len({*sources}) == 1:
        yield "targets", f"{sources[0]} has no link to itself"


def _unique(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node for group in groups for node in group))


def _move_clock(nemesis: Nemesis, node: str, by_seconds: float) -> None:
    nemesis.world.move_clock(node, by_seconds)
    nemesis.record("clock", (node,), f"the clock of {node} went {by_seconds:+g} s")
