"""Call metrics: counts and times the calls to the DHT by backend, operation and outcome.

Calls that go to the swarm, or to the disk, take a tenth of a millisecond or more: each of them is counted and timed
(`MeteredDHT`), and those that asked the swarm feed the health report. A read that is answered from memory takes half a
microsecond, and even one more coroutine would cost a fifth of that: the backends count these reads themselves, in a
`SampledCalls`, and time every 64th.
"""

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Self

import trio

from node.dht.base import DHT, Answer, Backend, Consistency, Extent, Provenance, Provider, Receipt, VersionHistory
from node.dht.call_health import CallHealth
from node.metrics import Family, Histogram, MetricKind, gauge
from protocols.envelope import Envelope
from protocols.errors import BzzzError, Indeterminate, Internal, StorageFull, TooManyRequests, Unavailable

SAMPLE = 64
"""Of the calls answered from memory, every n-th is timed."""
SAMPLES_PER_CHECKPOINT = 4
"""Calls answered from memory never wait: after so many samples one of them lets other tasks run."""
RATIO_SECONDS = 300.0
"""The error ratio covers the calls of about this time."""
MARK_SECONDS = 10.0
"""The least time between two marks that the error ratio is measured from."""


class CallOutcome(StrEnum):
    LOCAL = "local"
    """Answered by this machine, as intended."""
    SWARM = "swarm"
    REPLICATED = "replicated"
    PENDING = "pending"
    """Written here; the swarm did not acknowledge it in time."""
    FALLBACK = "fallback"
    """Answered by this machine because the swarm did not."""
    PARTIAL = "partial"
    """Answered by the swarm, but by too few of the holders."""
    ANSWERED = "answered"
    UNAVAILABLE = "unavailable"
    INDETERMINATE = "indeterminate"
    REFUSED = "refused"
    """The request cannot be carried out: no failure of this node or the swarm."""
    FAILED = "failed"
    CANCELLED = "cancelled"


ERRORS = frozenset({CallOutcome.UNAVAILABLE, CallOutcome.INDETERMINATE, CallOutcome.FAILED})
FALLBACKS = frozenset({CallOutcome.PENDING, CallOutcome.FALLBACK})


def outcome_of_error(error: BaseException) -> CallOutcome:
    match error:
        case Indeterminate():
            return CallOutcome.INDETERMINATE
        case Unavailable() | TooManyRequests():
            return CallOutcome.UNAVAILABLE
        case StorageFull() | Internal():
            return CallOutcome.FAILED
        case BzzzError():
            return CallOutcome.REFUSED
        case trio.Cancelled():
            return CallOutcome.CANCELLED
        case _:
            return CallOutcome.FAILED


def outcome_of_receipt(receipt: Receipt) -> CallOutcome:
    if receipt.quorum == 0:
        return CallOutcome.LOCAL
    return CallOutcome.REPLICATED if receipt.is_replicated else CallOutcome.PENDING


def outcome_of_read(provenance: Provenance) -> CallOutcome:
    if provenance.source == "local":
        return CallOutcome.FALLBACK if provenance.is_degraded else CallOutcome.LOCAL
    return CallOutcome.PARTIAL if provenance.is_degraded else CallOutcome.SWARM


class SampledCalls:
    """Calls of one operation that are answered from memory. The backend counts down `until_sample` as each begins; at 0
    it awaits `begin_sample`, and ends that call with `end_sample`.

    `counted_elsewhere` are those of them that had another outcome than local, which `CallMetrics.count` counts.
    """

    __slots__ = ("_reported", "_samples", "counted_elsewhere", "latency", "until_sample")

    def __init__(self) -> None:
        self.until_sample = SAMPLE
        self.counted_elsewhere = 0
        self.latency = Histogram()
        self._samples = 0
        self._reported = 0

    async def begin_sample(self) -> float:
        """Start counting to the next sample, and now and then let other tasks run; return the time for `end_sample`."""
        self.until_sample = SAMPLE
        self._samples += 1
        if not self._samples % SAMPLES_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint()
        return trio.current_time()

    def end_sample(self, started: float) -> None:
        self.latency.observe(trio.current_time() - started)

    @property
    def count(self) -> int:
        """How many were answered. It never goes down, though a call under way may be counted and then be counted
        elsewhere."""
        counted = self._samples * SAMPLE + SAMPLE - self.until_sample - self.counted_elsewhere
        self._reported = max(self._reported, counted)
        return self._reported


