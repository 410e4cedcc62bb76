"""The virtual `World`: whole nodes over an in-memory network, one seed and one clock.

Time 0 is when everybody who is there from the start has met everybody. The trace tells everything: what the network
did, what was done to it, and each call with its answer, so that two runs with one trace were the same run.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from math import ceil

import trio

from netsim.history import NodeState, Outcome, Ref, Sample
from netsim.scenario.model import LinkQuality, Scenario
from netsim.scenario.plan import Call
from netsim.virtual.byzantine import ByzantineNode
from netsim.virtual.client import VirtualClient, address_of, ref_of, short
from netsim.virtual.disk import Disk
from netsim.virtual.links import Link
from netsim.virtual.nodes import VirtualSwarm
from netsim.virtual.trace import Trace
from netsim.world import CallResult, Condition, World
from node.config.changes import read_change
from node.config.settings import Settings
from node.node import Node
from protocols.envelope import Envelope
from protocols.errors import BzzzError
from protocols.placement import nearest
from protocols.policy.breaker import BreakerState
from protocols.ucxl import parse

MEET_SECONDS_MAX = 60.0
_GONE = CallResult(outcome=Outcome.UNKNOWN, error="the node was gone before it answered")


class VirtualWorld:
    """Made by `open`. Keeps the contract of `World`."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._seed = seed
        settings = Settings(replication=scenario.replication, **scenario.settings)  # type: ignore[arg-type]  # checked names
        self._swarm = VirtualSwarm(seed, scenario.nodes, settings=settings, link=_link(scenario.link))
        self._began_at = 0.0
        self._disks: dict[str, Disk] = {}
        self._conditions = {node: Condition(scenario.backend_of(node)) for node in scenario.nodes}
        self._calls: dict[str, dict[trio.CancelScope, None]] = {node: {} for node in scenario.nodes}
        self._names = {machine.peer: name for name, machine in self._swarm.nodes.items()}
        self._client = VirtualClient(lambda peer: self._names.get(peer, peer))
        self._liars: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        for name in scenario.nodes:
            self._put_disk(name)

    @classmethod
    @asynccontextmanager
    async def open(cls, scenario: Scenario, seed: int) -> AsyncIterator["VirtualWorld"]:
        """A world in which everybody who is not to come later runs, and has met; all is stopped at the end."""
        world = cls(scenario, seed)
        async with trio.open_nursery() as nursery:
            world._nursery = world._swarm.nursery = nursery
            await nursery.start(world._swarm.net.run)
            for name in scenario.nodes:
                if name not in scenario.late and name not in scenario.liars:
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

    def condition(self, node: str) -> Condition:
        return self._conditions[node]

    async def sleep_until(self, time: float) -> None:
        await trio.sleep_until(self._began_at + time)

    async def _meet(self) -> None:
        async def met() -> None:
            while self._strangers():
                await trio.sleep(0.01)

        with trio.move_on_after(MEET_SECONDS_MAX):
            await met()
            return
        raise AssertionError(f"the nodes did not meet within {MEET_SECONDS_MAX:g} s: {self._strangers()}")

    # -- processes --------------------------------------------------------------------------------------------

    async def start(self, node: str, *, backend: str | None = None) -> None:
        condition, machine = self._conditions[node], self._swarm[node]
        if condition.is_running:
            return
        condition.backend = backend or condition.backend
        machine.settings = replace(machine.settings, backend=condition.backend)
        await self._swarm.start(node)
        if condition.turns:  # its journal went with the process
            condition.turns.append(condition.backend)
        condition.is_running = True

    async def stop(self, node: str) -> None:
        if self._leave(node):
            await self._swarm[node].stop()

    async def crash(self, node: str) -> None:
        if self._leave(node):
            await self._swarm[node].crash()

    async def flip(self, node: str, backend: str) -> bool:
        condition, running = self._conditions[node], self._swarm[node].node
        if running is None:
            return False
        before = condition.in_force
        condition.turns.append(f"{before}>{backend}")
        try:
            await running.flags.change(read_change({"backend": backend}, author="netsim"))
        except BzzzError:  # it was started alone, and has no swarm to turn to
            condition.turns.append(before)
            return False
        condition.turns.append(backend)
        return True

    def _leave(self, node: str) -> bool:
        """A process ends: whoever called it hears nothing any more. False: there is none."""
        condition = self._conditions[node]
        if not condition.is_running:
            return False
        condition.is_running = condition.is_paused = False
        condition.interruptions += 1
        for scope in self._calls[node]:
            scope.cancel()
        return True

    def lose_disk(self, node: str) -> None:
        self._swarm[node].lose_disk()
        self._conditions[node].disk += 1
        self._put_disk(node)

    def _put_disk(self, node: str) -> None:
        machine = self._swarm[node]
        self._disks[node] = Disk(log_id=machine.store.log_id, commit_seconds=self._scenario.commit_ms / 1000.0)
        machine.store = self._disks[node].store

    async def on_disk(self, node: str) -> tuple[str, ...]:
        store = self._swarm[node].store
        return tuple(short(change.digest) for change in await store.log(after=0, limit=store.last_sequence))

    # -- calls ------------------------------------------------------------------------------------------------

    async def call(self, call: Call, parents: tuple[str, ...]) -> CallResult:
        node = self._swarm[call.node].node
        answer = _GONE
        if node is not None:
            scope = trio.CancelScope()
            self._calls[call.node][scope] = None
            try:
                with scope:
                    answer = await self._client.call(node, call, parents)
            finally:
                del self._calls[call.node][scope]
        if answer.receipt is not None:
            held_by = tuple([name for name in self._swarm.nodes if await self._holds(name, answer.digest)])
            answer = replace(answer, receipt=replace(answer.receipt, held_by=held_by))
        self.note(
            call.client, "called", call.node, call.id, call.kind, call.key, call.how, answer.outcome, _told(answer)
        )
        return answer

    async def _holds(self, name: str, digest: str) -> bool:
        return isinstance(await self._swarm[name].store.by_digest(self._client.whole(digest)), Envelope)

    async def look(self, node: str) -> NodeState:
        running = self._swarm[node].running
        keys = sorted(
            {change.address for change in await running.store.log(after=0, limit=running.store.last_sequence)}
        )
        heads: dict[str, tuple[str, ...]] = {}
        versions: dict[str, tuple[Ref, ...]] = {}
        reissued: dict[str, str] = {}
        for address in keys:
            name, key = address.rpartition("/")[2], parse(address).key
            heads[name] = tuple(short(head.digest) for head in await running.store.heads(key))
            listed = await running.store.versions(key, limit=1_000_000)
            known = [await running.store.by_digest(version.digest) for version in listed]
            versions[name] = tuple(ref_of(item, self._name_of) for item in known if item is not None)
            reissued |= {short(v.digest): short(v.reissued_as) for v in listed if v.reissued_as is not None}
        return NodeState(
            at=self.now(),
            node=node,
            backend=self._conditions[node].backend,
            heads=heads,
            versions=versions,
            reissued=reissued,
            owed=sum(self._owing(running).values()),
            refused=running.store.pending().refused,
            breaker=str(running.breaker.state) if running.breaker else str(BreakerState.CLOSED),
        )

    def _name_of(self, peer: str) -> str:
        return self._names.get(peer, peer)

    # -- whether all is well ----------------------------------------------------------------------------------

    def _social(self) -> dict[str, Node]:
        """The nodes that run and have a swarm, by name."""
        return {
            name: machine.node
            for name, machine in self._swarm.nodes.items()
            if machine.node is not None and self._conditions[name].backend != "mock"
        }

    def _strangers(self) -> str:
        """Who has not met whom, in words, or ''."""
        nodes = self._social()
        peers = {self._swarm[name].peer: name for name in nodes}
        for name, node in nodes.items():
            near = {p.peer for p in node.peers() if p.is_connected and not p.is_suspect}
            for peer, other in peers.items():
                if other != name and peer not in near:
                    return f"{name} does not reach {other}"
        return ""

    async def unsettled(self) -> str:
        nodes = self._social()
        for name, node in nodes.items():
            if self._disks[name].is_busy:
                return f"the disk of {name} is at work"
            if hint_counts := self._owing(node):
                told = ", ".join(f"{count} to {other}" for other, count in hint_counts.items())
                return f"{name} still owes hints: {told}"
            if node.breaker is not None and not node.breaker.is_closed:
                return f"the breaker of {name} is {node.breaker.state} ({node.breaker.why})"
        return self._strangers() or await self._unequal(nodes)

    def _owing(self, node: Node) -> dict[str, int]:
        """How many hints a node owes to each that runs: those for a node that is gone for good wait for its return."""
        social = self._social()
        hint_counts = {self._name_of(peer): count for peer, count in node.store.hint_counts().items()}
        return {name: count for name, count in hint_counts.items() if name in social}

    async def _unequal(self, nodes: dict[str, Node]) -> str:
        for number in range(1, self._scenario.workload.keys + 1):
            key = f"k{number}"
            holders = [name for name in self.holders(key) if name in nodes]
            heads = {name: await nodes[name].store.heads(address_of(key).key) for name in holders}
            for name in holders[1:]:
                if [h.digest for h in heads[name]] != [h.digest for h in heads[holders[0]]]:
                    return f"{holders[0]} and {name} have different heads of {key}"
        return ""

    def sample(self) -> Sample:
        return Sample(
            at=self.now(),
            nodes=sum(condition.is_running for condition in self._conditions.values()),
            tasks=trio.lowlevel.current_statistics().tasks_living,
            frames=self._swarm.net.most_frames(),
        )

    def holders(self, key: str) -> tuple[str, ...]:
        peers = [self._swarm[name].peer for name in self._social()]
        return tuple(self._names[peer] for peer in nearest(address_of(key).key, peers, self._scenario.replication))

    # -- faults -----------------------------------------------------------------------------------------------

    def pause(self, node: str) -> None:
        condition = self._conditions[node]
        if condition.is_running and not condition.is_paused:
            condition.is_paused = True
            condition.interruptions += 1
            if condition.backend != "mock":
                self._swarm.net.freeze(self._swarm[node].peer)

    def resume(self, node: str) -> None:
        condition = self._conditions[node]
        if condition.is_paused:
            condition.is_paused = False
            if condition.backend != "mock":
                self._swarm.net.thaw(self._swarm[node].peer)

    def cut(self, source: str, target: str) -> None:
        self._swarm.net.cut(*self._swarm.peers(source, target))

    def mend(self, source: str, target: str) -> None:
        self._swarm.net.mend(*self._swarm.peers(source, target))

    def set_links(self, quality: LinkQuality, others: dict[tuple[str, str], LinkQuality]) -> None:
        self._swarm.net.set_link(_link(quality))
        for (source, target), other in others.items():
            source, target = self._swarm.peers(source, target)
            self._swarm.net.set_link(_link(other), source=source, target=target)

    def set_disk(self, node: str, *, commit_ms: float, is_full: bool, is_stalled: bool) -> None:
        disk = self._disks[node]
        disk.commit_seconds = commit_ms / 1000.0
        disk.is_full = is_full
        if is_stalled:
            disk.stall()
        else:
            disk.turn()
        self.note(node, "disk", commit_ms, "full" if is_full else "", "stalled" if is_stalled else "")

    def move_clock(self, node: str, by_seconds: float) -> None:
        self._swarm[node].clock.jump(ceil(by_seconds * 1000))
        self.note(node, "clock", self._swarm[node].clock.offset_ms)

    def mend_clock(self, node: str) -> None:
        self.move_clock(node, -self._swarm[node].clock.offset_ms / 1000.0)

    async def begin_lying(self, node: str) -> None:
        machine = self._swarm[node]
        assert self._nursery is not None, "the world is not open"
        others = [m.peer for m in self._swarm.nodes.values() if m.node is not None]
        liar = ByzantineNode(
            machine.key,
            self._swarm.net.attach(machine.peer, name=node),
            addresses=[self._swarm.net.address_of(peer) for peer in others],
            now_ms=machine.clock.now_ms,
            seed=self._seed,
        )
        self._liars[node] = await self._nursery.start(liar.run)

    async def end_lying(self, node: str) -> None:
        if node in self._liars:
            self._liars.pop(node).cancel()


def _link(quality: LinkQuality) -> Link:
    return Link(
        latency_seconds=quality.latency_ms / 1000.0,
        jitter_seconds=quality.jitter_ms / 1000.0,
        loss=quality.loss,
        duplication=quality.duplication,
        reordering=quality.reordering,
    )


def _told(answer: CallResult) -> str:
    """An answer in the trace: enough to tell two apart."""
    if answer.sight is not None:
        return "+".join(head.digest for head in answer.sight.heads) or "absent"
    return answer.digest or answer.error.partition(":")[0]


def _keeps_the_contract(world: VirtualWorld) -> World:
    return world
