"""The kinds of faults that concern disks: see `kinds.py`, which has the table of all kinds."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Self

from netsim.faults.base import Draw, Fault
from netsim.nemesis import Nemesis
from netsim.world import Ability, DiskQuality


@dataclass(frozen=True, slots=True, kw_only=True)
class BadDisk(Fault):
    """Commits take `commit_ms`, or fail for want of room (`is_full`), or do not end (`is_stalled`)."""

    kind = "disk"
    keys = ("until", "nodes", "quality")
    ability = Ability.BAD_DISK

    quality: DiskQuality

    @classmethod
    def draw(cls, drawn: Draw) -> Self:
        which = drawn.rng.randrange(4)
        commit_ms = drawn.rng.choice((5.0, 50.0, 400.0)) if which < 2 else 0.0
        quality = DiskQuality(commit_ms=commit_ms, is_full=which == 2, is_stalled=which == 3)
        return cls(at=drawn.at, until=drawn.until, nodes=drawn.few, quality=quality)

    def contradictions(self, alone: Collection[str]) -> Iterator[tuple[str, str]]:
        quality = self.quality
        if [bool(quality.commit_ms), quality.is_full, quality.is_stalled].count(True) != 1:
            yield "", "a disk is slow (commit_ms), full (is_full) or stalled (is_stalled): name one of them"

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        quality = self.quality
        nemesis.change_disk(self, quality, self.nodes, node)
        what = "full" if quality.is_full else "stalled" if quality.is_stalled else f"slow ({quality.commit_ms:g} ms)"
        nemesis.record("disk", (node,), f"the disk of {node} was {what}")

    async def end(self, nemesis: Nemesis, node: str) -> None:
        if node == self.nodes[-1]:
            nemesis.restore_disks(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class OldCopy(Fault):
    """The disk is copied; at `until` the process is killed, and started again on that copy: a restored backup."""

    kind = "old-copy"
    keys = ("until", "nodes")
    ability = Ability.COPY_DISK
    can_be_drawn = False
    family = "process"

    def contradictions(self, alone: Collection[str]) -> Iterator[tuple[str, str]]:
        if self.until is None:
            yield "until", "a copy is restored at some time: name it"

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        nemesis.copy_disk(node)

    async def end(self, nemesis: Nemesis, node: str) -> None:
        await nemesis.exchange_disk(node, "an older copy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clone(Fault):
    """Until `until` another node runs on a copy of the disk, with the same identity, while the first one does not run;
    then the first one runs again, on its own disk."""

    kind = "clone"
    keys = ("until", "nodes")
    ability = Ability.COPY_DISK
    can_be_drawn = False
    family = "process"

    def contradictions(self, alone: Collection[str]) -> Iterator[tuple[str, str]]:
        if self.until is None:
            yield "until", "the first node runs again at some time: name it"

    async def begin(self, nemesis: Nemesis, node: str) -> None:
        nemesis.copy_disk(node)
        await nemesis.exchange_disk(node, "a clone")

    async def end(self, nemesis: Nemesis, node: str) -> None:
        await nemesis.exchange_disk(node, "its own disk, as it was before the clone,")
