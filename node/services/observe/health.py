"""The health report: facts gathered from the parts, judged by `protocols/policy/health.py`.

Facts are looked at when the report is asked for, so it is never older than they are. What can only be observed is
observed by every call (`node/dht/call_metrics.py`), and by probes (`probes.py`) at each interval, which a flag sets.
Where an observation stirs something, and where something is wrong, the next probe comes soon instead: neither an
illness nor a recovery waits for the interval. So does one after a sign of life.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf

import trio

from discovery.finder import Finder
from node.dht.base import DHT
from node.dht.call_health import CallHealth
from node.dht.call_metrics import CallMetrics
from node.dht.circuit_breaker import CircuitBreaker
from node.services.control.flag_store import FlagStore
from node.services.observe.probes import ProbeResult, Probes
from node.services.reads.resolver import Resolver
from node.store.base import Store
from node.swarm.members import Members, Presence
from protocols.policy.breaker import BreakerState
from protocols.policy.health import (
    DiscoveryFacts,
    Status,
    StoreFacts,
    SwarmFacts,
    judge_discovery,
    judge_observed,
    judge_store,
    judge_swarm,
    worst,
)
from protocols.policy.hysteresis import Hysteresis

SOON_SECONDS = 0.5
"""When to look again at what is stirred, or wrong."""
APART_SECONDS = 0.3
"""Observations closer together are one: a switch that goes off takes all peers at once, and that is one event."""
TOGETHER_SECONDS = 0.1
"""The least time between two rounds of probes, whatever happens."""
WRITE_SECONDS = 2.0
"""How often a store that could not write tries to, when nobody else does."""
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
    """What failed since the start: calls and probes."""
    latency_ms: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    status: str
    reasons: tuple[str, ...]
    components: tuple[ComponentHealth, ...]


class _Probed:
    """What probes of one component came to."""

    def __init__(self) -> None:
        self.steady = Hysteresis(worse_after=2, better_after=2, within_seconds=10.0, apart_seconds=APART_SECONDS)
        self.errors = 0
        self.at: float | None = None
        self.latency_seconds = 0.0

    def saw(self, seen: ProbeResult, now: float) -> None:
        self.at = now
        if seen.failing:
            self.errors += 1
            self.steady.observe_bad(seen.failing, now)
        else:
            self.latency_seconds = seen.seconds
            self.steady.observe_good(now)

    def failing(self, now: float) -> str:
        return self.steady.why if self.steady.is_bad(now) else ""


class HealthMonitor:
    """Judges when asked; probes while it runs. `breaker` is None where there is no swarm."""

    def __init__(
        self,
        *,
        dht: DHT,
        flags: FlagStore,
        store: Store,
        members: Members,
        breaker: CircuitBreaker | None,
        resolver: Resolver,
        finders: Sequence[Finder],
        probes: Probes,
        call_metrics: CallMetrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._in_force = dht
        self._flags = flags
        self._store = store
        self._members = members
        self._breaker = breaker
        self._resolver = resolver
        self._finders = tuple(finders)
        self._probes = probes
        self._calls = call_metrics.call_health
        self.requests = CallHealth()
        """Of the API: whoever answers a request records here how it ended."""
        self._now_ms = now_ms
        self._started_at = trio.current_time()
        self._probed = {name: _Probed() for name in ("dht", "store", "resolver")}
        self._suspects = Hysteresis(worse_after=2, better_after=2, within_seconds=10.0, apart_seconds=APART_SECONDS)
        self._suspected: tuple[Presence, ...] = ()
        """Those whom the last look found suspect, or the last one that found any."""
        self._probed_at = -inf
        self._is_asked = False
        self._is_writing = False
        self._wrote_at = -inf
        self._news = trio.Event()
        for record in (self._calls, self.requests, resolver.call_health):
            record.subscribe(self.look)
        if breaker is not None:
            breaker.subscribe(on_change=lambda _: self.sign_of_life(), on_sign_of_life=self.sign_of_life)

    # -- looking ----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Something may be otherwise than it was: take notice, now."""
        now = trio.current_time()
        if suspects := tuple(p for p in self._members.all() if p.is_connected and p.is_suspect):
            self._suspected = suspects
            self._suspects.observe_bad(", ".join(p.member.name or p.member.peer[-8:] for p in suspects), now)
        else:
            self._suspects.observe_good(now)
        self._news.set()

    def sign_of_life(self) -> None:
        """A peer came, answered again, or the breaker turned: what was wrong may be over, so probe now."""
        self._is_asked = True
        self.look()

    async def run(self) -> None:
        """Probe at each interval, and sooner where there is reason to, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_whenever, self._members.changed)
            nursery.start_soon(self._look_whenever, self._flags.changed)
            while True:
                self._is_asked = False
                await self._probe(nursery)
                self._probed_at = trio.current_time()
                self.look()
                while (due := self._due()) > trio.current_time():
                    self._news = trio.Event()
                    with trio.move_on_at(min(due, trio.current_time() + WRITE_SECONDS)):  # nobody tells of a full disk
                        await self._news.wait()

    async def _look_whenever(self, changed: Callable[[], Awaitable[None]]) -> None:
        while True:
            await changed()
            self.look()

    def _due(self) -> float:
        """When to probe next."""
        now, seconds = trio.current_time(), self._flags.current.health_check_interval_ms / 1000.0
        observed = [self._suspects, *(one.steady for one in self._probed.values())]
        is_unasked = self._probed["dht"].at is None and self._is_in_swarm() and bool(self._members.reachable())
        is_wrong = bool(self._store.last_failure) or any(one.needs_recheck(now) or one.is_bad(now) for one in observed)
        if is_wrong or is_unasked:
            seconds = min(seconds, SOON_SECONDS)
            if self._is_asked:
                seconds = TOGETHER_SECONDS
        return self._probed_at + seconds

    async def _probe(self, nursery: trio.Nursery) -> None:
        async def observe(name: str, probe: Callable[[], Awaitable[ProbeResult | None]]) -> None:
            if (seen := await probe()) is not None:
                self._probed[name].saw(seen, trio.current_time())

        if self._store.last_failure and not self._is_writing and trio.current_time() - self._wrote_at >= WRITE_SECONDS:
            self._is_writing = True
            nursery.start_soon(self._write)
        async with trio.open_nursery() as probing:
            probing.start_soon(observe, "store", self._probes.store)
            probing.start_soon(observe, "resolver", self._probes.resolver)
            if self._is_in_swarm():
                probing.start_soon(observe, "dht", self._probes.swarm)

    async def _write(self) -> None:
        try:
            await self._probes.write()
        finally:
            self._is_writing = False
            self._wrote_at = trio.current_time()

    def _is_in_swarm(self) -> bool:
        """Whether the swarm may be asked: an open breaker pings by itself."""
        return self._in_force.asks_swarm and self._breaker is not None and self._breaker.state is not BreakerState.OPEN

    # -- the report -------------------------------------------------------------------------------------------

    def report(self) -> HealthReport:
        components = (
            self._dht(),
            self._resolving(),
            self._discovery(),
            self._api(),
            self._kept(),
            self._configuration(),
        )
        status = worst([Status(component.status) for component in components])
        reasons = tuple(reason for component in components for reason in component.reasons)
        return HealthReport(status=status, reasons=reasons, components=components)

    def _last_ms(self, *times: float | None) -> int:
        """The latest of these times on trio's clock, on the wall's; the start when there is none."""
        at = max((at for at in times if at is not None), default=self._started_at)
        return self._now_ms() - int(max(0.0, trio.current_time() - at) * 1000.0)

    def _reachable(self) -> int:
        """Members that can be asked; one that was late a moment ago is counted until that is more than a moment."""
        if self._suspects.is_bad(trio.current_time()):
            return len(self._members.reachable())
        return sum(presence.is_connected for presence in self._members.all())

    def _dht(self) -> ComponentHealth:
        now, breaker, probed = trio.current_time(), self._breaker, self._probed["dht"]
        connected = [p for p in self._members.all() if p.is_connected]
        suspects = self._suspected if self._suspects.is_bad(now) else ()
        in_swarm = self._is_in_swarm()
        facts = SwarmFacts(
            backend=self._in_force.backend,
            members=len(self._members),
            reachable=self._reachable(),
            suspects=len(suspects),
            suspect_names=tuple(
                f"{p.member.name or p.member.peer[-8:]} ({p.suspect_why})" if p.suspect_why else p.member.name
                for p in suspects[:SUSPECTS_NAMED_MAX]
            ),
            breaker=breaker.state if breaker else BreakerState.CLOSED,
            breaker_why=breaker.why if breaker else "",
            clock_offsets_ms=tuple(p.clock_offset_ms for p in connected if p.clock_offset_ms is not None),
            calls_failing=self._calls.failing(),
            probe_failing=probed.failing(now) if in_swarm else "",
            write_quorum=self._in_force.write_quorum,
        )
        status, reasons = judge_swarm(facts)
        return ComponentHealth(
            component="dht",
            backend=self._in_force.backend,
            status=status,
            last_check_ms=self._last_ms(probed.at, self._calls.last_at),
            error_count=self._calls.errors + probed.errors + (breaker.failures if breaker else 0),
            latency_ms=probed.latency_seconds * 1000.0,
            reasons=reasons,
        )

    def _resolving(self) -> ComponentHealth:
        probed = self._probed["resolver"]
        record = self._resolver.call_health
        status, reasons = judge_observed(probed.failing(trio.current_time()), record.failing("look-ups"))
        return ComponentHealth(
            component="resolver",
            backend="distributed" if self._flags.current.use_distributed_resolver else "local",
            status=status,
            last_check_ms=self._last_ms(probed.at, record.last_at),
            error_count=probed.errors + record.errors,
            latency_ms=probed.latency_seconds * 1000.0,
            reasons=reasons,
        )

    def _discovery(self) -> ComponentHealth:
        found = [finder.health() for finder in self._finders]
        facts = DiscoveryFacts(
            is_on=self._flags.current.discovery_configured,
            sources=sum(one.sources for one in found),
            faults=tuple(fault for one in found for fault in one.faults),
            members=len(self._members),
            reachable=self._reachable(),
        )
        status, reasons = judge_discovery(facts)
        return ComponentHealth(
            component="discovery",
            backend="configured" if facts.sources and facts.is_on else "off" if not facts.is_on else "none",
            status=status,
            last_check_ms=self._last_ms(*(one.looked_at for one in found)),
            error_count=sum(one.errors for one in found),
            latency_ms=max((one.latency_seconds for one in found), default=0.0) * 1000.0,
            reasons=reasons,
        )

    def _api(self) -> ComponentHealth:
        status, reasons = judge_observed(self.requests.failing("requests"))
        return ComponentHealth(
            component="api",
            backend="http",
            status=status,
            last_check_ms=self._last_ms(self.requests.last_at),
            error_count=self.requests.errors,
            latency_ms=self.requests.latency_seconds * 1000.0,
            reasons=reasons,
        )

    def _kept(self) -> ComponentHealth:
        pending, probed = self._store.pending(), self._probed["store"]
        failure, since = self._store.last_failure, self._store.committing_since
        status, reasons = judge_store(
            StoreFacts(
                failure=failure,
                pending=pending.count,
                oldest_pending_ms=pending.oldest_at_ms,
                refused=pending.refused,
                probe_failing=probed.failing(trio.current_time()),
                committing_seconds=0.0 if since is None else trio.current_time() - since,
            )
        )
        return ComponentHealth(
            component="store",
            backend="local",
            status=status,
            last_check_ms=self._last_ms(probed.at),
            error_count=self._store.failures + probed.errors,
            latency_ms=probed.latency_seconds * 1000.0,
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
