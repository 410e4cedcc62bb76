"""Composition root: makes the parts of a node, and joins them.

Each function makes parts that are complete when they are made: there are no setters. Parts learn of later changes
through subscriptions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from node.config.flags import Flags, Force, refuse_nothing, refuse_swarm
from node.config.settings import Settings
from node.dht.base import DHT, Backend
from node.dht.call_metrics import CallMetrics
from node.dht.circuit_breaker import CircuitBreaker
from node.dht.dispatch import DispatchDHT
from node.dht.handoff import offer_nothing
from node.dht.hybrid import HybridDHT
from node.dht.mock import MockDHT
from node.dht.readable_heads import ReadableHeads
from node.dht.real import RealDHT
from node.environment import Environment
from node.metrics import Meters
from node.node import Node
from node.node_metrics import NodeMetrics
from node.services.control.audit import Audit
from node.services.control.capability_store import CapabilityStore
from node.services.control.flag_effects import BreakerAuditor, apply_to_breaker, changes_held_keys
from node.services.control.flag_store import FlagStore
from node.services.membership.directory import Directory
from node.services.membership.discovery import Discovery, Surroundings, discovery_of
from node.services.membership.log_continuity import LogContinuity, compare_with_last_run
from node.services.membership.peer_list import PeerList
from node.services.membership.this_node import ThisNode
from node.services.observe.health import HealthMonitor
from node.services.observe.health_report import HealthReporter
from node.services.observe.observations import Observations
from node.services.observe.probes import Probes
from node.services.reads.resolver import Resolver
from node.services.replication.absences import Absences
from node.services.replication.at_risk import RiskMonitor
from node.services.replication.replicator import Replicator
from node.services.writes.admission import Admission
from node.services.writes.author import Author
from node.services.writes.hint_assignment import HintAssignment
from node.services.writes.hint_retry import HintRetry
from node.services.writes.hinted_handoff import HintedHandoff
from node.services.writes.kademlia_records import KademliaRecords
from node.services.writes.receipts import Receipts
from node.services.writes.reissue import ClockRefusals
from node.store.base import Store
from node.store.marks import LOST_MARK, RECONCILED_MARK, UNPROVED_MARK
from node.swarm.base import Network
from node.swarm.delivery import Delivery
from node.swarm.kademlia.holder_search import HolderSearch
from node.swarm.kademlia.kademlia import Kademlia
from node.swarm.kademlia.provider_book import ProviderBook
from node.swarm.members import Members
from node.swarm.reconciliation import Reconciliation
from node.swarm.rpc import Rpc
from protocols.policy.own_addresses import AddressRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The parts that every node has, whether it has a network or not."""

    environment: Environment
    settings: Settings
    members: Members
    audit: Audit
    flags: FlagStore
    capabilities: CapabilityStore
    meters: Meters | None
    call_metrics: CallMetrics
    readable: ReadableHeads
    providers: ProviderBook
    """Who provides a key of the DHT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmParts:
    """The parts of a node that speak with other nodes."""

    this_node: ThisNode
    rpc: Rpc
    kademlia: Kademlia
    holder_search: HolderSearch
    delivery: Delivery
    breaker: CircuitBreaker
    auditor: BreakerAuditor
    log_continuity: LogContinuity
    refusals: ClockRefusals
    handoff: HintedHandoff
    assignment: HintAssignment
    absences: Absences
    replicator: Replicator

    def knows_hints(self, peer: str) -> bool:
        """Whether this node knows all that a member may lack and should get from it."""
        is_known = self.assignment.has_assigned(peer) and not self.replicator.is_behind(peer)
        return is_known and not self.log_continuity.has_lost(peer)


def make_base(environment: Environment, settings: Settings) -> Base:
    store = environment.store
    audit = Audit(
        environment.audit_storage, environment.key, now_ms=environment.now_ms, marks=store, log_id=store.log_id
    )
    refuse = refuse_swarm if environment.network is None else refuse_nothing
    meters = Meters() if settings.metrics_enabled else None
    call_metrics = CallMetrics(now_ms=environment.now_ms)
    if meters:
        meters.register(call_metrics.families)
    return Base(
        environment=environment,
        settings=settings,
        members=Members(
            environment.key.peer_id,
            replication=settings.replication,
            connections_kept=settings.connections_kept,
            members=store.members(),
            reconciliation=_reconciliation(store, audit),
        ),
        audit=audit,
        flags=FlagStore(settings, audit, now_ms=environment.now_ms, refuse=refuse),
        capabilities=CapabilityStore(settings.capabilities, audit, store),
        meters=meters,
        call_metrics=call_metrics,
        readable=ReadableHeads(store),
        providers=ProviderBook(expiry_seconds=settings.provider_expiry_hours * 3600.0),
    )


def _reconciliation(store: Store, audit: Audit) -> Reconciliation:
    """What the store lost, in an earlier run or before this one, and how far it has got since; and the members that
    have yet to say whether it lost anything."""
    unheard: list[str] = []
    if store.mark(UNPROVED_MARK) and not (unheard := [member.peer for member in store.members()]):
        store.set_mark(UNPROVED_MARK, "")
    reconciliation = Reconciliation(
        store.mark(LOST_MARK) or "", int(store.mark(RECONCILED_MARK) or 0), is_new=bool(store.damage.lost),
        unheard=unheard,
    )  # fmt: skip
    compare_with_last_run(store, reconciliation, audit.last_log)
    return reconciliation


def make_swarm(base: Base, network: Network) -> SwarmParts:
    environment, flags, members = base.environment, base.flags, base.members
    peer_policy, now_ms, chance = environment.peer_policy, environment.now_ms, environment.chance
    peer_policy.on_forfeit(network.disconnect)
    rpc = Rpc(network, peer_policy=peer_policy, limits=environment.limits)
    log_continuity = LogContinuity(environment.store, members, now_ms=now_ms)
    delivery = Delivery(rpc, last_sequence=lambda: environment.store.last_sequence, on_sequence=log_continuity.heard)
    breaker = CircuitBreaker(
        rpc,
        members,
        threshold=flags.current.threshold_errors,
        backoff_seconds=flags.current.backoff_ms / 1000.0,
        chance=chance,
        now_ms=now_ms,
    )
    refusals = ClockRefusals()
    retry = HintRetry(
        environment.store,
        own=members.own,
        now_ms=now_ms,
        chance=chance,
        on_own_clock_ahead=lambda envelope: refusals.add(envelope.digest),
        limit_counters=peer_policy.limit_counters,
    )
    handoff = HintedHandoff(
        environment.store,
        delivery,
        members,
        retry=retry,
        now_ms=now_ms,
        holds_back=lambda key: flags.current.holds_back(key),
    )
    this_node = ThisNode(
        network,
        name=base.settings.name,
        network_name=base.settings.network,
        rules=AddressRules(only=base.settings.announce, excluded=base.settings.no_announce),
    )
    kademlia = _kademlia(base, network, this_node)
    return SwarmParts(
        this_node=this_node,
        rpc=rpc,
        kademlia=kademlia,
        holder_search=HolderSearch(members, kademlia.lookups.find_node, contacts=lambda: len(kademlia.routing.table)),
        delivery=delivery,
        breaker=breaker,
        auditor=BreakerAuditor(base.audit, breaker, author=base.settings.name),
        log_continuity=log_continuity,
        refusals=refusals,
        handoff=handoff,
        assignment=HintAssignment(
            environment.store, members, on_hints_added=handoff.hints_added, on_forgotten=handoff.forget
        ),
        absences=Absences(members, grace_seconds=base.settings.replica_grace_ms / 1000.0),
        replicator=_replicator(base, rpc, delivery),
    )


def _replicator(base: Base, rpc: Rpc, delivery: Delivery) -> Replicator:
    flags = base.flags
    return Replicator(
        base.environment.store,
        base.members,
        rpc=rpc,
        delivery=delivery,
        now_ms=base.environment.now_ms,
        bytes_per_second=base.settings.repair_bytes_per_second,
        is_on=lambda: flags.current.sync_enabled and flags.current.in_force != "mock",
    )


def _kademlia(base: Base, network: Network, this_node: ThisNode) -> Kademlia:
    environment, members = base.environment, base.members
    records = KademliaRecords(
        environment.store,
        readable=base.readable,
        verified=environment.verified,
        peer_policy=environment.peer_policy,
        now_ms=environment.now_ms,
    )
    return Kademlia(
        network,
        records,
        base.providers,
        environment.peer_policy,
        chance=environment.chance,
        is_here=this_node.is_here,
        own_addresses=this_node.addresses_for,
        addresses_of=lambda peer: known.member.addresses if (known := members.get(peer)) else (),
    )


def make_discovery(base: Base, swarm: SwarmParts, dht: DispatchDHT) -> Discovery:
    environment, flags, capabilities = base.environment, base.flags, base.capabilities
    surroundings = Surroundings(
        key=environment.key,
        this_node=swarm.this_node,
        settings=base.settings,
        rpc=swarm.rpc,
        members=base.members,
        store=environment.store,
        log_continuity=swarm.log_continuity,
        knows_hints=swarm.knows_hints,
        capabilities=lambda: capabilities.current,
        flags=lambda: flags.current,
        flags_changed=flags.changed,
        on_sign_of_life=swarm.breaker.sign_of_life,
        on_foreign=swarm.kademlia.routing.ban,
        contacts=lambda: len(swarm.kademlia.routing.table),
        now_ms=environment.now_ms,
        chance=environment.chance,
        mdns=environment.mdns,
    )
    discovery = discovery_of(surroundings, dht)
    capabilities.subscribe(discovery.announce.changed)
    return discovery


def make_mock(base: Base, flags: Flags) -> MockDHT:
    return MockDHT(
        base.environment.store,
        own=base.environment.key.peer_id,
        providers=base.providers,
        now_ms=base.environment.now_ms,
        readable=base.readable,
        wanted=base.members.wanted,
        deadline_seconds=flags.store_deadline_ms / 1000.0,
        call_metrics=base.call_metrics,
    )


def _backends(base: Base, swarm: SwarmParts, flags: Flags) -> Mapping[Backend, DHT]:
    """The backends for these flags, over the parts that stay when flags change."""
    environment = base.environment
    mock = make_mock(base, flags)
    real = RealDHT(
        store=environment.store,
        rpc=swarm.rpc,
        delivery=swarm.delivery,
        members=base.members,
        kademlia=swarm.kademlia,
        readable=base.readable,
        verified=environment.verified,
        now_ms=environment.now_ms,
        flags=flags,
        holder_search=swarm.holder_search,
    )
    hybrid = HybridDHT(
        store=environment.store,
        mock=mock,
        real=real,
        breaker=swarm.breaker,
        members=base.members,
        readable=base.readable,
        offer=swarm.handoff.offer if flags.sync_enabled else offer_nothing,
        now_ms=environment.now_ms,
        flags=flags,
        call_metrics=base.call_metrics,
    )
    # Real asks no breaker. With the breaker forced open, real behaves like hybrid without fallback: it fails fast.
    is_forced_open = flags.override is not None and flags.override.force is Force.OPEN
    return {Backend.MOCK: mock, Backend.REAL: hybrid if is_forced_open else real, Backend.HYBRID: hybrid}


def make_dht(base: Base, swarm: SwarmParts) -> DispatchDHT:
    breaker = swarm.breaker
    dht = DispatchDHT(
        base.flags.current,
        lambda flags: _backends(base, swarm, flags),
        store=base.environment.store,
        may_ask=lambda: breaker.is_closed,
        call_metrics=base.call_metrics,
    )

    def on_flags_changed(before: Flags, after: Flags) -> None:
        dht.use_flags(after)
        apply_to_breaker(breaker, before, after)
        if changes_held_keys(before, after):
            swarm.handoff.rescan()

    base.flags.subscribe(on_flags_changed)
    return dht


def _monitor(
    base: Base,
    dht: DispatchDHT,
    resolver: Resolver,
    risk: RiskMonitor,
    swarm: SwarmParts | None,
    discovery: Discovery | None,
) -> HealthMonitor:
    environment, flags, members = base.environment, base.flags, base.members
    store, breaker = environment.store, swarm.breaker if swarm else None
    observations = Observations(
        members, base.call_metrics.call_health, disk=store.disk, slow_ms=lambda: flags.current.store_slow_ms
    )
    reporter = HealthReporter(
        dht=dht,
        flags=flags,
        store=store,
        members=members,
        breaker=breaker,
        resolver=resolver,
        risk=risk,
        twin=lambda: environment.network.twin if environment.network else "",
        missing=discovery.neighbours.missing if discovery else list,
        finders=discovery.finders if discovery else (),
        observations=observations,
        now_ms=environment.now_ms,
    )
    probes = Probes(
        own=environment.key.peer_id, store=store, resolver=resolver, members=members, rpc=swarm.rpc if swarm else None
    )
    return HealthMonitor(
        reporter, observations, probes, flags=flags, store=store, members=members, breaker=breaker, resolver=resolver
    )


def make_node(base: Base, dht: DispatchDHT, swarm: SwarmParts | None, discovery: Discovery | None) -> Node:
    """The node over its parts; without a swarm on the mock backend."""
    environment, flags, members = base.environment, base.flags, base.members
    store, now_ms = environment.store, environment.now_ms
    resolver = Resolver(dht, store, flags=flags.current, readable=base.readable)
    flags.subscribe(lambda _, after: resolver.use_flags(after))
    receipts = Receipts(dht, store)
    risk = RiskMonitor(
        store,
        members,
        feeding=swarm.replicator.feeding if swarm else None,
        held=(lambda: swarm.absences.held) if swarm else lambda: "",
    )
    node = Node(
        peer_id=environment.key.peer_id,
        name=base.settings.name,
        network_name=base.settings.network,
        is_private=base.settings.network_key is not None,
        started_ms=now_ms(),
        dht=dht,
        author=Author(dht, store, environment.key, receipts, now_ms=now_ms, reconciliation=members.reconciliation),
        receipts=receipts,
        admission=Admission(),
        resolver=resolver,
        store=store,
        members=members,
        peer_list=PeerList(
            members,
            store,
            environment.peer_policy,
            picture=discovery.neighbours.picture if discovery else list,
            now_ms=now_ms,
        ),
        monitor=_monitor(base, dht, resolver, risk, swarm, discovery),
        risk=risk,
        replicator=swarm.replicator if swarm else None,
        finders=discovery.finders if discovery else (),
        network=environment.network,
        breaker=swarm.breaker if swarm else None,
        kademlia=swarm.kademlia if swarm else None,
        peer_policy=environment.peer_policy,
        flags=flags,
        audit=base.audit,
        capabilities=base.capabilities,
        directory=Directory(
            members,
            name=base.settings.name,
            addresses=lambda: environment.network.addresses if environment.network else (),
            capabilities=lambda: base.capabilities.current,
            announced=discovery.announce.announcements if discovery else tuple,
            is_listed=environment.peer_policy.is_listed,
        ),
        meters=base.meters,
        now_ms=now_ms,
        forget_member=discovery.neighbours.forget if discovery else members.forget,
        leave=discovery.announce.leave if discovery else trio.lowlevel.checkpoint,
    )
    if base.meters is not None:
        base.meters.register(NodeMetrics(node).families)
    return node
