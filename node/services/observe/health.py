"""Health monitor: observes the components by probes and by the calls that are made, and gives the health report.

The report (`health_report.py`) is made when it is asked for, so it is never older than the facts in it. Probes
(`probes.py`) run at an interval that a flag sets. When an observation contradicts the present verdict, or something is
wrong, or a peer gave a sign of life, the next probe comes soon instead: neither a fault nor a recovery waits for the
interval.
"""

from collections.abc import Awaitable, Callable
from math import inf

import trio

from node.dht.circuit_breaker import CircuitBreaker
from node.services.control.flag_store import FlagStore
from node.services.observe.health_report import HealthReport, HealthReporter
from node.services.observe.observations import Observations
from node.services.observe.probes import ProbeResult, Probes
from node.services.reads.resolver import Resolver
from node.store.base import Store
from node.swarm.members import Members

SOON_SECONDS = 0.5
"""When to probe again while something is wrong, or may be soon."""
TOGETHER_SECONDS = 0.1
"""The least time between two rounds of probes."""
WRITE_SECONDS = 2.0
"""How often a store that could not write tries to write, when no caller does."""


class HealthMonitor:
    """Reports when asked; probes while it runs. `breaker` is None where there is no swarm."""

    def __init__(
        self,
        reporter: HealthReporter,
        observations: Observations,
        probes: Probes,
        *,
        flags: FlagStore,
        store: Store,
        members: Members,
        breaker: CircuitBreaker | None,
        resolver: Resolver,
    ) -> None:
        self._reporter = reporter
        self._observations = observations
        self._flags = flags
        self._store = store
        self._members = members
        self._probes = probes
        self.api_calls = self._observations.api_calls
        """The API reports here how each request ended."""
        self._probed_at = -inf
        self._is_probe_requested = False
        self._is_writing = False
        self._wrote_at = -inf
        self._observed = trio.Event()
        for call_health in (self._observations.dht_calls, self.api_calls, resolver.call_health):
            call_health.subscribe(self.observe)
        if breaker is not None:
            breaker.subscribe(on_change=lambda _: self.sign_of_life(), on_sign_of_life=self.sign_of_life)

    def report(self) -> HealthReport:
        """The health report as of now."""
        return self._reporter.report()

    def observe(self) -> None:
        """Something may have changed: look at the members, and decide anew when to probe."""
        self._observations.suspects.observe()
        self._observed.set()

    def sign_of_life(self) -> None:
        """A peer connected or answered again, or the breaker changed: what was wrong may be over, so probe soon."""
        self._is_probe_requested = True
        self.observe()

    async def run(self) -> None:
        """Probe at each interval, and sooner when there is a reason, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._observe_at_each, self._members.changed)
            nursery.start_soon(self._observe_at_each, self._flags.changed)
            while True:
                self._is_probe_requested = False
                await self._probe(nursery)
                self._probed_at = trio.current_time()
                self.observe()
                while (due := self._next_probe_at()) > trio.current_time():
                    self._observed = trio.Event()
                    with trio.move_on_at(min(due, trio.current_time() + WRITE_SECONDS)):  # a full disk has no event
                        await self._observed.wait()

    async def _observe_at_each(self, changed: Callable[[], Awaitable[None]]) -> None:
        while True:
            await changed()
            self.observe()

    def _next_probe_at(self) -> float:
        seconds = self._flags.current.health_check_interval_ms / 1000.0
        is_swarm_unknown = (
            self._observations.probes["dht"].last_at is None
            and self._reporter.is_in_swarm()
            and bool(self._members.answering())
        )
        if is_swarm_unknown or self._store.last_failure or self._observations.needs_recheck():
            seconds = min(seconds, SOON_SECONDS)
            if self._is_probe_requested:
                seconds = TOGETHER_SECONDS
        return self._probed_at + seconds

    async def _probe(self, nursery: trio.Nursery) -> None:
        async def probe(name: str, ask: Callable[[], Awaitable[ProbeResult | None]]) -> None:
            if (result := await ask()) is not None:
                self._observations.probes[name].add(result)

        if self._store.last_failure and not self._is_writing and trio.current_time() - self._wrote_at >= WRITE_SECONDS:
            self._is_writing = True
            nursery.start_soon(self._write)
        async with trio.open_nursery() as probing:
            probing.start_soon(probe, "store", self._probes.store)
            probing.start_soon(probe, "resolver", self._probes.resolver)
            if self._reporter.is_in_swarm():
                probing.start_soon(probe, "dht", self._probes.swarm)

    async def _write(self) -> None:
        try:
            await self._probes.write()
        finally:
            self._is_writing = False
            self._wrote_at = trio.current_time()
