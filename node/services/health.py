"""The health report: facts gathered from the parts, judged by `protocols/health.py`."""

from collections.abc import Callable
from dataclasses import dataclass

from node.dht.base import DHT
from node.dht.gate import Gate
from node.services.flags import FlagStore
from node.store.base import Store
from node.swarm.members import Members
from protocols.breaker import State
from protocols.health import Status, StoreFacts, SwarmFacts, judge_store, judge_swarm, worst


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentHealth:
    """One component. `latency_ms` is its last measured one (0: not measured yet)."""

    component: str
    backend: str
    status: str
    last_check_ms: int
    error_count: int
    latency_ms: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    status: str
    reasons: tuple[str, ...]
    components: tuple[ComponentHealth, ...]


class Health:
    """Judges when asked. `gate` is None on the mock backend."""

    def __init__(
        self,
        *,
        dht: DHT,
        flags: FlagStore,
        store: Store,
        members: Members,
        gate: Gate | None,
        now_ms: Callable[[], int],
    ) -> None:
        self._in_force = dht
        self._flags = flags
        self._store = store
        self._members = members
        self._gate = gate
        self._now_ms = now_ms

    def report(self) -> HealthReport:
        components = (self._dht(), self._kept(), self._configuration())
        status = worst([Status(component.status) for component in components])
        reasons = tuple(reason for component in components for reason in component.reasons)
        return HealthReport(status=status, reasons=reasons, components=components)

    def _dht(self) -> ComponentHealth:
        presences = self._members.all()
        connected = [p for p in presences if p.is_connected]
        facts = SwarmFacts(
            backend=self._in_force.backend,
            members=len(presences),
            reachable=len(self._members.reachable()),
            suspects=sum(p.is_suspect for p in connected),
            breaker=self._gate.state if self._gate else State.CLOSED,
            breaker_why=self._gate.why if self._gate else "",
            clock_offsets_ms=tuple(p.clock_offset_ms for p in connected if p.clock_offset_ms is not None),
        )
        status, reasons = judge_swarm(facts)
        trips = [p.round_trip_seconds for p in connected if p.round_trip_seconds is not None]
        openings = sum(t.after is State.OPEN for t in self._gate.transitions) if self._gate else 0
        return ComponentHealth(
            component="dht",
            backend=self._in_force.backend,
            status=status,
            last_check_ms=self._now_ms(),
            error_count=openings,
            latency_ms=sorted(trips)[len(trips) // 2] * 1000.0 if trips else 0.0,
            reasons=reasons,
        )

    def _configuration(self) -> ComponentHealth:
        """The flags in force: degraded while one of them is forced, or a configuration was refused."""
        faults, override = self._flags.faults, self._flags.current.override
        forced = f"{override.author} forces {override.force}: {override.reason}" if override else ""
        reasons = (*((forced,) if forced else ()), *faults)
        return ComponentHealth(
            component="configuration",
            backend="local",
            status=Status.DEGRADED if reasons else Status.HEALTHY,
            last_check_ms=self._now_ms(),
            error_count=len(faults),
            latency_ms=0.0,
            reasons=reasons,
        )

    def _kept(self) -> ComponentHealth:
        pending = self._store.pending()
        failure = self._store.last_failure
        status, reasons = judge_store(
            StoreFacts(
                failure=failure,
                pending=pending.count,
                oldest_pending_ms=pending.oldest_at_ms,
                refused=pending.refused,
            )
        )
        return ComponentHealth(
            component="store",
            backend="local",
            status=status,
            last_check_ms=self._now_ms(),
            error_count=int(bool(failure)),
            latency_ms=0.0,
            reasons=reasons,
        )
