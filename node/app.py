"""Puts a node together, and runs it in a world: a network, a store, a clock and chance, all handed in.

In a process the world is libp2p, SQLite and the machine's clock (`node/process/run.py`); in the simulator it is
memory, one seed and one virtual clock. Nothing below here knows which.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import trio

from discovery.api import ApiFinder
from discovery.finder import Finder
from discovery.manual import ManualFinder
from node.config.flags import Flags, Force
from node.config.settings import Settings
from node.dht.base import DHT, Backend
from node.dht.call_health import CallHealth
from node.dht.call_metrics import CallMetrics
from node.dht.circuit_breaker import CircuitBreaker, Transition
from node.dht.dispatch import DispatchDHT
from node.dht.hybrid import HandoffResult, HybridDHT
from node.dht.mock import MockDHT
from node.dht.real import RealDHT
from node.metrics import Meters
from node.node import Node
from node.node_metrics import NodeMetrics
from node.services.control.audit import Audit
from node.services.control.audit_file import AuditStorage, MemoryAuditStorage
from node.services.control.flag_effects import BreakerAuditor, holds_otherwise, steer
from node.services.control.flag_store import FlagStore
from node.services.membership.finder_switch import FinderSwitch
from node.services.membership.neighbours import Neighbours
from node.services.observe.health import HealthMonitor
from node.services.observe.probes import Probes
from node.services.reads.resolver import Resolver
from node.services.writes.author import Author
from node.services.writes.hint_assignment import HintAssignment
from node.services.writes.hinted_handoff import HintedHandoff
from node.services.writes.peer_server import PeerServer
from node.services.writes.reissue import Reissuer
from node.store.base import Store
from node.swarm.base import Network
from node.swarm.delivery import Delivery
from node.swarm.limits import USUAL, SwarmLimits
from node.swarm.members import Members
from node.swarm.peer_policy import PeerPolicy
from node.swarm.rpc import Rpc
from protocols.errors import InvalidPayload
from protocols.keys import PrivateKey
from protocols.policy.signature_cache import SignatureCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a node lives in. `network` is None for the mock backend: no host, no socket."""

    key: PrivateKey
    network: Network | None
    store: Store
    now_ms: Callable[[], int]
    """The wall clock, Unix milliseconds. Deadlines run on trio's clock."""
    chance: Callable[[], float]
    """Draws from [0, 1)."""
    peer_policy: PeerPolicy = field(default_factory=PeerPolicy)
    """Whom the node deals with; the network asks it too."""
    limits: SwarmLimits = USUAL
    journal: AuditStorage = field(default_factory=MemoryAuditStorage)
    """Where the audit log is kept."""
    verified: SignatureCache = field(default_factory=SignatureCache)
    """The signatures that were checked; many nodes in one process may share it."""


