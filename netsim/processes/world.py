"""The live `World`: real `bzzz up` processes on loopback, spoken to over their API, and told apart by nothing else.

*Pause* is SIGSTOP: a process really stands still, its sockets stay open, and what is sent to it waits in the kernel.
*Crash* is SIGKILL; what its disk holds is read before it is started again. *Cut* is the deny list in the file of the
node that is no longer to hear the other, read again on SIGHUP: links end at once and no new one is taken. *Flip* is
`PATCH /v1/flags`. Links, disks and clocks are what the machine has; to make them worse is for the virtual world.

Time 0 is when everybody had met. How long a node took for a call is what it says itself (`Server-Timing`), from the
request's headers to its answer's: what this program and the kernel add on a busy machine is no wait of the node's.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import trio

from netsim.history import NodeState, Outcome, Ref, Sample
from netsim.processes.interrupts import Interrupts
from netsim.processes.node import NodeProcess
from netsim.processes.plan import unplayable
from netsim.processes.swarm import Swarm
from netsim.processes.workload_client import NoAnswer, WorkloadClient
from netsim.scenario.model import LinkQuality, Scenario
from netsim.scenario.plan import Call
from netsim.virtual.client import address_of, short
from netsim.world import CallResult, Condition, World
from node.store.sqlite.store import SqliteStore
from protocols.placement import nearest

FLIP_PATIENCE_MS = 30_000
"""A flip that a frozen node has not read yet is waited for: given up, it would come over a later one."""
THREADS = 64
WATCH_SECONDS = 0.25
_GONE = CallResult(outcome=Outcome.UNKNOWN, error="the node was gone before it answered")

Result = TypeVar("Result")
Note = Callable[[str, str], None]
"""Told what was done to the world: when, as text, and what."""


class ProcessWorld:
    """Made by `open`. Keeps the contract of `World`, as far as processes can."""

    def __init__(self, scenario: Scenario, swarm: Swarm, note: Note) -> None:
        self._scenario = scenario
        self._swarm = swarm
        self._machines = {machine.name: machine for machine in swarm.nodes}
        self._conditions = {name: Condition(scenario.backend_of(name)) for name in self._machines}
        self._client = WorkloadClient(self._name_of)
        self._names: dict[str, str] = {}
        self._note = note
        self._began_at = trio.current_time()
        self._denied: dict[str, dict[str, None]] = {name: {} for name in self._machines}
        """By node: the names of those it is to deny."""
        self._stale: dict[str, None] = {}
        """Nodes whose lists are to be put in force."""
        self._changed = trio.Event()
        self._changing = {name: trio.Lock() for name in self._machines}
        """One start, one look at the disk and one flip at a time."""
        self._threads = trio.CapacityLimiter(THREADS)
        self.complaints: list[str] = []
        """What did not go well when the processes were ended."""

    @classmethod
    @asynccontextmanager
    async def open(cls, scenario: Scenario, note: Note, *, keep: Callable[[], bool]) -> AsyncIterator["ProcessWorld"]:
        """A world whose processes all run, and have met. Whatever happens, none is left, and no file; unless `keep`
        says so at the end of a run that came to its end. Raises `NodeFailed`; `AssertionError`, before anything is
        started, for a scenario that asks for what processes cannot suffer."""
        assert not (why := unplayable(scenario.faults)), f"the scenario {scenario.name} is not for a live world: {why}"
        configuration = _lists(())
        swarm = Swarm(
            replication=scenario.replication, interrupts=Interrupts(), names=scenario.nodes,
            configuration=configuration, prefix="bzzz-live-",
        )  # fmt: skip
        world = cls(scenario, swarm, note)
        is_kept = False
        try:
            async with trio.open_nursery() as nursery:
                await world._begin()
                nursery.start_soon(world._keep_lists)
                nursery.start_soon(world._watch)
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
            self._conditions[name].is_running = True
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

    def condition(self, node: str) -> Condition:
        return self._conditions[node]

    async def sleep_until(self, time: float) -> None:
        await trio.sleep_until(self._began_at + time)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)

    def _name_of(self, peer: str) -> str:
        return self._names.get(peer, peer)

    # -- processes --------------------------------------------------------------------------------------------

    async def start(self, node: str, *, backend: str | None = None) -> None:
        assert backend is None, "what a live node was started as it stays; it is turned by its flags"
        condition, machine = self._conditions[node], self._machines[node]
        async with self._changing[node]:
            if condition.is_running:
                return
            machine.start(self._swarm.addresses_without(machine))
            await self._in_thread(machine.wait_ready)
            condition.turns.append(await self._in_thread(lambda: self._in_force(machine)))
            condition.is_running = True
        self._list(node)

    async def _watch(self) -> None:
        """Raise `NodeFailed` as soon as a node ends by itself."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            for name, machine in self._machines.items():
                if self._conditions[name].is_running:
                    machine.check_runs()

    async def stop(self, node: str) -> None:
        raise _unsuffered("restart", "a node is killed, or ended with all others")

    async def crash(self, node: str) -> None:
        condition = self._conditions[node]
        if condition.is_running:
            condition.is_running = condition.is_paused = False
            condition.interruptions += 1
            await trio.to_thread.run_sync(self._machines[node].kill)

    def lose_disk(self, node: str) -> None:
        raise _unsuffered("crash with loses_disk", "a node keeps its disk")

    async def on_disk(self, node: str) -> tuple[str, ...]:
        async with self._changing[node]:
            if self._conditions[node].is_running:
                return ()
            store = SqliteStore.open(self._machines[node].data_dir / "store.db", random_id="0" * 16)
            digests: tuple[str, ...] = ()
            async with trio.open_nursery() as nursery:
                await nursery.start(store.run)
                changes = await store.log(after=0, limit=max(1, store.last_sequence))
                digests = tuple(short(change.digest) for change in changes)
                nursery.cancel_scope.cancel()
            return digests

    async def flip(self, node: str, backend: str) -> bool:
        condition, machine = self._conditions[node], self._machines[node]
        if self._changing[node].locked() or condition.absence:
            return False
        async with self._changing[node]:
            before = condition.in_force
            condition.turns.append(f"{before}>{backend}")
            body = f'{{"backend": "{backend}", "reason": "to see that nothing is lost", "author": "bzzz sim live"}}'
            patch = partial(
                machine.ask().call, "PATCH", "/v1/flags", headers={"Content-Type": "application/json"},
                timeout_ms=FLIP_PATIENCE_MS, body=body.encode(),
            )  # fmt: skip
            reply = await self._in_thread(patch)
            if reply.status == 200:
                condition.turns.append(str(reply.data["in_force"]))
            elif reply.status:  # refused: as before
                condition.turns.append(before)
            return reply.status == 200

    def _in_force(self, machine: NodeProcess) -> str:
        """What a node goes by when it has just come up. Raises `NoAnswer`."""
        told = machine.ask().call("GET", "/v1/flags").data
        if "in_force" not in told:
            raise NoAnswer(f"{machine.name} does not say what flags it came up with")
        return str(told["in_force"])

    # -- calls ------------------------------------------------------------------------------------------------

    async def call(self, call: Call, parents: tuple[str, ...]) -> CallResult:
        machine = self._machines[call.node]
        if not self._conditions[call.node].is_running:
            return _GONE
        return await self._in_thread(partial(self._client.make, machine.ask(), call, parents))

    async def look(self, node: str) -> NodeState:
        return await self._in_thread(partial(self._look, self._machines[node], self.now()))

    def _look(self, machine: NodeProcess, at: float) -> NodeState:
        api = machine.ask()
        heads: dict[str, tuple[str, ...]] = {}
        versions: dict[str, tuple[Ref, ...]] = {}
        reissued: dict[str, str] = {}
        for key in self._keys():
            found, heads_of, reissued_of = self._client.versions(api, key)
            if found:
                versions[key], heads[key] = found, heads_of
            reissued |= reissued_of
        owed, flags = self._told(machine, "/v1/pending"), self._told(machine, "/v1/flags")
        return NodeState(
            at=at,
            node=machine.name,
            backend=flags["in_force"],
            heads=heads,
            versions=versions,
            reissued=reissued,
            owed=owed["count"],
            refused=owed["refused"],
            breaker=flags["breaker"]["state"],
        )

    def _keys(self) -> list[str]:
        return [f"k{number}" for number in range(1, self._scenario.workload.keys + 1)]

    def _told(self, machine: NodeProcess, path: str) -> dict[str, Any]:
        reply = machine.ask().call("GET", path)
        if reply.status != 200:
            raise NoAnswer(f"{machine.name} does not answer {path}: {reply}")
        return reply.data

    # -- whether all is well ----------------------------------------------------------------------------------

    async def unsettled(self) -> str:
        return await self._in_thread(self._unsettled)

    def _unsettled(self) -> str:
        try:
            return next(filter(None, map(self._unwell, self.nodes)), "") or self._unequal()
        except NoAnswer as silence:
            return str(silence)

    def _unwell(self, machine: NodeProcess) -> str:
        owed, flags = self._told(machine, "/v1/pending"), self._told(machine, "/v1/flags")
        if owed["count"] or owed["refused"]:
            return f"{machine.name} still owes {owed['count']} hints, and {owed['refused']} were refused"
        if flags["in_force"] != self._conditions[machine.name].backend:
            return f"{machine.name} answers as {flags['in_force']}"
        if flags["breaker"]["state"] != "closed":
            return f"the breaker of {machine.name} is {flags['breaker']['state']} ({flags['breaker']['why']})"
        peers = self._told(machine, "/v1/peers")["peers"]
        near = {self._name_of(peer["peer_id"]) for peer in peers if peer["connected"] and not peer["suspect"]}
        missed = [name for name in self._machines if name not in near and name != machine.name]
        return f"{machine.name} does not reach {', '.join(missed)}" if missed else ""

    def _unequal(self) -> str:
        """Which nodes do not hold the same of what was acknowledged, and so have other heads: these may differ by what
        nobody acknowledged (`Setting.spreads_all`). Nothing owed is no proof: a write that was under way when a member
        came back is owed to it some seconds later."""
        for key in self._keys():
            first, *others = self.nodes
            held = self._client.acknowledged(first.ask(), key)
            for machine in others:
                if self._client.acknowledged(machine.ask(), key) != held:
                    return f"{first.name} and {machine.name} hold different versions of {key}"
        return ""

    def sample(self) -> Sample:
        """How many run; frames and tasks are a process's own."""
        running = sum(condition.is_running for condition in self._conditions.values())
        return Sample(at=self.now(), nodes=running, tasks=0, frames=0)

    def holders(self, key: str) -> tuple[str, ...]:
        peers = [machine.peer_id for machine in self.nodes if self._conditions[machine.name].is_running]
        return tuple(map(self._name_of, nearest(address_of(key).key, peers, self._scenario.replication)))

    # -- faults -----------------------------------------------------------------------------------------------

    def pause(self, node: str) -> None:
        condition = self._conditions[node]
        if condition.is_running and not condition.is_paused:
            condition.is_paused = True
            condition.interruptions += 1
            self._machines[node].freeze()

    def resume(self, node: str) -> None:
        condition = self._conditions[node]
        if condition.is_paused:
            self._machines[node].thaw()
            condition.is_paused = False

    def cut(self, source: str, target: str) -> None:
        self._denied[target][source] = None
        self._list(target)

    def mend(self, source: str, target: str) -> None:
        self._denied[target].pop(source, None)
        self._list(target)

    def _list(self, node: str) -> None:
        self._stale[node] = None
        self._changed.set()

    async def _keep_lists(self) -> None:
        """Put the deny lists in force, those that change in one moment by one reading of the file."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            for node in list(self._stale):
                del self._stale[node]
                machine = self._machines[node]
                machine.configure(_lists(self._machines[name].peer_id for name in self._denied[node]))
                if self._conditions[node].is_running:
                    machine.reload()

    def set_links(self, quality: LinkQuality, others: dict[tuple[str, str], LinkQuality]) -> None:
        if quality != self._scenario.link or others:
            raise _unsuffered("link", "its links are this machine's")

    def set_disk(self, node: str, *, commit_ms: float, is_full: bool, is_stalled: bool) -> None:
        if commit_ms != self._scenario.commit_ms or is_full or is_stalled:
            raise _unsuffered("disk", "its disks are this machine's")

    def move_clock(self, node: str, by_seconds: float) -> None:
        raise _unsuffered("clock", "its clock is this machine's")

    def mend_clock(self, node: str) -> None:
        """It was never wrong."""

    async def begin_lying(self, node: str) -> None:
        raise _unsuffered("lie", "its nodes are honest")

    async def end_lying(self, node: str) -> None:
        """None ever lied."""


def _lists(denied: Iterable[str]) -> str:
    """A node's file, with whom it denies."""
    return f"bzzz:\n  deny: [{', '.join(denied)}]\n"


def _unsuffered(fault: str, why: str) -> AssertionError:
    """`open` refuses such a scenario: it is a mistake of this program when a fault comes here all the same."""
    return AssertionError(f"the fault '{fault}' came to a live world, which never suffers it: {why}")


def _keeps_the_contract(world: ProcessWorld) -> World:
    return world