class CallMetrics:
    """One for each node. It outlives the backends, which are made anew at each change of flags."""

    def __init__(self, *, now_ms: Callable[[], int] = lambda: 0) -> None:
        self._now_ms = now_ms
        self._sampled: dict[tuple[str, str], SampledCalls] = {}
        self._requests: dict[tuple[str, ...], int] = {}
        self._latencies: dict[tuple[str, ...], Histogram] = {}
        self._fallbacks: dict[tuple[str, ...], int] = {}
        self._last_fallback_ms = 0
        self._marks: deque[tuple[float, dict[str, tuple[int, int]]]] = deque()
        self.call_health = CallHealth()
        """Of the calls that asked the swarm, in backends real and hybrid."""

    def sampled_calls(self, backend: Backend, operation: str) -> SampledCalls:
        """The counter in which a backend counts an operation that is answered from memory."""
        return self._sampled.setdefault((backend.value, operation), SampledCalls())

    def count(
        self,
        backend: Backend,
        operation: str,
        outcome: CallOutcome,
        seconds: float | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Count a call that ended, maybe with an error; without `seconds` it is not timed."""
        key = (backend.value, operation, outcome.value)
        self._requests[key] = self._requests.get(key, 0) + 1
        if seconds is not None:
            latency = self._latencies.get(key)
            if latency is None:
                latency = self._latencies[key] = Histogram()
            latency.observe(seconds)
        if outcome in FALLBACKS:
            self._fallbacks[(operation,)] = self._fallbacks.get((operation,), 0) + 1
            self._last_fallback_ms = self._now_ms()
        if backend is not Backend.MOCK and outcome is not CallOutcome.LOCAL:
            self.call_health.record(error)

    def timing(self, backend: Backend, operation: str) -> "Timing":
        """A context manager that counts and times the call made in it."""
        return Timing(self, backend, operation)

    # -- for the metrics page ---------------------------------------------------------------------------------

    def requests(self) -> dict[tuple[str, ...], int]:
        """By backend, operation and outcome."""
        found = dict(self._requests)
        for (backend, operation), sampled in self._sampled.items():
            key = (backend, operation, CallOutcome.LOCAL.value)
            found[key] = found.get(key, 0) + sampled.count
        return {key: number for key, number in sorted(found.items()) if number}

    def _durations(self) -> dict[tuple[str, ...], Histogram]:
        found = dict(self._latencies)
        for (backend, operation), sampled in self._sampled.items():
            if any(sampled.latency.counts):
                found[backend, operation, CallOutcome.LOCAL.value] = sampled.latency
        return dict(sorted(found.items()))

    def error_ratios(self) -> dict[tuple[str, ...], float]:
        """By backend: the share of calls that failed since a mark about `RATIO_SECONDS` ago.

        Marks are set by this call; when it is called seldom, the share is that since the last call.
        """
        now = trio.current_time()
        totals: dict[str, tuple[int, int]] = {}
        for (backend, _, outcome), number in self.requests().items():
            calls, errors = totals.get(backend, (0, 0))
            totals[backend] = calls + number, errors + number * (outcome in ERRORS)
        while len(self._marks) > 1 and self._marks[1][0] <= now - RATIO_SECONDS:
            self._marks.popleft()
        before = self._marks[0][1] if self._marks else {}
        ratios: dict[tuple[str, ...], float] = {}
        for backend, (calls, errors) in totals.items():
            calls_before, errors_before = before.get(backend, (0, 0))
            ratios[(backend,)] = (errors - errors_before) / max(1, calls - calls_before)
        if not self._marks or self._marks[-1][0] <= now - MARK_SECONDS:
            self._marks.append((now, totals))
        return ratios

    def families(self) -> list[Family]:
        labels = ("backend", "operation", "outcome")
        fallbacks = {key: float(number) for key, number in sorted(self._fallbacks.items())}
        families = [
            Family(
                "bzzz_dht_requests_total", "Calls to the DHT that ended, by outcome.", MetricKind.COUNTER, labels,
                {key: float(number) for key, number in self.requests().items()},
            ),
            Family(
                "bzzz_dht_request_duration_seconds",
                f"How long calls to the DHT took. Of the calls answered from memory (get of mock and hybrid, put of "
                f"mock; outcome local) every {SAMPLE}th is measured, of all others each one.",
                MetricKind.HISTOGRAM, labels, self._durations(),
            ),
            Family(
                "bzzz_dht_fallbacks_total",
                "Calls that this machine answered alone because the swarm did not in time.",
                MetricKind.COUNTER, ("operation",), fallbacks or {("get",): 0.0, ("put",): 0.0},
            ),
            Family(
                "bzzz_dht_error_ratio",
                "Share of the calls of about the last five minutes that were unavailable, indeterminate or failed.",
                MetricKind.GAUGE, ("backend",), self.error_ratios(),
            ),
        ]  # fmt: skip
        if self._last_fallback_ms:
            last = self._last_fallback_ms / 1000.0
            families.append(
                gauge("bzzz_dht_last_fallback_timestamp_seconds", "When this machine last answered alone.", last)
            )
        return families


class Timing:
    """One call, from entering to leaving. The caller sets `outcome`; that of an error is found from the error."""

    __slots__ = ("_backend", "_call_metrics", "_operation", "_started", "outcome")

    def __init__(self, call_metrics: CallMetrics, backend: Backend, operation: str) -> None:
        self._call_metrics = call_metrics
        self._backend = backend
        self._operation = operation
        self.outcome = CallOutcome.ANSWERED
        self._started = trio.current_time()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        outcome = self.outcome if error is None else outcome_of_error(error)
        self._call_metrics.count(self._backend, self._operation, outcome, trio.current_time() - self._started, error)


class MeteredDHT:
    """A backend whose calls are counted and timed. Calls of `self_counted` operations go straight to the backend."""

    def __init__(self, dht: DHT, call_metrics: CallMetrics, *, self_counted: frozenset[str]) -> None:
        self._dht = dht
        self._call_metrics = call_metrics
        self.backend = dht.backend
        self.asks_swarm = dht.asks_swarm
        self.commits_first = dht.commits_first
        self.store_deadline_seconds = dht.store_deadline_seconds
        self.write_quorum = dht.write_quorum
        self.freshness = dht.freshness
        self.get_here = dht.get_here  # a backend that answers here counts its own gets
        self.get = dht.get if "get" in self_counted else self._get
        self.put = dht.put if "put" in self_counted else self._put

    @property
    def deadline_seconds(self) -> float:
        return self._dht.deadline_seconds

    async def _put(
        self,
        envelope: Envelope,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        on_merged: Callable[[], None] | None = None,
    ) -> Receipt:
        with self._call_metrics.timing(self.backend, "put") as timing:
            receipt = await self._dht.put(
                envelope, idempotency_key=idempotency_key, timeout=timeout, on_merged=on_merged
            )
            timing.outcome = outcome_of_receipt(receipt)
            return receipt

    async def _get(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        with self._call_metrics.timing(self.backend, "get") as timing:
            answer = await self._dht.get(key, consistency=consistency, timeout=timeout)
            timing.outcome = outcome_of_read(answer.provenance)
            return answer

    async def get_version(
        self, key: bytes, digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        with self._call_metrics.timing(self.backend, "get_version") as timing:
            answer = await self._dht.get_version(key, digest, consistency=consistency, timeout=timeout)
            timing.outcome = outcome_of_read(answer.provenance)
            return answer

    async def history(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, after: int = 0, limit: int = 1000,
        extent: Extent | None = None, timeout: float | None = None,
    ) -> VersionHistory:  # fmt: skip
        with self._call_metrics.timing(self.backend, "history") as timing:
            history = await self._dht.history(
                key, consistency=consistency, after=after, limit=limit, extent=extent, timeout=timeout
            )  # fmt: skip
            timing.outcome = outcome_of_read(history.provenance)
            return history

    async def get_content(
        self, content_digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        with self._call_metrics.timing(self.backend, "get_content") as timing:
            answer = await self._dht.get_content(content_digest, consistency=consistency, timeout=timeout)
            timing.outcome = outcome_of_read(answer.provenance)
            return answer

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        with self._call_metrics.timing(self.backend, "provide"):
            return await self._dht.provide(key, timeout=timeout)

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> tuple[Provider, ...]:
        with self._call_metrics.timing(self.backend, "find_providers"):
            return await self._dht.find_providers(key, timeout=timeout)