async def run(
    world: Environment, settings: Settings, *, task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a node until cancelled; started with it once it answers calls. Raises `ListenFailed` before that."""
    store = world.store
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        try:
            await _run_over_store(world, settings, task_status)
        finally:
            nursery.cancel_scope.cancel()


async def _run_over_store(world: Environment, settings: Settings, task_status: trio.TaskStatus[Node]) -> None:
    members = Members(world.key.peer_id, replication=settings.replication, members=world.store.members())
    audit = Audit(world.journal, world.key, now_ms=world.now_ms)
    refuse = _refuse_swarm if world.network is None else _refuse_nothing
    flags = FlagStore(settings, audit, now_ms=world.now_ms, refuse=refuse)
    meters = Meters() if settings.metrics_enabled else None
    call_metrics = CallMetrics(now_ms=world.now_ms)
    if meters:
        meters.register(call_metrics.families)
    async with trio.open_nursery() as nursery:
        await flags.begin()
        nursery.start_soon(flags.run)
        if world.network is None:
            dht = DispatchDHT(
                flags.current,
                lambda f: {Backend.MOCK: _mock(world, members, f, call_metrics)},
                store=world.store,
                call_metrics=call_metrics,
            )
            flags.subscribe(lambda _, after: dht.turn(after))
            node = _node(world, settings, dht, members, flags, audit, meters, call_metrics)
            nursery.start_soon(node.resolver.run)
            nursery.start_soon(node.watch.run)
            task_status.started(node)
        else:
            await _run_in_swarm(
                world, settings, world.network, members, flags, audit, meters, call_metrics, task_status
            )


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


def _mock(world: Environment, members: Members, flags: Flags, call_metrics: CallMetrics) -> MockDHT:
    return MockDHT(
        world.store,
        own=world.key.peer_id,
        now_ms=world.now_ms,
        wanted=members.wanted,
        deadline_seconds=flags.real_deadline_ms / 1000.0,
        call_metrics=call_metrics,
    )


async def _run_in_swarm(
    world: Environment,
    settings: Settings,
    network: Network,
    members: Members,
    flags: FlagStore,
    audit: Audit,
    meters: Meters | None,
    call_metrics: CallMetrics,
    task_status: trio.TaskStatus[Node],
) -> None:
    store, now_ms, peer_policy = world.store, world.now_ms, world.peer_policy
    peer_policy.part = network.disconnect
    rpc = Rpc(network, peer_policy=peer_policy, limits=world.limits)
    delivery = Delivery(rpc)
    verified = world.verified
    recorder = BreakerAuditor(audit, author=settings.name)
    breaker = CircuitBreaker(
        rpc,
        members,
        threshold=flags.current.threshold_errors,
        backoff_seconds=flags.current.backoff_ms / 1000.0,
        chance=world.chance,
        now_ms=now_ms,
    )

    def breaker_change(changed: Transition) -> None:
        recorder.changed(changed)
        node.watch.sign_of_life()

    def sign_of_life(evidence: str) -> None:
        breaker.sign_of_life(evidence)
        node.watch.sign_of_life()

    breaker.on_breaker_change = breaker_change
    finders = _finders(world, settings, flags)
    neighbours = Neighbours(
        network=network,
        rpc=rpc,
        members=members,
        store=store,
        network_name=settings.network,
        name=settings.name,
        finders=finders,
        forget_seconds=settings.forget_after_hours * 3600.0,
        now_ms=now_ms,
        chance=world.chance,
        on_sign_of_life=sign_of_life,
        peer_policy=peer_policy,
        limits=world.limits,
        may_exchange=lambda: flags.current.discovery_exchange,
    )
    rpc.served = PeerServer(
        store,
        neighbours,
        verified=verified,
        now_ms=now_ms,
        heard=breaker.heard,
        peer_policy=peer_policy,
    )
    hinted_handoff = HintedHandoff(
        store,
        delivery,
        members,
        now_ms=now_ms,
        chance=world.chance,
        on_own_clock_ahead=lambda envelope: reissuer.refused(envelope.digest),
        holds_back=lambda key: flags.current.holds_back(key),
        watch=peer_policy.watch,
    )
    hint_assignment = HintAssignment(
        store, members, on_owed=hinted_handoff.look_again, on_forgotten=hinted_handoff.forget
    )

    def backends(of: Flags) -> Mapping[Backend, DHT]:
        """The backends that these flags ask for, over what stays."""
        mock = _mock(world, members, of, call_metrics)
        real = RealDHT(
            store=store,
            rpc=rpc,
            delivery=delivery,
            members=members,
            verified=verified,
            now_ms=now_ms,
            write_quorum=of.write_quorum or 2,
            read_quorum=of.read_quorum,
            deadline_seconds=of.real_deadline_ms / 1000.0,
            peer_policy=peer_policy,
        )
        hybrid = HybridDHT(
            store=store,
            mock=mock,
            real=real,
            breaker=breaker,
            members=members,
            offer=hinted_handoff.offer if of.sync_enabled else _offer_nobody,
            now_ms=now_ms,
            write_quorum=of.write_quorum or 1,
            deadline_seconds=of.deadline_ms / 1000.0,
            read_freshness_seconds=of.read_freshness_ms / 1000.0,
            has_fallback=of.has_fallback,
            call_metrics=call_metrics,
        )
        is_shut = of.override is not None and of.override.force is Force.OPEN
        # Real asks no breaker; hybrid without fallback, with the breaker open, is what it comes to: errors at once.
        return {Backend.MOCK: mock, Backend.REAL: hybrid if is_shut else real, Backend.HYBRID: hybrid}

    dht = DispatchDHT(
        flags.current,
        backends,
        store=store,
        may_ask=lambda: breaker.lets_through,
        stretch=rpc.round_trips.stretched,
        call_metrics=call_metrics,
    )

    def turned(before: Flags, after: Flags) -> None:
        dht.turn(after)
        steer(breaker, before, after)
        if holds_otherwise(before, after):
            hinted_handoff.look_through()

    flags.subscribe(turned)
    node = _node(
        world, settings, dht, members, flags, audit, meters, call_metrics, breaker=breaker, rpc=rpc, finders=finders
    )
    steer(breaker, replace(flags.current, override=None), flags.current)
    reissuer = Reissuer(store, node.author, members, world.key, now_ms=now_ms)
    async with trio.open_nursery() as nursery:
        await nursery.start(rpc.run)
        for task in (
            delivery.run,
            breaker.run,
            hinted_handoff.run,
            hint_assignment.run,
            reissuer.run,
            dht.run,
            recorder.run,
            node.watch.run,
            node.resolver.run,
        ):
            nursery.start_soon(task)
        await nursery.start(neighbours.run)
        task_status.started(node)


def _offer_nobody(*_: object, **__: object) -> HandoffResult:
    """What is written is owed, and handed over once the flags allow it."""
    return HandoffResult((), False)


def _finders(world: Environment, settings: Settings, flags: FlagStore) -> list[Finder]:
    """The configured nodes: those whose address is known, and those whose API is to be asked for it."""
    addresses = [node for node in settings.bootstrap if node.startswith("/")]
    apis = [node for node in settings.bootstrap if not node.startswith("/")]
    found: list[Finder] = [ManualFinder(addresses), ApiFinder(apis, network=settings.network, chance=world.chance)]
    return [FinderSwitch(finder, lambda: flags.current.discovery_configured, flags.changed) for finder in found]


def _node(
    world: Environment,
    settings: Settings,
    dht: DispatchDHT,
    members: Members,
    flags: FlagStore,
    audit: Audit,
    meters: Meters | None,
    call_metrics: CallMetrics,
    *,
    breaker: CircuitBreaker | None = None,
    rpc: Rpc | None = None,
    finders: Sequence[Finder] = (),
) -> Node:
    """The node over its parts; without a gate and calls, one that is alone."""
    store, now_ms = world.store, world.now_ms
    resolver = Resolver(dht, store, flags=flags.current, fresh_since=members.fresh_since)
    flags.subscribe(lambda _, after: resolver.turn(after))
    requests = CallHealth()
    health = HealthMonitor(
        dht=dht,
        flags=flags,
        store=store,
        members=members,
        breaker=breaker,
        resolver=resolver,
        finders=finders,
        sources=len(settings.bootstrap),
        probes=Probes(own=world.key.peer_id, store=store, resolver=resolver, members=members, rpc=rpc),
        call_metrics=call_metrics,
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
        breaker=breaker,
        peer_policy=world.peer_policy,
        flags=flags,
        audit=audit,
        meters=meters,
        now_ms=now_ms,
    )
    if meters is not None:
        meters.register(NodeMetrics(node).families)
    return node
