"""Rigs for the contract suite: a node with each backend, and two peers over libp2p on loopback."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from node import app
from node.config.settings import Settings
from node.dht.base import DHT, Backend
from node.environment import Environment
from node.node import Node
from node.store.memory.store import MemoryStore
from node.swarm.libp2p.host import Host
from protocols.clock import version
from protocols.envelope import Envelope, seal
from protocols.keys import PrivateKey
from protocols.ucxl import key_of
from tests.until import until

KEYS = tuple(PrivateKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
ADDRESS = "ucxl://agent:role@project:task/*^/thing"
KEY = key_of(ADDRESS)
STORE_DEADLINE_SECONDS = 2.0
SETTINGS = Settings(deadline_ms=2000, real_deadline_ms=3000, store_deadline_ms=int(STORE_DEADLINE_SECONDS * 1000))
"""Longer deadlines than the defaults of the swarm, and a shorter one of the disk: a busy machine fails no test, and no
test waits for long."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Disk:
    """A disk that can be full or stalled: its `before_commit` is that of a store."""

    is_full: bool = False
    resumed: trio.Event | None = None

    async def before_commit(self) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        if self.resumed is not None:
            await self.resumed.wait()


@dataclass
class Rig:
    """The node under test and its two peers; mock has none."""

    node: Node
    store: MemoryStore
    peers: list[Node] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    is_cut: bool = False

    @property
    def dht(self) -> DHT:
        return self.node.dht

    @property
    def backend(self) -> Backend:
        return self.node.dht.backend

    async def cut(self) -> None:
        """Disconnect the node under test from its peers."""
        self.is_cut = True
        for host in self.hosts:
            host.recheck()
        if self.hosts:
            await until(lambda: not self.hosts[0].connected_peers(), what="the peers are disconnected")

    async def heal(self) -> None:
        self.is_cut = False
        await self.met()

    async def met(self) -> None:
        """Wait until every node is connected to every other one."""
        nodes = (self.node, *self.peers)
        await until(lambda: all(sum(p.is_connected for p in n.peers()) >= len(self.peers) for n in nodes))


def envelope(
    content: bytes = b"content", *, parents: tuple[bytes, ...] = (), author: int = 0, at: int = 0, deleted: bool = False
) -> Envelope:
    """A version of the address, `at` milliseconds from now."""
    return seal(
        KEYS[author],
        address=ADDRESS,
        content=b"" if deleted else content,
        content_type="text/plain",
        version=version(now_ms() + at, random.randrange(1 << 16)),
        parents=parents,
        deleted=deleted,
    )


@asynccontextmanager
async def rig(backend: str, *, disk: Disk | None = None) -> AsyncIterator[Rig]:
    """A node with this backend; with `real` and `hybrid` it is connected to its two peers."""
    store = MemoryStore(log_id="0" * 16, before_commit=disk.before_commit if disk else None)
    async with trio.open_nursery() as nursery:
        if backend == "mock":
            world = Environment(key=KEYS[0], network=None, store=store, now_ms=now_ms, chance=random.random)
            node = await nursery.start(app.run, world, replace(SETTINGS, backend=backend))
            yield Rig(node, store)
        else:
            yield await _swarm(backend, store, nursery)
        nursery.cancel_scope.cancel()


async def _swarm(backend: str, store: MemoryStore, nursery: trio.Nursery) -> Rig:
    nodes: list[Node] = []
    hosts: list[Host] = []
    rigs: list[Rig] = []

    def is_allowed_at(number: int) -> object:
        # Only the node under test is cut off: its peers stay connected to each other.
        return lambda peer: not (rigs and rigs[0].is_cut and (number == 0 or peer == KEYS[0].peer_id))

    for number, key in enumerate(KEYS):
        host = Host(key, ["/ip4/127.0.0.1/tcp/0"], is_allowed=is_allowed_at(number))  # type: ignore[arg-type]
        kept = store if number == 0 else MemoryStore(log_id=str(number) * 16)
        world = Environment(key=key, network=host, store=kept, now_ms=now_ms, chance=random.random)
        bootstrap = tuple(address for node in nodes for address in node.addresses())
        settings = replace(SETTINGS, backend=backend, name=f"n{number}", bootstrap=bootstrap)
        nodes.append(await nursery.start(app.run, world, settings))
        hosts.append(host)
    rigs.append(Rig(nodes[0], store, nodes[1:], hosts))
    await rigs[0].met()
    # A node that meets a member gives it at once what it lacks: what a test puts into one store stays there.
    others = len(KEYS) - 1
    await until(lambda: all(n.replicator and len(n.replicator.feeding.positions) == others for n in nodes))
    return rigs[0]
