"""The virtual `World`: whole nodes over an in-memory network, one seed and one clock.

Time 0 is when all nodes that run from the start have met. The trace has what the network did, what the nemesis did, and
each call with its result: two runs with equal traces were the same run.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from math import ceil

import trio

from netsim.history import FinalState, ResourceSample, short_digest
from netsim.scenario.model import Scenario
from netsim.virtual.byzantine import ByzantineNode
from netsim.virtual.client import VirtualClient
from netsim.virtual.disk import Disk
from netsim.virtual.inspection import VirtualInspection
from netsim.virtual.links import Link
from netsim.virtual.nodes import VirtualSwarm
from netsim.virtual.trace import Trace
from netsim.workload import Call
from netsim.world import NODE_GONE, CallResult, DiskQuality, LinkQuality, NodeStatus, World
from node.config.changes import read_change
from node.config.settings import Settings
from node.store.memory.store import MemoryStore
from protocols.envelope import Envelope
from protocols.errors import BzzzError

MEET_SECONDS_MAX = 60.0


class VirtualWorld:
    """Made by `open`."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._seed = seed
        settings = Settings(replication=scenario.replication, **scenario.settings)  # type: ignore[arg-type]  # checked names
        self._swarm = VirtualSwarm(seed, scenario.nodes, settings=settings, link=_link(scenario.link))
        self._began_at = 0.0
        self._disks: dict[str, Disk] = {}
        self._status = {node: NodeStatus(scenario.backend_of(node)) for node in scenario.nodes}
        self._calls: dict[str, dict[trio.CancelScope, None]] = {node: {} for node in scenario.nodes}
        self._inspection = VirtualInspection(
            self._swarm, self._disks, keys=scenario.workload.keys, replication=scenario.replication
        )
        self._client = VirtualClient(self._inspection.name_of)
        self._byzantine: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        for name in scenario.nodes:
            self._put_disk(name)

    @classmethod
    @asynccontextmanager
    async def open(cls, scenario: Scenario, seed: int) -> AsyncIterator["VirtualWorld"]:
        """A world in which all nodes that do not join later run, and have met; all is stopped at the end."""
        world = cls(scenario, seed)
        async with trio.open_nursery() as nursery:
            world._nursery = world._swarm.nursery = nursery
            await nursery.start(world._swarm.net.run)
            for name in scenario.nodes:
                if name not in scenario.late and name not in scenario.byzantine:
                    await world.start(name)
            await world._meet()
            world._began_at = world.trace.began_at = trio.current_time()
            yield world
            for name in scenario.nodes:
                await world.stop(name)
            nursery.cancel_scope.cancel()

    @property
    def trace(self) -> Trace:
        return self._swarm.trace

    def now(self) -> float:
        return trio.current_time() - self._began_at

    def note(self, node: str, event: str, *facts: object) -> None:
        self.trace.note(node, event, *facts)

    def status(self, node: str) -> NodeStatus:
        return self._status[node]

    async def sleep_until(self, time: float) -> None:
        await trio.sleep_until(self._began_at + time)

    async def _meet(self) -> None:
        async def met() -> None:
            while self._inspection.unconnected():
                await trio.sleep(0.01)

        with trio.move_on_after(MEET_SECONDS_MAX):
            await met()
            return
        raise AssertionError(f"the nodes did not meet within {MEET_SECONDS_MAX:g} s: {self._inspection.unconnected()}")

    # -- processes --------------------------------------------------------------------------------------------

    async def start(self, node: str, *, backend: str | None = None) -> None:
        status, machine = self._status[node], self._swarm[node]
        if status.is_running:
            return
        status.backend = backend or status.backend
        machine.settings = replace(machine.settings, backend=status.backend)
        await self._swarm.start(node)
        if status.flips:  # a flag lasts as long as its process
            status.flips.append(status.backend)
        status.is_running = True

    async def stop(self, node: str) -> None:
        if self._cancel_calls(node):
            await self._swarm[node].stop()

    async def crash(self, node: str) -> None:
        if self._cancel_calls(node):
            await self._swarm[node].crash()

    async def flip(self, node: str, backend: str) -> bool:
        status, running = self._status[node], self._swarm[node].node
        if running is None:
            return False
        before = status.in_force
        status.flips.append(f"{before}>{backend}")
        try:
            await running.flags.change(read_change({"backend": backend}, author="netsim"))
        except BzzzError:  # it was started without a network
            status.flips.append(before)
            return False
        status.flips.append(backend)
        return True

    def _cancel_calls(self, node: str) -> bool:
        """The process ends now: calls under way get no answer. False: it does not run."""
        status = self._status[node]
        if not status.is_running:
            return False
        status.is_running = status.is_paused = False
        status.interruptions += 1
        for scope in self._calls[node]:
            scope.cancel()
        return True

    def lose_disk(self, node: str) -> None:
        self._swarm[node].lose_disk()
        self._status[node].disk += 1
        self._put_disk(node)

    def _put_disk(self, node: str) -> None:
        self._disks[node] = Disk(self._swarm[node].store, commit_seconds=self._scenario.commit_ms / 1000.0)

    def copy_of_disk(self, node: str) -> MemoryStore:
        return self._swarm[node].store.copy()

    def replace_disk(self, node: str, copy: object) -> object:
        assert isinstance(copy, MemoryStore), "a copy of another world"
        machine = self._swarm[node]
        assert machine.node is None, f"{node} still runs"
        before, machine.store = machine.store, copy
        self._status[node].disk += 1
        self._put_disk(node)
        return before

    async def digests_on_disk(self, node: str) -> tuple[str, ...]:
        store = self._swarm[node].store
        return tuple(short_digest(change.digest) for change in await store.log(after=0, limit=store.last_sequence))

    # -- calls ------------------------------------------------------------------------------------------------

    async def call(self, call: Call, parents: tuple[str, ...]) -> CallResult:
        node = self._swarm[call.node].node
        result = NODE_GONE
        if node is not None:
            scope = trio.CancelScope()
            self._calls[call.node][scope] = None
            try:
                with scope:
                    result = await self._client.call(node, call, parents)
            finally:
                del self._calls[call.node][scope]
        if result.receipt is not None:
            held_by = tuple([name for name in self._swarm.nodes if await self._holds(name, result.digest)])
            result = replace(result, receipt=replace(result.receipt, held_by=held_by))
        facts = (call.id, call.kind, call.key, call.how, result.outcome, _summary(result))
        self.note(call.client, "called", call.node, *facts)
        return result

    async def _holds(self, name: str, digest: str) -> bool:
        return isinstance(await self._swarm[name].store.by_digest(self._client.full_digest(digest)), Envelope)

    async def final_state(self, node: str) -> FinalState:
        return await self._inspection.final_state(node, self.now())

    async def unsettled(self) -> str:
        return await self._inspection.unsettled()

    def holders(self, key: str) -> tuple[str, ...]:
        return self._inspection.holders(key)

    def sample(self) -> ResourceSample:
        return ResourceSample(
            at=self.now(),
            nodes=sum(status.is_running for status in self._status.values()),
            tasks=trio.lowlevel.current_statistics().tasks_living,
            frames=self._swarm.net.most_frames(),
        )

    # -- faults -----------------------------------------------------------------------------------------------

    def pause(self, node: str) -> None:
        status = self._status[node]
        if status.is_running and not status.is_paused:
            status.is_paused = True
            status.interruptions += 1
            if self._swarm[node].has_network:
                self._swarm.net.freeze(self._swarm[node].peer)

    def resume(self, node: str) -> None:
        status = self._status[node]
        if status.is_paused:
            status.is_paused = False
            if self._swarm[node].has_network:
                self._swarm.net.thaw(self._swarm[node].peer)

    def cut(self, source: str, target: str) -> None:
        self._swarm.net.cut(*self._swarm.peers(source, target))

    def repair(self, source: str, target: str) -> None:
        self._swarm.net.repair(*self._swarm.peers(source, target))

    def set_links(self, quality: LinkQuality, others: dict[tuple[str, str], LinkQuality]) -> None:
        self._swarm.net.set_link(_link(quality))
        for (source, target), other in others.items():
            source, target = self._swarm.peers(source, target)
            self._swarm.net.set_link(_link(other), source=source, target=target)

    def set_disk(self, node: str, quality: DiskQuality) -> None:
        self._disks[node].set_quality(quality)
        full, stalled = "full" if quality.is_full else "", "stalled" if quality.is_stalled else ""
        self.note(node, "disk", quality.commit_ms, full, stalled)

    def move_clock(self, node: str, by_seconds: float) -> None:
        self._swarm[node].clock.jump(ceil(by_seconds * 1000))
        self.note(node, "clock", self._swarm[node].clock.offset_ms)

    def reset_clock(self, node: str) -> None:
        self.move_clock(node, -self._swarm[node].clock.offset_ms / 1000.0)

    async def start_byzantine(self, node: str, *, attacks: bool = True) -> None:
        machine = self._swarm[node]
        assert self._nursery is not None, "the world is not open"
        others = [m.peer for m in self._swarm.nodes.values() if m.node is not None]
        program = ByzantineNode(
            machine.key,
            self._swarm.net.attach(machine.peer, name=node),
            addresses=[self._swarm.net.address_of(peer) for peer in others],
            now_ms=machine.clock.now_ms,
            seed=self._seed,
            attacks=attacks,
        )
        self._byzantine[node] = await self._nursery.start(program.run)

    async def stop_byzantine(self, node: str) -> None:
        if node in self._byzantine:
            self._byzantine.pop(node).cancel()


def _link(quality: LinkQuality) -> Link:
    return Link(
        latency_seconds=quality.latency_ms / 1000.0,
        jitter_seconds=quality.jitter_ms / 1000.0,
        loss=quality.loss,
        duplication=quality.duplication,
        reordering=quality.reordering,
    )


def _summary(result: CallResult) -> str:
    """A result in the trace: enough to see that two differ."""
    if result.answer is not None:
        return "+".join(head.digest for head in result.answer.heads) or "absent"
    return result.digest or result.error.partition(":")[0]


def _satisfies_world(world: VirtualWorld) -> World:
    """Checked by mypy alone."""
    return world
