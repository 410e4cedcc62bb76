"""Puts a node together, and runs it in a world: a network, a store, a clock and chance, all handed in.

In a process the world is libp2p, SQLite and the machine's clock (`node/commands/process.py`); in the simulator it is
memory, one seed and one virtual clock. Nothing below here knows which.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from discovery.manual import Manual
from node.config import Settings
from node.dht.base import DHT, Backend
from node.dht.gate import Gate
from node.dht.hybrid import HybridDHT
from node.dht.mock import MockDHT
from node.dht.real import RealDHT
from node.services.author import Author
from node.services.health import Health
from node.services.node import Node
from node.services.peers import Neighbours
from node.services.publish import Publisher
from node.services.reissue import Reissuer
from node.services.resolve import Resolver
from node.services.serve import Server
from node.services.sweep import Sweeper
from node.store.base import Store
from node.swarm.base import Network
from node.swarm.calls import Calls
from node.swarm.conduct import Conduct
from node.swarm.courier import Courier
from node.swarm.limits import USUAL, Limits
from node.swarm.members import Members
from protocols.keys import PrivateKey
from protocols.verified import Verified


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a node lives in. `network` is None for the mock backend: no host, no socket."""

    key: PrivateKey
    network: Network | None
    store: Store
    now_ms: Callable[[], int]
    """The wall clock, Unix milliseconds. Deadlines run on trio's clock."""
    chance: Callable[[], float]
    """Draws from [0, 1)."""
    conduct: Conduct = field(default_factory=Conduct)
    """Whom the node deals with; the network asks it too."""
    limits: Limits = USUAL


async def run(
    world: World, settings: Settings, *, task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a node until cancelled; started with it once it answers calls. Raises `ListenFailed` before that."""
    store = world.store
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        try:
            await _run_over_store(world, settings, task_status)
        finally:
            nursery.cancel_scope.cancel()


async def _run_over_store(world: World, settings: Settings, task_status: trio.TaskStatus[Node]) -> None:
    members = Members(world.key.peer_id, replication=settings.replication, members=world.store.members())
    mock = MockDHT(
        world.store,
        own=world.key.peer_id,
        now_ms=world.now_ms,
        wanted=members.wanted,
        deadline_seconds=settings.real_deadline_ms / 1000.0,
    )
    if world.network is None:
        task_status.started(_node(world, settings, mock, members, None))
        await trio.sleep_forever()
    else:
        await _run_in_swarm(world, settings, world.network, mock, members, task_status)


async def _run_in_swarm(
    world: World,
    settings: Settings,
    network: Network,
    mock: MockDHT,
    members: Members,
    task_status: trio.TaskStatus[Node],
) -> None:
    store, now_ms, conduct = world.store, world.now_ms, world.conduct
    conduct.part = network.disconnect
    calls = Calls(network, conduct=conduct, limits=world.limits)
    courier = Courier(calls)
    verified = Verified()
    gate = Gate(
        calls,
        members,
        threshold=settings.threshold_errors,
        backoff_seconds=settings.backoff_ms / 1000.0,
        chance=world.chance,
        now_ms=now_ms,
    )
    neighbours = Neighbours(
        network=network,
        calls=calls,
        members=members,
        store=store,
        network_name=settings.network,
        name=settings.name,
        finders=(Manual(settings.bootstrap),),
        forget_seconds=settings.forget_after_hours * 3600.0,
        now_ms=now_ms,
        chance=world.chance,
        on_sign_of_life=gate.sign_of_life,
        conduct=conduct,
    )
    calls.served = Server(
        store,
        neighbours,
        verified=verified,
        now_ms=now_ms,
        heard=lambda peer: gate.sign_of_life(f"a frame of {peer}"),
        conduct=conduct,
    )
    publisher = Publisher(
        store, courier, members, now_ms=now_ms, chance=world.chance, on_own_clock_ahead=lambda: reissuer.look()
    )
    sweeper = Sweeper(store, members, on_owed=publisher.look_again, on_forgotten=publisher.forget)
    backend = Backend(settings.backend)
    real = RealDHT(
        store=store,
        calls=calls,
        courier=courier,
        members=members,
        verified=verified,
        now_ms=now_ms,
        write_quorum=settings.write_quorum or 2,
        read_quorum=settings.read_quorum,
        deadline_seconds=settings.real_deadline_ms / 1000.0,
        conduct=conduct,
    )
    hybrid = HybridDHT(
        store=store,
        mock=mock,
        real=real,
        gate=gate,
        members=members,
        offer=publisher.offer,
        now_ms=now_ms,
        write_quorum=settings.write_quorum or 1,
        deadline_seconds=settings.deadline_ms / 1000.0,
        read_freshness_seconds=settings.read_freshness_ms / 1000.0,
        has_fallback=settings.fallback_on_error is not False,
    )
    backends: dict[Backend, DHT] = {Backend.MOCK: mock, Backend.REAL: real, Backend.HYBRID: hybrid}
    node = _node(world, settings, backends[backend], members, gate)
    reissuer = Reissuer(store, node.author, members, world.key, now_ms=now_ms)
    async with trio.open_nursery() as nursery:
        await nursery.start(calls.run)
        for task in (courier.run, gate.run, publisher.run, sweeper.run, reissuer.run):
            nursery.start_soon(task)
        await nursery.start(neighbours.run)
        task_status.started(node)


def _node(world: World, settings: Settings, dht: DHT, members: Members, gate: Gate | None) -> Node:
    deadlines_ms = {Backend.HYBRID: settings.deadline_ms}
    deadline_seconds = deadlines_ms.get(dht.backend, settings.real_deadline_ms) / 1000.0
    return Node(
        peer_id=world.key.peer_id,
        name=settings.name,
        network_name=settings.network,
        started_ms=world.now_ms(),
        dht=dht,
        author=Author(dht, world.store, world.key, now_ms=world.now_ms, deadline_seconds=deadline_seconds),
        resolver=Resolver(dht, world.store, deadline_seconds=deadline_seconds),
        store=world.store,
        members=members,
        health=Health(backend=dht.backend, store=world.store, members=members, gate=gate, now_ms=world.now_ms),
        network=world.network,
        gate=gate,
        conduct=world.conduct,
        now_ms=world.now_ms,
    )
