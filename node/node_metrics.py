"""Node metrics: the state of a node as numbers: its flags, breaker, hints, store and swarm.

Nothing is counted here: the parts are asked for their numbers each time that the metrics are read.
"""

import platform
from collections.abc import Iterator

from node.dht.base import Backend
from node.dht.circuit_breaker import CircuitBreaker
from node.metrics import Family, MetricKind, counter, gauge, state
from node.node import Node
from node.services.membership.peer_list import PeerState
from node.swarm.kademlia.kademlia import Kademlia
from node.version import version
from protocols.policy.breaker import BreakerState


class NodeMetrics:
    """The metrics of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def families(self) -> Iterator[Family]:
        yield from self._identity()
        yield from self._backend()
        yield from self._resolver()
        if self._node.breaker is not None:
            yield from _breaker(self._node.breaker)
        yield from self._admission()
        yield from self._hints()
        yield from self._replicas()
        yield from self._store()
        yield from self._swarm()
        yield from self._discovery()
        if self._node.kademlia is not None:
            yield from _kademlia(self._node.kademlia)

    def _identity(self) -> Iterator[Family]:
        node = self._node
        build_labels = ("version", "python")
        build = (version(), platform.python_version())
        yield Family(
            "bzzz_build_info",
            "The version of this node and of its Python; always 1.",
            MetricKind.GAUGE,
            build_labels,
            {build: 1.0},
        )
        info_labels = ("name", "network", "peer_id")
        info = (node.name, node.network_name, node.peer_id)
        yield Family(
            "bzzz_node_info",
            "The name, network and peer id of this node; always 1.",
            MetricKind.GAUGE,
            info_labels,
            {info: 1.0},
        )
        started = node.started_ms / 1000.0
        yield gauge("bzzz_node_start_time_seconds", "When this node started, since the Unix epoch.", started)

    def _backend(self) -> Iterator[Family]:
        dht, flags = self._node.dht, self._node.flags.current
        names = [backend.value for backend in Backend]
        yield state("bzzz_dht_backend", "Which backend is in force: 1.", "backend", names, dht.backend.value)
        yield gauge(
            "bzzz_dht_rollout_ratio",
            "The share of addresses that the backend in force is used for.",
            flags.rollout_percent / 100.0,
        )
        forced = float(flags.override is not None)
        yield gauge("bzzz_flags_override_active", "1 while an override is in force.", forced)
        yield counter(
            "bzzz_dht_switches_total", "How often a change of flags changed the backend in force.", dht.switches
        )
        results: dict[tuple[str, ...], float] = {
            ("compared",): dht.shadow_reads,
            ("failed",): dht.shadow_failures,
            ("skipped",): dht.shadow_skipped,
        }
        yield Family(
            "bzzz_dht_shadow_reads_total", "Shadow reads of the swarm.", MetricKind.COUNTER, ("result",), results
        )
        mismatches = dht.shadow_mismatches
        yield counter(
            "bzzz_dht_shadow_mismatches_total",
            "Shadow reads in which the swarm knew a head that this node lacked.",
            mismatches,
        )

    def _resolver(self) -> Iterator[Family]:
        counts = self._node.resolver.counts
        lookups: dict[tuple[str, ...], float] = {
            ("hit",): counts.hits,
            ("miss",): counts.misses,
            ("expired",): counts.expired,
            ("coalesced",): counts.coalesced,
        }
        what = "Reads that the resolver's cache was asked for, by result."
        yield Family("bzzz_resolver_lookups_total", what, MetricKind.COUNTER, ("result",), lookups)
        dropped: dict[tuple[str, ...], float] = {("changed",): counts.invalidated, ("room",): counts.evicted}
        what = "Answers that the resolver's cache dropped, by reason."
        yield Family("bzzz_resolver_dropped_total", what, MetricKind.COUNTER, ("reason",), dropped)
        lost = self._node.resolver.lost_content
        what = "Versions that are known and were asked for in the last minute, and whose content no holder had."
        yield gauge("bzzz_resolver_without_content", what, lost)
        yield gauge("bzzz_resolver_entries", "Answers in the resolver's cache.", counts.entries)
        yield gauge("bzzz_resolver_bytes", "The size of the answers in the resolver's cache.", counts.size_bytes)

    def _admission(self) -> Iterator[Family]:
        admission = self._node.admission
        yield gauge("bzzz_writes_waiting", "Writes of callers that wait for their turn.", admission.waiting)
        what = "Writes of callers that were refused: they would have missed their deadline behind other writes."
        yield counter("bzzz_writes_refused_total", what, admission.refused)

    def _hints(self) -> Iterator[Family]:
        pending = self._node.store.pending()
        oldest = 0.0 if pending.oldest_at_ms is None else max(0, self._node.now_ms() - pending.oldest_at_ms) / 1000.0
        yield gauge("bzzz_hints_owed", "Hints: copies that this node has yet to deliver to other nodes.", pending.count)
        yield gauge(
            "bzzz_hints_quarantined", "Hints in quarantine: copies that a holder refused for good.", pending.refused
        )
        yield gauge("bzzz_hints_oldest_age_seconds", "The age of the oldest write that has a hint.", oldest)
        at_risk = self._node.store.stats().at_risk
        yield gauge("bzzz_writes_at_risk", "Writes of this node that fewer nodes have than wanted.", at_risk)

    def _replicas(self) -> Iterator[Family]:
        risk, now_ms = self._node.risk.last, self._node.now_ms()
        what = "Addresses of which fewer nodes have the versions than should, as far as this node knows."
        yield gauge("bzzz_replicas_at_risk", what, risk.addresses)
        oldest = 0.0 if risk.oldest_at_ms is None else max(0, now_ms - risk.oldest_at_ms) / 1000.0
        yield gauge("bzzz_replicas_at_risk_oldest_age_seconds", "The age of the oldest write among them.", oldest)
        gone = len(self._node.members.replaced)
        yield gauge("bzzz_replicas_members_replaced", "Members that are gone, and in whose place others hold.", gone)
        held = float(bool(self._node.risk.held))
        yield gauge("bzzz_replicas_held", "1 while most members are away at once, and none is replaced.", held)
        if (replicator := self._node.replicator) is not None:
            what = "Versions of others: those that other holders were asked whether they lack, and those sent to them."
            events: dict[tuple[str, ...], float] = {
                ("asked",): replicator.versions_asked,
                ("sent",): replicator.versions_sent,
            }
            yield Family("bzzz_replicas_versions_total", what, MetricKind.COUNTER, ("event",), events)
            sent = replicator.bytes_sent
            yield counter("bzzz_replicas_sent_bytes_total", "The bytes of versions sent to other holders.", sent)

    def _store(self) -> Iterator[Family]:
        store = self._node.store
        stats = store.stats()
        yield gauge("bzzz_store_versions", "Versions that this node holds or knows of.", stats.versions)
        yield gauge("bzzz_store_log_sequence", "The last entry of this node's log.", store.last_sequence)
        if stats.size_bytes is not None:
            yield gauge("bzzz_store_size_bytes", "The store's files on the disk.", stats.size_bytes)
        yield counter("bzzz_store_commits_total", "Transactions committed since the start.", stats.commits)
        failures = stats.commit_failures
        yield counter("bzzz_store_commit_failures_total", "Transactions that failed since the start.", failures)
        for name, help, histogram in (
            ("bzzz_store_commit_seconds", "From a batch of writes to the end of its commit.", store.disk.commits),
            ("bzzz_store_sync_seconds", "The sync of the file in it.", store.disk.syncs),
        ):
            yield Family(name, help, MetricKind.HISTOGRAM, (), {(): histogram})
        is_failing = float(bool(store.last_failure))
        damage = store.damage
        yield counter("bzzz_store_damaged_total", "Damaged rows that were found since the start.", damage.found)
        yield gauge(
            "bzzz_store_set_aside",
            "Versions whose content is damaged and not fetched again yet.",
            len(damage.set_aside),
        )
        yield gauge("bzzz_store_failing", "1 while the last transaction failed.", is_failing)

    def _swarm(self) -> Iterator[Family]:
        peers = [peer for peer in self._node.peers() if peer.is_member]
        reachable = sum(peer.is_connected and not peer.is_suspect for peer in peers)
        yield gauge("bzzz_swarm_members", "Other members of the swarm that this node remembers.", len(peers))
        yield gauge("bzzz_swarm_connected", "Members that are connected.", sum(p.is_connected for p in peers))
        idle = sum(p.state is PeerState.IDLE for p in peers)
        yield gauge("bzzz_swarm_idle", "Members that need not be connected, and are dialled when wanted.", idle)
        yield gauge("bzzz_swarm_reachable", "Members that are connected and not suspect.", reachable)
        offsets = [abs(peer.clock_offset_ms) / 1000.0 for peer in peers if peer.clock_offset_ms is not None]
        yield gauge(
            "bzzz_swarm_clock_offset_max_seconds",
            "The largest difference between this node's clock and that of a member.",
            max(offsets, default=0.0),
        )  # fmt: skip
        kinds: dict[tuple[str, ...], float] = {(kind,): count for kind, count in self._node.counters().items()}
        yield Family(
            "bzzz_swarm_limits_total",
            "How often each limit for peers was hit, and how much from peers was refused.",
            MetricKind.COUNTER, ("kind",), kinds,
        )  # fmt: skip

    def _discovery(self) -> Iterator[Family]:
        finders = [finder.health() for finder in self._node.finders]
        events: dict[tuple[str, ...], float] = {
            (finder.kind, event): count for finder in finders for event, count in finder.counts.items()
        }
        if events:
            what = "What a finder sent, heard and dropped."
            yield Family("bzzz_discovery_events_total", what, MetricKind.COUNTER, ("finder", "event"), events)


def _kademlia(dht: Kademlia) -> Iterator[Family]:
    yield gauge("bzzz_kad_contacts", "Peers in the routing table of the DHT.", len(dht.routing.table))
    changes: dict[tuple[str, ...], float] = {("added",): dht.routing.added, ("dropped",): dht.routing.dropped}
    what = "Contacts that entered the routing table, or left it."
    yield Family("bzzz_kad_contact_changes_total", what, MetricKind.COUNTER, ("event",), changes)
    requests: dict[tuple[str, ...], float] = {
        (kind, result): count
        for result, counts in (
            ("served", dht.server.served),
            ("refused", dht.server.failed),
            ("asked", dht.client.asked),
            ("failed", dht.client.failed),
        )
        for kind, count in counts.items()
    }
    what = "Requests in the DHT: of peers, served or refused; of this node, all that it asked, and those that failed."
    yield Family("bzzz_kad_requests_total", what, MetricKind.COUNTER, ("kind", "result"), requests)
    dials: dict[tuple[str, ...], float] = {("all",): dht.client.dialled, ("failed",): dht.client.dials_failed}
    what = "Peers that were dialled because a request needed them."
    yield Family("bzzz_kad_dials_total", what, MetricKind.COUNTER, ("result",), dials)
    lookups: dict[tuple[str, ...], float] = {(outcome,): count for outcome, count in dht.lookups.ended.items()}
    yield Family("bzzz_kad_lookups_total", "Lookups by their outcome.", MetricKind.COUNTER, ("outcome",), lookups)
    yield counter("bzzz_kad_lookup_requests_total", "Requests that lookups made.", dht.lookups.requests)
    announced: dict[tuple[str, ...], float] = {("taken",): dht.announcer.taken, ("failed",): dht.announcer.failed}
    what = "Keys that this node said that it provides: taken by one peer at least, or by none."
    yield Family("bzzz_kad_announced_total", what, MetricKind.COUNTER, ("result",), announced)
    records = dht.providers.records
    yield gauge("bzzz_kad_provider_records", "Keys of the DHT that peers provide, of each peer.", len(records))
    dropped: dict[tuple[str, ...], float] = {(why,): count for why, count in records.dropped.items()}
    what = "Provider records that were dropped, or not taken, by the reason."
    yield Family("bzzz_kad_provider_records_dropped_total", what, MetricKind.COUNTER, ("reason",), dropped)


def _breaker(breaker: CircuitBreaker) -> Iterator[Family]:
    states = [each.value for each in BreakerState]
    yield state("bzzz_breaker_state", "The state of the breaker to the swarm: 1.", "state", states, breaker.state.value)
    yield counter("bzzz_breaker_openings_total", "How often the breaker opened.", breaker.openings)
    yield counter("bzzz_breaker_recoveries_total", "How often the breaker closed again.", breaker.recoveries)
    if breaker.opened_at_ms is not None:
        opened = breaker.opened_at_ms / 1000.0
        yield gauge("bzzz_breaker_last_opening_timestamp_seconds", "When the breaker last opened.", opened)
    if breaker.recovered_at_ms is not None:
        recovered = breaker.recovered_at_ms / 1000.0
        yield gauge("bzzz_breaker_last_recovery_timestamp_seconds", "When the breaker last closed again.", recovered)
