"""The process `World`: real `bzzz up` processes on loopback, observed over their HTTP APIs alone.

*Pause* is SIGSTOP: a process really stands still, its sockets stay open, and what is sent to it waits in the kernel.
*Crash* is SIGKILL; what its disk holds is read before it is started again. A *partition* is made of deny lists in the
nodes' configuration files, read again on SIGHUP: connections end at once, and no new one is accepted. *Flip* is
`PATCH /v1/flags`. Links, disks and clocks are this machine's; only the virtual world can make them worse.

Time 0 is when all nodes had met. The time of a call is the node's own (`Server-Timing`), from the headers of the
request to those of the answer: it leaves out what this program and the kernel add on a busy machine.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import ClassVar, TypeVar

import trio

from netsim.faults.base import unplayable
from netsim.history import FinalState, ResourceSample, short_digest
from netsim.processes.inspection import ProcessInspection
from netsim.processes.interrupts import Interrupts
from netsim.processes.node import NodeProcess
from netsim.processes.swarm import Swarm
from netsim.processes.workload_client import WorkloadClient
from netsim.scenario.model import Scenario
from netsim.workload import Call, address_of
from netsim.world import NODE_GONE, Ability, CallResult, DiskQuality, LinkQuality, NodeStatus, World
from node.store.sqlite.store import SqliteStore
from protocols.placement import nearest

FLIP_PATIENCE_MS = 30_000
"""The wait for a flip that a paused node has not read yet. After a timeout it could still overwrite a later flip."""
THREADS = 64
WATCH_SECONDS = 0.25

Result = TypeVar("Result")
Note = Callable[[str, str], None]
"""Called with each event of the nemesis: its kind and its text."""


class ProcessWorld:
    """Made by `open`. Keeps the contract of `World` as far as `ABILITIES` say."""

    ABILITIES: ClassVar[frozenset[Ability]] = frozenset((Ability.KILL, Ability.PAUSE, Ability.PARTITION, Ability.FLIP))
    """A cut one way is not among them: a connection that one of two nodes denies is cut both ways."""

    def __init__(self, scenario: Scenario, swarm: Swarm, note: Note) -> None:
        self._scenario = scenario
        self._swarm = swarm
        self._machines = {machine.name: machine for machine in swarm.nodes}
        self._status = {name: NodeStatus(scenario.backend_of(name)) for name in self._machines}
        self._client = WorkloadClient(self._name_of)
        self._inspection = ProcessInspection(scenario, swarm.nodes, self._client)
        self._names: dict[str, str] = {}
        self._note = note
        self._began_at = trio.current_time()
        self._denied: dict[str, dict[str, None]] = {name: {} for name in self._machines}
        """By node: the names of the nodes that it must deny."""
        self._stale: dict[str, None] = {}
        """Nodes whose deny lists have changed since their files were written."""
        self._changed = trio.Event()
        self._changing = {name: trio.Lock() for name in self._machines}
        """One start, one read of the disk or one flip at a time."""
        self._threads = trio.CapacityLimiter(THREADS)
        self.complaints: list[str] = []
        """What went wrong when the processes were ended."""

    @classmethod
    @asynccontextmanager
    async def open(cls, scenario: Scenario, note: Note, *, keep: Callable[[], bool]) -> AsyncIterator["ProcessWorld"]:
        """A world whose processes all run, and have met. At the end no process and no file of it is left, unless the
        run came to its end and `keep` says so. Raises `NodeProcessFailed`; and, before anything is started,
        `AssertionError` for a scenario whose faults processes cannot play."""
        why = unplayable(scenario.faults, cls.ABILITIES)
        assert not why, f"the scenario {scenario.name} is not for a live world: {why}"
        configuration = _deny_list(())
        swarm = Swarm(
            replication=scenario.replication, interrupts=Interrupts(), names=scenario.nodes,
            configuration=configuration, prefix="bzzz-live-",
        )  # fmt: skip
        world = cls(scenario, swarm, note)
        is_kept = False
        try:
            async with trio.open_nursery() as nursery:
                await world._begin()
                nursery.start_soon(world._write_deny_lists)
                nursery.start_soon(world._watch_processes)
                yield world
                is_kept = keep()
                nursery.cancel_scope.cancel()
        finally:
            if not is_kept:
                with trio.CancelScope(shield=True):
                    world.complaints = await trio.to_thread.run_sync(swarm.end)
                    swarm.remove()

    async def _begin(self) -> None:
        first, *others = self._swarm.nodes
        first.start(())
        await self._in_thread(first.wait_ready)
        for machine in others:
            machine.start(first.multiaddrs)
        for machine in others:
            await self._in_thread(machine.wait_ready)
        await self._in_thread(self._swarm.wait_connected)
        for name, machine in self._machines.items():
            self._names[machine.peer_id] = name
            self._status[name].is_running = True
        self._began_at = trio.current_time()

    @property
    def nodes(self) -> tuple[NodeProcess, ...]:
        return self._swarm.nodes

    @property
    def folder(self) -> str:
        return str(self._swarm.folder)

    def now(self) -> float:
        return trio.current_time() - self._began_at

    def note(self, node: str, event: str, *facts: object) -> None:
        self._note(event, " ".join(map(str, facts)))

    def status(self, node: str) -> NodeStatus:
        return self._status[node]

    async def sleep_until(self, time: float) -> None:
        await trio.sleep_until(self._began_at + time)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)

    def _name_of(self, peer: str) -> str:
        return self._names.get(peer, peer)

    # -- processes --------------------------------------------------------------------------------------------

    async def start(self, node: str, *, backend: str | None = None) -> None:
        assert backend is None, "a live node is started on one backend; its flag changes that"
        status, machine = self._status[node], self._machines[node]
        async with self._changing[node]:
            if status.is_running:
                return
            machine.start(self._swarm.addresses_without(machine))
            await self._in_thread(machine.wait_ready)
            status.flips.append(await self._in_thread(partial(self._inspection.in_force, machine)))
            status.is_running = True
        self._list_changed(node)

    async def _watch_processes(self) -> None:
        """Raise `NodeProcessFailed` as soon as a node ends by itself."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            for name, machine in self._machines.items():
                if self._status[name].is_running:
                    machine.check_runs()

    async def stop(self, node: str) -> None:
        raise _unplayable("restart", "a process is killed, or ended with all others")

    async def crash(self, node: str) -> None:
        status = self._status[node]
        if status.is_running:
            status.is_running = status.is_paused = False
            status.interruptions += 1
            await trio.to_thread.run_sync(self._machines[node].kill)

    def lose_disk(self, node: str) -> None:
        raise _unplayable("crash with loses_disk", "a process keeps its disk")

    def copy_of_disk(self, node: str) -> object:
        raise _unplayable("old-copy or clone", "a process keeps its disk")

    def replace_disk(self, node: str, copy: object) -> object:
        raise _unplayable("old-copy or clone", "a process keeps its disk")

    async def digests_on_disk(self, node: str) -> tuple[str, ...]:
        async with self._changing[node]:
            if self._status[node].is_running:
                return ()
            store = SqliteStore.open(self._machines[node].data_dir / "store.db", random_id=os.urandom(8).hex())
            digests: tuple[str, ...] = ()
            async with trio.open_nursery() as nursery:
                await nursery.start(store.run)
                changes = await store.log(after=0, limit=max(1, store.last_sequence))
                digests = tuple(short_digest(change.digest) for change in changes)
                nursery.cancel_scope.cancel()
            return digests

    async def flip(self, node: str, backend: str) -> bool:
        status, machine = self._status[node], self._machines[node]
        if self._changing[node].locked() or status.absence:
            return False
        async with self._changing[node]:
            before = status.in_force
            status.flips.append(f"{before}>{backend}")
            body = f'{{"backend": "{backend}", "reason": "to see that nothing is lost", "author": "bzzz sim live"}}'
            patch = partial(
                machine.client.call, "PATCH", "/v1/flags", headers={"Content-Type": "application/json"},
                timeout_ms=FLIP_PATIENCE_MS, body=body.encode(),
            )  # fmt: skip
            reply = await self._in_thread(patch)
            if reply.status == 200:
                status.flips.append(str(reply.data["in_force"]))
            elif reply.status:  # refused: as before
                status.flips.append(before)
            return reply.status == 200

    # -- calls ------------------------------------------------------------------------------------------------

    async def call(self, call: Call, parents: tuple[str, ...]) -> CallResult:
        machine = self._machines[call.node]
        if not self._status[call.node].is_running:
            return NODE_GONE
        return await self._in_thread(partial(self._client.call, machine.client, call, parents))

    async def final_state(self, node: str) -> FinalState:
        return await self._in_thread(partial(self._inspection.final_state, self._machines[node], self.now()))

    async def unsettled(self) -> str:
        return await self._in_thread(self._inspection.unsettled)

    def sample(self) -> ResourceSample:
        """How many processes run. Their frames and tasks cannot be seen."""
        running = sum(status.is_running for status in self._status.values())
        return ResourceSample(at=self.now(), nodes=running, tasks=0, frames=0)

    def holders(self, key: str) -> tuple[str, ...]:
        peers = [machine.peer_id for machine in self.nodes if self._status[machine.name].is_running]
        return tuple(map(self._name_of, nearest(address_of(key).key, peers, self._scenario.replication)))

    # -- faults -----------------------------------------------------------------------------------------------

    def pause(self, node: str) -> None:
        status = self._status[node]
        if status.is_running and not status.is_paused:
            status.is_paused = True
            status.interruptions += 1
            self._machines[node].freeze()

    def resume(self, node: str) -> None:
        status = self._status[node]
        if status.is_paused:
            self._machines[node].thaw()
            status.is_paused = False

    def cut(self, source: str, target: str) -> None:
        self._denied[target][source] = None
        self._list_changed(target)

    def repair(self, source: str, target: str) -> None:
        self._denied[target].pop(source, None)
        self._list_changed(target)

    def _list_changed(self, node: str) -> None:
        self._stale[node] = None
        self._changed.set()

    async def _write_deny_lists(self) -> None:
        """Put changed deny lists in force. Changes of one moment are one write of the file and one reload."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            for node in list(self._stale):
                del self._stale[node]
                machine = self._machines[node]
                machine.configure(_deny_list(self._machines[name].peer_id for name in self._denied[node]))
                if self._status[node].is_running:
                    machine.reload()

    def set_links(self, quality: LinkQuality, others: dict[tuple[str, str], LinkQuality]) -> None:
        if quality != self._scenario.link or others:
            raise _unplayable("link", "its links are this machine's")

    def set_disk(self, node: str, quality: DiskQuality) -> None:
        if quality != DiskQuality(commit_ms=self._scenario.commit_ms):
            raise _unplayable("disk", "its disks are this machine's")

    def move_clock(self, node: str, by_seconds: float) -> None:
        raise _unplayable("clock", "its clock is this machine's")

    def reset_clock(self, node: str) -> None:
        """It was never wrong."""

    async def start_byzantine(self, node: str, *, attacks: bool = True) -> None:
        raise _unplayable("lie", "its nodes run bzzz")

    async def stop_byzantine(self, node: str) -> None:
        """None was started."""


def _deny_list(denied: Iterable[str]) -> str:
    """A node's configuration file, with the peers that it denies."""
    return f"bzzz:\n  deny: [{', '.join(denied)}]\n"


def _unplayable(fault: str, why: str) -> AssertionError:
    """`open` refuses such a scenario, so a call that gets here is a mistake of this program."""
    return AssertionError(f"a live world cannot play the fault '{fault}': {why}")


def _satisfies_world(world: ProcessWorld) -> World:
    """Checked by mypy alone."""
    return world
