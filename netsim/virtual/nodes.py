"""Whole nodes in the virtual world: each is `app.run` over a virtual network, a memory store and its own wall clock.

    async with VirtualSwarm.open(seed, ("n1", "n2", "n3")) as swarm:
        receipt = await swarm["n1"].put("ucxl://...", b"...")
        swarm.net.partition(...)

A node can be killed and started again, with its store or with a new one.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256

import trio

from netsim.virtual.links import Link
from netsim.virtual.network import VirtualNetwork
from netsim.virtual.scheduler import WallClock, chance
from netsim.virtual.trace import Trace
from node import app
from node.config.settings import Settings
from node.environment import Environment
from node.node import Node
from node.store.memory.store import MemoryStore
from node.swarm.limits import USUAL
from protocols.keys import PrivateKey
from protocols.policy.signature_cache import SignatureCache

BOOTSTRAP_FEW = 3


class VirtualNode:
    """One machine: its key, wall clock and disk stay, its process starts and ends."""

    def __init__(self, name: str, net: VirtualNetwork, seed: int, settings: Settings, verified: SignatureCache) -> None:
        self.name = name
        self.key = PrivateKey.from_seed(sha256(f"{seed}/{name}".encode()).digest())
        self.peer = self.key.peer_id
        self.clock = WallClock()
        self.store = MemoryStore(log_id=sha256(f"{seed}/{name}/0".encode()).hexdigest()[:16])
        self.settings = settings
        self.limits = USUAL
        self.node: Node | None = None
        self._net = net
        self._seed = seed
        self._verified = verified
        self._runs = 0
        self._disks = 0
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    @property
    def running(self) -> Node:
        assert self.node is not None, f"{self.name} does not run"
        return self.node

    @property
    def has_network(self) -> bool:
        """A node that is started on mock has none."""
        return self.settings.backend != "mock"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The process, until it is stopped."""
        if self._runs:
            self.store.begin_log(sha256(f"{self._seed}/{self.name}/run {self._runs}".encode()).hexdigest()[:16])
        self._runs += 1
        environment = Environment(
            key=self.key,
            network=self._net.attach(self.peer, name=self.name) if self.has_network else None,
            store=self.store,
            now_ms=self.clock.now_ms,
            chance=chance(self._seed, self.name).random,
            limits=self.limits,
            verified=self._verified,
        )
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self.node = await nursery.start(app.run, environment, self.settings)
                    task_status.started()
        finally:
            self.node = None
            self._ended.set()

    async def crash(self) -> None:
        """Kill the process. What its store has committed stays."""
        if self.has_network:
            self._net.crash(self.peer)
        await self._end()

    async def stop(self) -> None:
        """End the process in order: it tells the others that it leaves."""
        if self.node is not None:
            await self.node.leave()
        await self._end()
        self.store.has_ended_in_order = True

    async def _end(self) -> None:
        self._scope.cancel()
        await self._ended.wait()

    def lose_disk(self) -> None:
        """The next process on this machine begins with an empty store."""
        assert self.node is None, f"{self.name} still runs"
        self._disks += 1
        self.store = MemoryStore(log_id=sha256(f"{self._seed}/{self.name}/{self._disks}".encode()).hexdigest()[:16])


class VirtualSwarm:
    """The machines of one run by name, the network between them, and the trace."""

    def __init__(self, seed: int, names: Iterable[str], *, settings: Settings, link: Link | None = None) -> None:
        self.trace = Trace()
        self.net = VirtualNetwork(seed, self.trace, link=link)
        self._seed = seed
        self._settings = settings
        self._verified = SignatureCache()
        """Shared by all nodes: a signature is valid or not for every node, and to check one takes long."""
        self.nodes: dict[str, VirtualNode] = {}
        for name in names:
            self.add(name)
        self.nursery: trio.Nursery | None = None
        """The nursery of the processes; `open` sets it."""

    def __getitem__(self, name: str) -> VirtualNode:
        return self.nodes[name]

    def peers(self, *names: str) -> list[str]:
        """The peer ids of these machines."""
        return [self.nodes[name].peer for name in names]

    def add(self, name: str) -> VirtualNode:
        """One more machine like the others. Its process is not started yet."""
        assert name not in self.nodes, f"there is a {name} already"
        machine = self.nodes[name] = VirtualNode(name, self.net, self._seed, self._settings, self._verified)
        return machine

    async def start(self, name: str) -> Node:
        """Start the process on a machine. Its bootstrap nodes are the other nodes that run, or ever ran; a few of them
        in a swarm in which nodes are not connected with all others."""
        assert self.nursery is not None, "the swarm is not open"
        machine = self.nodes[name]
        known = (m.peer for m in self.nodes.values() if m is not machine and self.net.is_known(m.peer))
        others = tuple(self.net.address_of(peer) for peer in known)
        if len(self.nodes) > machine.settings.connections_kept:
            others = others[:BOOTSTRAP_FEW]
        machine.settings = replace(machine.settings, name=name, bootstrap=others)
        await self.nursery.start(machine.run)
        return machine.running

    @classmethod
    @asynccontextmanager
    async def open(
        cls, seed: int, names: Iterable[str], *, settings: Settings, link: Link | None = None
    ) -> AsyncIterator["VirtualSwarm"]:
        """A swarm in which every machine's process runs; everything is stopped at the end."""
        swarm = cls(seed, names, settings=settings, link=link)
        async with trio.open_nursery() as nursery:
            swarm.nursery = nursery
            await nursery.start(swarm.net.run)
            for name in swarm.nodes:
                await swarm.start(name)
            yield swarm
            for machine in swarm.nodes.values():
                if machine.node is not None:
                    await machine.stop()
            nursery.cancel_scope.cancel()
