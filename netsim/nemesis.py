"""The nemesis: what faults do to a world, written into the history; and the healing of everything at the end.

Faults may overlap. Cuts are counted, so a link is whole again when the last of its cuts ends. Where two faults want a
link or a disk to be different, the later one wins, and the earlier one is in force again after it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from netsim.history import History, NemesisEvent, Recovery
from netsim.world import DiskQuality, LinkQuality, World

Pair = tuple[str, str]
"""A source and a target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """How the world is when nothing is wrong with it."""

    nodes: tuple[str, ...]
    byzantine: tuple[str, ...]
    link: LinkQuality
    disk: DiskQuality


class Nemesis:
    """Acts upon one world. `ends_at` is when the faults end, in the world's seconds."""

    def __init__(self, world: World, history: History, baseline: Baseline, *, ends_at: float) -> None:
        self.world = world
        self.ends_at = ends_at
        self._history = history
        self._baseline = baseline
        self._cuts: Counter[Pair] = Counter()
        self._links: dict[object, tuple[LinkQuality, tuple[Pair, ...] | None]] = {}
        """By fault: the quality it wants, and of which links; None: of all links."""
        self._disks: dict[object, tuple[DiskQuality, tuple[str, ...]]] = {}
        """By fault: the quality it wants, and the nodes whose disks it concerns."""
        self._kept_disks: dict[str, object] = {}
        """By node: the disk that it does not run on."""
        self._gone: dict[str, None] = {}
        """The nodes that not even healing brings back."""

    def record(self, kind: str, nodes: Sequence[str], text: str) -> None:
        """Write an event into the history and the trace."""
        self._history.events.append(NemesisEvent(at=self.world.now(), kind=kind, nodes=tuple(nodes), text=text))
        self.world.note("world", kind, text)

    def record_all(self, kind: str, text: str) -> None:
        """The same for an event that concerns every node."""
        self.record(kind, self._baseline.nodes, text)

    async def heal(self) -> None:
        """End every fault, whatever it was, and start every node that is down."""
        world, baseline = self.world, self._baseline
        for pair in self._cuts:
            world.repair(*pair)
        self._cuts.clear()
        self._links.clear()
        self._set_links()
        self._disks.clear()
        for node in baseline.nodes:
            self._set_disk(node)
            world.resume(node)
            world.reset_clock(node)
        for node in baseline.byzantine:
            await world.stop_byzantine(node)
        for node in baseline.nodes:
            if node not in self._gone and node not in baseline.byzantine:
                await self.start(node)
                if world.status(node).in_force != world.status(node).backend:
                    await self.flip(node, world.status(node).backend)
        self.record_all("heal", "everything was healed")
        self._history.healed_at = world.now()

    # -- processes --------------------------------------------------------------------------------------------

    async def start(self, node: str, backend: str | None = None) -> None:
        """Start a node that does not run, unless it was killed for good."""
        world = self.world
        status = world.status(node)
        if status.is_running or node in self._gone:
            return
        found = await world.digests_on_disk(node)
        if found:
            recovery = Recovery(at=world.now(), node=node, disk=status.disk, digests=found)
            self._history.recoveries.append(recovery)
        changed = f" as {backend}" if backend is not None and backend != status.backend else ""
        self.record("start", (node,), f"{node} started{changed}")
        await world.start(node, backend=backend)

    async def stop(self, node: str) -> None:
        if self.world.status(node).is_running:
            self.record("stop", (node,), f"{node} was stopped")
            await self.world.stop(node)

    async def kill(self, node: str, *, loses_disk: bool, is_forever: bool) -> None:
        world = self.world
        if is_forever:
            self._gone[node] = None
        if not world.status(node).is_running:
            return
        self.record("crash", (node,), f"{node} was killed{' for good' if is_forever else ''}")
        await world.crash(node)
        if loses_disk:
            disk = world.status(node).disk
            world.lose_disk(node)
            self.record("disk-lost", (node,), f"{node} lost its disk, number {disk}")

    def copy_disk(self, node: str) -> None:
        """Keep a copy of what a node's disk holds now."""
        self._kept_disks[node] = self.world.copy_of_disk(node)
        self.record("copy", (node,), f"the disk of {node} was copied")

    async def exchange_disk(self, node: str, what: str) -> None:
        """Kill a node, and start it again on the disk that is kept, `what` in words; keep the one that it had."""
        world = self.world
        await self.kill(node, loses_disk=False, is_forever=False)
        number = world.status(node).disk
        self._kept_disks[node] = world.replace_disk(node, self._kept_disks[node])
        self.record("disk-lost", (node,), f"{node} was started on {what} in the place of its disk, number {number}")
        await self.start(node)

    async def flip(self, node: str, backend: str) -> None:
        """Set the flag `backend` of a node that runs."""
        before = self.world.status(node).in_force
        if not self.world.status(node).absence and await self.world.flip(node, backend) and before != backend:
            self.record("flip", (node,), f"{node} was turned from {before} to {backend}")

    # -- links and disks --------------------------------------------------------------------------------------

    def cut(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            self._cuts[pair] += 1
            if self._cuts[pair] == 1:
                self.world.cut(*pair)

    def repair(self, pairs: Iterable[Pair]) -> None:
        """Take one cut of each pair back."""
        for pair in pairs:
            if self._cuts[pair] == 1:
                self.world.repair(*pair)
            self._cuts[pair] = max(0, self._cuts[pair] - 1)

    def change_links(self, fault: object, quality: LinkQuality, pairs: Iterable[Pair] | None) -> None:
        """Until `restore_links(fault)`. `pairs` None: all links."""
        self._links[fault] = quality, None if pairs is None else tuple(pairs)
        self._set_links()

    def restore_links(self, fault: object) -> None:
        del self._links[fault]
        self._set_links()

    def change_disk(self, fault: object, quality: DiskQuality, nodes: tuple[str, ...], node: str) -> None:
        """At `node`, one of the `nodes` that the fault concerns. A `commit_ms` of 0 leaves the baseline's."""
        self._disks.setdefault(fault, (quality, nodes))
        self._set_disk(node)

    def restore_disks(self, fault: object) -> None:
        """At all nodes that the fault concerns."""
        _, nodes = self._disks.pop(fault)
        for node in nodes:
            self._set_disk(node)
            self.record("disk-good", (node,), f"the disk of {node} was good again")

    def _set_links(self) -> None:
        everywhere = self._baseline.link
        others: dict[Pair, LinkQuality] = {}
        for quality, pairs in self._links.values():
            if pairs is None:
                everywhere = quality
            else:
                others.update(dict.fromkeys(pairs, quality))
        self.world.set_links(everywhere, others)

    def _set_disk(self, node: str) -> None:
        good = wanted = self._baseline.disk
        for quality, nodes in self._disks.values():
            if node in nodes:
                wanted = replace(quality, commit_ms=quality.commit_ms or good.commit_ms)
        self.world.set_disk(node, wanted)
