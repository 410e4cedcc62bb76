"""Health report: the facts of each component, collected on demand and judged by `protocols/policy/health.py`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from discovery.finder import Finder
from node.dht.base import DHT
from node.dht.circuit_breaker import CircuitBreaker
from node.services.control.flag_store import FlagStore
from node.services.observe.observations import Observations
from node.services.reads.resolver import Resolver
from node.services.replication.at_risk import RiskMonitor
from node.store.base import Store
from node.swarm.members import Members, Presence
from protocols.policy.breaker import BreakerState
from protocols.policy.health import (
    DiscoveryFacts,
    ReplicaFacts,
    Status,
    StoreFacts,
    SwarmFacts,
    judge_discovery,
    judge_observed,
    judge_replicas,
    judge_store,
    judge_swarm,
    lost_content,
    worst,
)
from protocols.policy.peer_events import MissingPeer
from protocols.policy.peer_faults import apart, unreached

SUSPECTS_NAMED_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentHealth:
    """One component. `latency_ms` is its last measured one (0: not measured yet)."""

    component: str
    backend: str
    status: str
    last_check_ms: int
    """When it was observed last, by a call or a probe."""
    error_count: int
    """Failed calls and probes since the start."""
    latency_ms: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    status: str
    reasons: tuple[str, ...]
    components: tuple[ComponentHealth, ...]


class HealthReporter:
    """Makes the report. `breaker` is None where there is no swarm."""

    def __init__(
        self,
        *,
        dht: DHT,
        flags: FlagStore,
        store: Store,
        members: Members,
        breaker: CircuitBreaker | None,
        resolver: Resolver,
        risk: RiskMonitor,
        twin: Callable[[], str],
        missing: Callable[[], list[MissingPeer]],
        finders: Sequence[Finder],
        observations: Observations,
        now_ms: Callable[[], int],
    ) -> None:
        # More than ten parameters, because the report is about every part of a node.
        self._backend = dht
        self._flags = flags
        self._store = store
        self._members = members
        self._breaker = breaker
        self._resolver = resolver
        self._risk = risk
        self._twin = twin
        self._missing = missing
        self._finders = tuple(finders)
        self._observations = observations
        self._now_ms = now_ms
        self._started_at = trio.current_time()

    def report(self) -> HealthReport:
        components = (
            self._dht(),
            self._resolution(),
            self._discovery(),
            self._api(),
            self._storage(),
            self._replicas(),
            self._configuration(),
        )
        status = worst([Status(component.status) for component in components])
        reasons = tuple(reason for component in components for reason in component.reasons)
        return HealthReport(status=status, reasons=reasons, components=components)

    def is_in_swarm(self) -> bool:
        """Whether the swarm may be asked: while the breaker is open it sends pings itself."""
        return self._backend.asks_swarm and self._breaker is not None and self._breaker.state is not BreakerState.OPEN

    def _last_ms(self, *times: float | None) -> int:
        """The latest of these times on trio's clock, as wall clock time; the start of the node when there is none."""
        at = max((at for at in times if at is not None), default=self._started_at)
        return self._now_ms() - int(max(0.0, trio.current_time() - at) * 1000.0)

    def _dht(self) -> ComponentHealth:
        breaker, probe, calls = self._breaker, self._observations.probes["dht"], self._observations.dht_calls
        connected = [p for p in self._members.all() if p.is_connected]
        suspects = self._observations.suspects.suspects()
        names = {p.member.peer: self._members.name_of(p.member.peer) for p in connected}
        believed, doubted = apart(self._missing(), names, trio.current_time())
        facts = SwarmFacts(
            backend=self._backend.backend,
            members=len(self._members),
            reachable=self._observations.suspects.reachable(),
            suspects=len(suspects),
            suspect_names=tuple(
                f"{p.member.name or p.member.peer[-8:]} ({p.suspect_why})" if p.suspect_why else p.member.name
                for p in suspects[:SUSPECTS_NAMED_MAX]
            ),
            breaker=breaker.state if breaker else BreakerState.CLOSED,
            breaker_why=breaker.why if breaker else "",
            clock_offsets_ms=tuple(p.clock_offset_ms for p in connected if p.clock_offset_ms is not None),
            calls_failing=calls.failing(),
            probe_failing=probe.failing() if self.is_in_swarm() else "",
            write_quorum=self._backend.write_quorum,
            twin=self._twin(),
            is_alone_by_choice=self._discovery_facts().is_alone_by_choice,
            away=tuple(p.member.name or p.member.peer[-8:] for p in self._members.all() if _is_away(p)),
            apart=believed,
            doubted=doubted,
        )
        status, reasons = judge_swarm(facts)
        return ComponentHealth(
            component="dht",
            backend=self._backend.backend,
            status=status,
            last_check_ms=self._last_ms(probe.last_at, calls.last_at),
            error_count=calls.errors + probe.errors,
            latency_ms=probe.latency_seconds * 1000.0,
            reasons=reasons,
        )

    def _resolution(self) -> ComponentHealth:
        probe, calls = self._observations.probes["resolver"], self._resolver.call_health
        lost = lost_content(self._resolver.lost_content)
        status, reasons = judge_observed(probe.failing(), calls.failing("look-ups"), lost)
        return ComponentHealth(
            component="resolver",
            backend="distributed" if self._flags.current.use_distributed_resolver else "local",
            status=status,
            last_check_ms=self._last_ms(probe.last_at, calls.last_at),
            error_count=probe.errors + calls.errors,
            latency_ms=probe.latency_seconds * 1000.0,
            reasons=reasons,
        )

    def _discovery(self) -> ComponentHealth:
        facts, finders = self._discovery_facts(), [finder.health() for finder in self._finders]
        status, reasons = judge_discovery(facts)
        return ComponentHealth(
            component="discovery",
            backend=", ".join(finder.kind for finder in finders if finder.is_on) or "none",
            status=status,
            last_check_ms=self._last_ms(*(finder.looked_at for finder in finders)),
            error_count=sum(finder.errors for finder in finders),
            latency_ms=max((finder.latency_seconds for finder in finders), default=0.0) * 1000.0,
            reasons=reasons,
        )

    def _discovery_facts(self) -> DiscoveryFacts:
        finders = [finder.health() for finder in self._finders]
        return DiscoveryFacts(
            sources=sum(finder.sources for finder in finders),
            faults=(*(fault for finder in finders for fault in finder.faults), *self._unreached()),
            members=len(self._members),
            reachable=self._observations.suspects.reachable(),
            searches=tuple(f.kind for f in finders if f.is_on and not f.sources and not f.needs_peers),
        )

    def _unreached(self) -> tuple[str, ...]:
        return unreached(self._missing()) if self._flags.current.discovery_manual else ()

    def _api(self) -> ComponentHealth:
        calls = self._observations.api_calls
        status, reasons = judge_observed(calls.failing("requests"))
        return ComponentHealth(
            component="api",
            backend="http",
            status=status,
            last_check_ms=self._last_ms(calls.last_at),
            error_count=calls.errors,
            latency_ms=calls.latency_seconds * 1000.0,
            reasons=reasons,
        )

    def _storage(self) -> ComponentHealth:
        pending, probe = self._store.pending(), self._observations.probes["store"]
        failure, since = self._store.last_failure, self._store.disk.committing_since
        status, reasons = judge_store(
            StoreFacts(
                failure=failure,
                pending=pending.count,
                refused=pending.refused,
                probe_failing=probe.failing(),
                taken_over=self._store.damage.taken_over,
                lacking=self._members.lacking(is_in_swarm=self._breaker is not None),
                set_aside=len(self._store.damage.set_aside),
                committing_seconds=0.0 if since is None else trio.current_time() - since,
                deadline_seconds=self._flags.current.store_deadline_ms / 1000.0,
                slow_disk=self._observations.disk.slow(),
            )
        )
        return ComponentHealth(
            component="store",
            backend="local",
            status=status,
            last_check_ms=self._last_ms(probe.last_at),
            error_count=self._store.failures + probe.errors,
            latency_ms=probe.latency_seconds * 1000.0,
            reasons=reasons,
        )

    def _replicas(self) -> ComponentHealth:
        risk, at = self._risk.last, self._risk.looked_at
        oldest_ms = self._now_ms() if risk.oldest_at_ms is None else risk.oldest_at_ms
        oldest_seconds = max(0, self._now_ms() - oldest_ms) / 1000.0
        status, reasons = judge_replicas(
            ReplicaFacts(at_risk=risk.addresses, oldest_seconds=oldest_seconds, held=self._risk.held)
        )
        return ComponentHealth(
            component="replicas",
            backend=self._backend.backend,
            status=status,
            last_check_ms=self._last_ms(at),
            error_count=0,
            latency_ms=0.0,
            reasons=reasons,
        )

    def _configuration(self) -> ComponentHealth:
        """The flags in force: degraded while one of them is forced, or a configuration was refused; failed while the
        audit log is lost."""
        faults, override = self._flags.faults, self._flags.current.override
        forced = f"{override.author} forces {override.force}: {override.reason}" if override else ""
        reasons = (*((forced,) if forced else ()), *faults)
        status = Status.DEGRADED if reasons else Status.HEALTHY
        if not self._flags.can_change:
            status = Status.FAILED
        return ComponentHealth(
            component="configuration",
            backend="local",
            status=status,
            last_check_ms=self._now_ms(),
            error_count=len(faults),
            latency_ms=0.0,
            reasons=reasons,
        )


def _is_away(presence: Presence) -> bool:
    return not presence.is_connected and not presence.is_idle
