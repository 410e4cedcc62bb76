"""Puts a node together, and runs it in a world: a network, a store, a clock and chance, all handed in.

In a process the world is libp2p, SQLite and the machine's clock (`node/process/run.py`); in the simulator it is
memory, one seed and one virtual clock. Nothing below here knows which.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import trio

from discovery.api import Api
from discovery.finder import Finder
from discovery.manual import Manual
from node.config.flags import Flags, Force
from node.config.settings import Settings
from node.dht.base import DHT, Backend
from node.dht.call_health import CallRecord
from node.dht.call_metrics import Tally
from node.dht.circuit_breaker import Gate, Transition
from node.dht.dispatch import SwitchDHT
from node.dht.hybrid import HybridDHT, Offered
from node.dht.mock import MockDHT
from node.dht.real import RealDHT
from node.metrics import Meters
from node.node import Node
from node.node_metrics import Gauges
from node.services.control.audit import Audit
from node.services.control.audit_file import Journal, MemoryJournal
from node.services.control.flag_effects import Recorder, holds_otherwise, steer
from node.services.control.flag_store import FlagStore
from node.services.membership.finder_switch import Switched
from node.services.membership.neighbours import Neighbours
from node.services.observe.health import Health
from node.services.observe.probes import Probes
from node.services.reads.resolver import Resolver
from node.services.writes.author import Author
from node.services.writes.hint_assignment import Sweeper
from node.services.writes.hinted_handoff import Publisher
from node.services.writes.peer_server import Server
from node.services.writes.reissue import Reissuer
from node.store.base import Store
from node.swarm.base import Network
from node.swarm.delivery import Courier
from node.swarm.limits import USUAL, Limits
from node.swarm.members import Members
from node.swarm.peer_policy import Conduct
from node.swarm.rpc import Calls
from protocols.errors import InvalidPayload
from protocols.keys import PrivateKey
from protocols.policy.signature_cache import Verified


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
    journal: Journal = field(default_factory=MemoryJournal)
    """Where the audit log is kept."""
    verified: Verified = field(default_factory=Verified)
    """The signatures that were checked; many nodes in one process may share it."""


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
    audit = Audit(world.journal, world.key, now_ms=world.now_ms)
    refuse = _refuse_swarm if world.network is None else _refuse_nothing
    flags = FlagStore(settings, audit, now_ms=world.now_ms, refuse=refuse)
    meters = Meters() if settings.metrics_enabled else None
    tally = Tally(now_ms=world.now_ms)
    if meters:
        meters.register(tally.families)
    async with trio.open_nursery() as nursery:
        await flags.begin()
        nursery.start_soon(flags.run)
        if world.network is None:
            dht = SwitchDHT(
                flags.current,
                lambda f: {Backend.MOCK: _mock(world, members, f, tally)},
                store=world.store,
                tally=tally,
            )
            flags.subscribe(lambda _, after: dht.turn(after))
            node = _node(world, settings, dht, members, flags, audit, meters, tally)
            nursery.start_soon(node.resolver.run)
            nursery.start_soon(node.watch.run)
            task_status.started(node)
        else:
            await _run_in_swarm(world, settings, world.network, members, flags, audit, meters, tally, task_status)


def _refuse_nothing(_: Flags) -> None:
    pass


def _refuse_swarm(flags: Flags) -> None:
    """What a node that was started alone cannot turn to."""
    is_forced = flags.override is not None and flags.override.force is not Force.MOCK
    if flags.backend != "mock" or is_forced:
        name, value = ("override", flags.override.force) if is_forced and flags.override else ("backend", flags.backend)
        raise InvalidPayload(
            f"{name} {value} needs the swarm, and this node was started with backend mock: it has no host. Start it "
            "with backend hybrid; it can be turned to mock and back while it runs",
            field=name, provided=str(value), expected="mock",
        )  # fmt: skip


def _mock(world: World, members: Members, flags: Flags, tally: Tally) -> MockDHT:
    return MockDHT(
        world.store,
        own=world.key.peer_id,
        now_ms=world.now_ms,
        wanted=members.wanted,
        deadline_seconds=flags.real_deadline_ms / 1000.0,
        tally=tally,
    )


async def _run_in_swarm(
    world: World,
    settings: Settings,
    network: Network,
    members: Members,
    flags: FlagStore,
    audit: Audit,
    meters: Meters | None,
    tally: Tally,
    task_status: trio.TaskStatus[Node],
) -> None:
    store, now_ms, conduct = world.store, world.now_ms, world.conduct
    conduct.part = network.disconnect
    calls = Calls(network, conduct=conduct, limits=world.limits)
    courier = Courier(calls)
    verified = world.verified
    recorder = Recorder(audit, author=settings.name)
    gate = Gate(
        calls,
        members,
        threshold=flags.current.threshold_errors,
        backoff_seconds=flags.current.backoff_ms / 1000.0,
        chance=world.chance,
        now_ms=now_ms,
    )

    def transition(changed: Transition) -> None:
        recorder.changed(changed)
        node.watch.sign_of_life()

    def sign_of_life(evidence: str) -> None:
        gate.sign_of_life(evidence)
        node.watch.sign_of_life()

    gate.on_transition = transition
    finders = _finders(world, settings, flags)
    neighbours = Neighbours(
        network=network,
        calls=calls,
        members=members,
        store=store,
        network_name=settings.network,
        name=settings.name,
        finders=finders,
        forget_seconds=settings.forget_after_hours * 3600.0,
        now_ms=now_ms,
        chance=world.chance,
        on_sign_of_life=sign_of_life,
        conduct=conduct,
        limits=world.limits,
        may_exchange=lambda: flags.current.discovery_exchange,
    )
    calls.served = Server(
        store,
        neighbours,
        verified=verified,
        now_ms=now_ms,
        heard=gate.heard,
        conduct=conduct,
    )
    publisher = Publisher(
        store,
        courier,
        members,
        now_ms=now_ms,
        chance=world.chance,
        on_own_clock_ahead=lambda envelope: reissuer.refused(envelope.digest),
        holds_back=lambda key: flags.current.holds_back(key),
        watch=conduct.watch,
    )
    sweeper = Sweeper(store, members, on_owed=publisher.look_again, on_forgotten=publisher.forget)

    def backends(of: Flags) -> Mapping[Backend, DHT]:
        """The backends that these flags ask for, over what stays."""
        mock = _mock(world, members, of, tally)
        real = RealDHT(
            store=store,
            calls=calls,
            courier=courier,
            members=members,
            verified=verified,
            now_ms=now_ms,
            write_quorum=of.write_quorum or 2,
            read_quorum=of.read_quorum,
            deadline_seconds=of.real_deadline_ms / 1000.0,
            conduct=conduct,
        )
        hybrid = HybridDHT(
            store=store,
            mock=mock,
            real=real,
            gate=gate,
            members=members,
            offer=publisher.offer if of.sync_enabled else _offer_nobody,
            now_ms=now_ms,
            write_quorum=of.write_quorum or 1,
            deadline_seconds=of.deadline_ms / 1000.0,
            read_freshness_seconds=of.read_freshness_ms / 1000.0,
            has_fallback=of.has_fallback,
            tally=tally,
        )
        is_shut = of.override is not None and of.override.force is Force.OPEN
        # Real asks no breaker; hybrid without fallback, with the breaker open, is what it comes to: errors at once.
        return {Backend.MOCK: mock, Backend.REAL: hybrid if is_shut else real, Backend.HYBRID: hybrid}

    dht = SwitchDHT(
        flags.current,
        backends,
        store=store,
        may_ask=lambda: gate.lets_through,
        stretch=calls.round_trips.stretched,
        tally=tally,
    )

    def turned(before: Flags, after: Flags) -> None:
        dht.turn(after)
        steer(gate, before, after)
        if holds_otherwise(before, after):
            publisher.look_through()

    flags.subscribe(turned)
    node = _node(world, settings, dht, members, flags, audit, meters, tally, gate=gate, calls=calls, finders=finders)
    steer(gate, replace(flags.current, override=None), flags.current)
    reissuer = Reissuer(store, node.author, members, world.key, now_ms=now_ms)
    async with trio.open_nursery() as nursery:
        await nursery.start(calls.run)
        for task in (
            courier.run,
            gate.run,
            publisher.run,
            sweeper.run,
            reissuer.run,
            dht.run,
            recorder.run,
            node.watch.run,
            node.resolver.run,
        ):
            nursery.start_soon(task)
        await nursery.start(neighbours.run)
        task_status.started(node)


def _offer_nobody(*_: object, **__: object) -> Offered:
    """What is written is owed, and handed over once the flags allow it."""
    return Offered((), False)


def _finders(world: World, settings: Settings, flags: FlagStore) -> list[Finder]:
    """The configured nodes: those whose address is known, and those whose API is to be asked for it."""
    addresses = [node for node in settings.bootstrap if node.startswith("/")]
    apis = [node for node in settings.bootstrap if not node.startswith("/")]
    found: list[Finder] = [Manual(addresses), Api(apis, network=settings.network, chance=world.chance)]
    return [Switched(finder, lambda: flags.current.discovery_configured, flags.changed) for finder in found]


def _node(
    world: World,
    settings: Settings,
    dht: SwitchDHT,
    members: Members,
    flags: FlagStore,
    audit: Audit,
    meters: Meters | None,
    tally: Tally,
    *,
    gate: Gate | None = None,
    calls: Calls | None = None,
    finders: Sequence[Finder] = (),
) -> Node:
    """The node over its parts; without a gate and calls, one that is alone."""
    store, now_ms = world.store, world.now_ms
    resolver = Resolver(dht, store, flags=flags.current, fresh_since=members.fresh_since)
    flags.subscribe(lambda _, after: resolver.turn(after))
    requests = CallRecord()
    health = Health(
        dht=dht,
        flags=flags,
        store=store,
        members=members,
        gate=gate,
        resolver=resolver,
        finders=finders,
        sources=len(settings.bootstrap),
        probes=Probes(own=world.key.peer_id, store=store, resolver=resolver, members=members, calls=calls),
        tally=tally,
        requests=requests,
        now_ms=now_ms,
    )

    node = Node(
        peer_id=world.key.peer_id,
        name=settings.name,
        network_name=settings.network,
        started_ms=now_ms(),
        dht=dht,
        author=Author(dht, store, world.key, now_ms=now_ms),
        resolver=resolver,
        store=store,
        members=members,
        health=health,
        requests=requests,
        network=world.network,
        gate=gate,
        conduct=world.conduct,
        flags=flags,
        audit=audit,
        meters=meters,
        now_ms=now_ms,
    )
    if meters is not None:
        meters.register(Gauges(node).families)
    return node
