"""What a fault is: when it begins and ends, what it needs of a world, how chaos draws it. `kinds.py` has each kind."""

import random
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import trio

from netsim.nemesis import Nemesis
from netsim.value_types import Interval, Nodes, Seconds
from netsim.world import Ability


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What chaos has drawn for one fault before its kind draws the rest."""

    at: float
    until: float
    nodes: tuple[str, ...]
    """All nodes that can have a fault, in an order that was drawn."""
    few: tuple[str, ...]
    """One or two of them."""
    rng: random.Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, at one time. A subclass is a kind: it adds fields of its own, and lists the keys it takes."""

    kind: ClassVar[str]
    """Its name in a scenario file."""
    keys: ClassVar[tuple[str, ...]]
    """The fields that a scenario file may set, beside `at`. Of a field that is a dataclass, the keys are its fields."""
    required: ClassVar[tuple[str, ...]] = ("nodes",)
    ability: ClassVar[Ability]
    """What a world must be able to do."""
    can_be_drawn: ClassVar[bool] = True
    """Whether chaos may name this kind."""
    family: ClassVar[str] = ""
    """Chaos draws no two faults of one family for a node at the same time; '': the kind is a family of its own."""
    brings_nodes: ClassVar[bool] = False
    """True: its nodes do not run from the start; it starts them."""

    at: Seconds
    until: Seconds | None = None
    """None: until all heals; or the fault has no end."""
    nodes: Nodes = ()
    every_seconds: Interval | None = None
    """Between the begin at one node and at the next; None: all nodes at once."""

    @classmethod
    def draw(cls, drawn: Draw) -> Self:
        """One fault of this kind, for chaos. A kind that has keys of its own draws them from `drawn.rng`."""
        return cls(at=drawn.at, until=drawn.until, nodes=drawn.few)

    def needs(self) -> Iterator[tuple[str, Ability]]:
        """What this fault needs of a world, each with the part of the fault that asks for it."""
        yield f"kind '{self.kind}'", self.ability

    def contradictions(self, alone: Collection[str]) -> Iterator[tuple[str, str]]:
        """Keys of this fault whose values cannot be, and why; '' is the fault itself. `alone` has the nodes that never
        have a network."""
        yield from ()

    async def play(self, nemesis: Nemesis) -> None:
        """Begin at its time, and end at its time; at one node after the other with `every_seconds`."""
        await nemesis.world.sleep_until(self.at)
        if self.every_seconds is not None:
            async with trio.open_nursery() as nursery:
                for number, node in enumerate(self.nodes):
                    nursery.start_soon(self._play_at, nemesis, node, number * self.every_seconds)
            return
        nodes = self.nodes or ("",)
        for node in nodes:
            await self.begin(nemesis, node)
        if self.until is not None:
            await nemesis.world.sleep_until(self.until)
            for node in nodes:
                await self.end(nemesis, node)

    async def _play_at(self, nemesis: Nemesis, node: str, delay: float) -> None:
        await nemesis.world.sleep_until(self.at + delay)
        await self.begin(nemesis, node)
        if self.until is not None:
            await nemesis.world.sleep_until(self.until + delay)
            await self.end(nemesis, node)

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        """At one of `nodes`; '' where the fault names no nodes."""
        raise NotImplementedError

    async def end(self, nemesis: Nemesis, node: str) -> None:
        """The inverse of `begin`; not called without `until`."""


def unplayable(faults: Iterable[Fault], abilities: frozenset[Ability]) -> str:
    """The first fault that a world with these abilities cannot bring about, and why; or ''."""
    for number, fault in enumerate(faults, start=1):
        for part, ability in fault.needs():
            if ability not in abilities:
                return f"fault {number}, {part}: this world cannot {ability}"
    return ""
