"""What became of the calls to the DHT: how many by backend, operation and outcome, how long they took, which failed.

Calls that go to the swarm, or to the disk, take a tenth of a millisecond or more: each is counted and timed
(`MeteredDHT`), and those that asked the swarm are on record for the health report. A read that is answered out of
memory takes half a microsecond, of which even a second coroutine would be a fifth: the backends count these themselves,
in a `SampledCalls`, and time every 64th.
"""

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Self

import trio

from node.dht.base import DHT, Answer, Backend, Consistency, Provenance, Provider, Receipt, VersionHistory
from node.dht.call_health import CallHealth
from node.metrics import Family, Histogram, Kind, gauge
from protocols.envelope import Envelope
from protocols.errors import BzzzError, Indeterminate, Internal, StorageFull, TooManyRequests, Unavailable

SAMPLE = 64
"""Of calls answered out of memory, every so many-th is timed."""
ROUNDS_A_TURN = 4
"""Calls that are answered out of memory wait for nothing: after so many samples others get their turn."""
RATIO_SECONDS = 300.0
"""The error ratio is that of the calls of about so long."""
MARK_SECONDS = 10.0


class CallOutcome(StrEnum):
    LOCAL = "local"
    """Answered by this machine, as it should be."""
    SWARM = "swarm"
    REPLICATED = "replicated"
    PENDING = "pending"
    """Written here; the swarm did not acknowledge it in time."""
    FALLBACK = "fallback"
    """Answered by this machine because the swarm did not."""
    PARTIAL = "partial"
    """Answered by the swarm, not by all of those who should have."""
    ANSWERED = "answered"
    UNAVAILABLE = "unavailable"
    INDETERMINATE = "indeterminate"
    REFUSED = "refused"
    """What was asked for cannot be done: no failure of this node or the swarm."""
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
    """Calls of one operation that are answered out of memory. For each the backend takes one from `left` as it begins;
    when none is left, it waits for `again`, and says with `took` how long this one took.

    `others` counts those of them that came to something else, and are counted elsewhere.
    """

    __slots__ = ("_rounds", "_shown", "latency", "left", "others")

    def __init__(self) -> None:
        self.left = SAMPLE
        self.others = 0
        self.latency = Histogram()
        self._rounds = 0
        self._shown = 0

    async def again(self) -> float:
        """Begin a new round, and now and then give others their turn; answers trio's time, for `took`."""
        self.left = SAMPLE
        self._rounds += 1
        if not self._rounds % ROUNDS_A_TURN:
            await trio.lowlevel.checkpoint()
        return trio.current_time()

    def took(self, started: float) -> None:
        self.latency.observe(trio.current_time() - started)

    @property
    def count(self) -> int:
        """How many were answered. A call that is under way may count already, and then come to something else: so it
        is told as a number that never goes down."""
        self._shown = max(self._shown, self._rounds * SAMPLE + SAMPLE - self.left - self.others)
        return self._shown


class CallMetrics:
    """One a node. It outlives the backends, which are made anew at each change of flags."""

    def __init__(self, *, now_ms: Callable[[], int] = lambda: 0) -> None:
        self._now_ms = now_ms
        self._quick: dict[tuple[str, str], SampledCalls] = {}
        self._requests: dict[tuple[str, ...], int] = {}
        self._latencies: dict[tuple[str, ...], Histogram] = {}
        self._fallbacks: dict[tuple[str, ...], int] = {}
        self._last_fallback_ms = 0
        self._marks: deque[tuple[float, dict[str, tuple[int, int]]]] = deque()
        self.record = CallHealth()
        """Of the calls that asked the swarm, in backends real and hybrid."""

    def quick(self, backend: Backend, operation: str) -> SampledCalls:
        """Where a backend counts an operation of its own that is answered out of memory."""
        return self._quick.setdefault((backend.value, operation), SampledCalls())

    def count(
        self,
        backend: Backend,
        operation: str,
        outcome: CallOutcome,
        seconds: float | None = None,
        error: BaseException | None = None,
    ) -> None:
        """A call came to its end, maybe with an error; without `seconds` it is not timed."""
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
            self.record.ended(error)

    def timing(self, backend: Backend, operation: str) -> "Timing":
        """Counts and times what happens in it."""
        return Timing(self, backend, operation)

    # -- what is told of it -----------------------------------------------------------------------------------

    def requests(self) -> dict[tuple[str, ...], int]:
        """By backend, operation and outcome."""
        found = dict(self._requests)
        for (backend, operation), quick in self._quick.items():
            key = (backend, operation, CallOutcome.LOCAL.value)
            found[key] = found.get(key, 0) + quick.count
        return {key: number for key, number in sorted(found.items()) if number}

    def _durations(self) -> dict[tuple[str, ...], Histogram]:
        found = dict(self._latencies)
        for (backend, operation), quick in self._quick.items():
            if any(quick.latency.counts):
                found[backend, operation, CallOutcome.LOCAL.value] = quick.latency
        return dict(sorted(found.items()))

    def error_ratios(self) -> dict[tuple[str, ...], float]:
        """By backend: the share of calls that failed since a mark about `RATIO_SECONDS` ago.

        Marks are set when somebody asks; whoever asks seldom gets the share since he asked last.
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
        told = [
            Family(
                "bzzz_dht_requests_total", "Calls to the DHT that ended, by what they came to.", Kind.COUNTER, labels,
                {key: float(number) for key, number in self.requests().items()},
            ),
            Family(
                "bzzz_dht_request_duration_seconds",
                f"How long calls to the DHT took. Of those answered out of memory (get of mock and hybrid and put of "
                f"mock, outcome local) every {SAMPLE}th is in it, of all others each one.",
                Kind.HISTOGRAM, labels, self._durations(),
            ),
            Family(
                "bzzz_dht_fallbacks_total",
                "Calls that this machine answered alone because the swarm did not in time.",
                Kind.COUNTER, ("operation",), fallbacks or {("get",): 0.0, ("put",): 0.0},
            ),
            Family(
                "bzzz_dht_error_ratio",
                "Share of the calls of about the last five minutes that were unavailable, indeterminate or failed.",
                Kind.GAUGE, ("backend",), self.error_ratios(),
            ),
        ]  # fmt: skip
        if self._last_fallback_ms:
            last = self._last_fallback_ms / 1000.0
            told.append(
                gauge("bzzz_dht_last_fallback_timestamp_seconds", "When this machine last answered alone.", last)
            )
        return told


class Timing:
    """One call, from entering to leaving. `what` is what that came to; the error that it ends with it sees."""

    __slots__ = ("_backend", "_call_metrics", "_operation", "_started", "what")

    def __init__(self, call_metrics: CallMetrics, backend: Backend, operation: str) -> None:
        self._call_metrics = call_metrics
        self._backend = backend
        self._operation = operation
        self.what = CallOutcome.ANSWERED
        self._started = trio.current_time()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        outcome = self.what if error is None else outcome_of_error(error)
        self._call_metrics.count(self._backend, self._operation, outcome, trio.current_time() - self._started, error)


class MeteredDHT:
    """A backend whose calls are counted and timed. Those operations that it counts by itself go straight to it."""

    def __init__(self, dht: DHT, call_metrics: CallMetrics, *, counts_itself: frozenset[str]) -> None:
        self._dht = dht
        self._call_metrics = call_metrics
        self.backend = dht.backend
        self.asks_swarm = dht.asks_swarm
        self.write_quorum = dht.write_quorum
        self.freshness = dht.freshness
        self.get_here = dht.get_here  # whoever answers here at all counts its gets itself
        self.get = dht.get if "get" in counts_itself else self._get
        self.put = dht.put if "put" in counts_itself else self._put

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
            timing.what = outcome_of_receipt(receipt)
            return receipt

    async def _get(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        with self._call_metrics.timing(self.backend, "get") as timing:
            answer = await self._dht.get(key, consistency=consistency, timeout=timeout)
            timing.what = outcome_of_read(answer.provenance)
            return answer

    async def get_version(
        self, key: bytes, digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        with self._call_metrics.timing(self.backend, "get_version") as timing:
            answer = await self._dht.get_version(key, digest, consistency=consistency, timeout=timeout)
            timing.what = outcome_of_read(answer.provenance)
            return answer

    async def history(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, after: int = 0, limit: int = 1000,
        timeout: float | None = None,
    ) -> VersionHistory:  # fmt: skip
        with self._call_metrics.timing(self.backend, "history") as timing:
            history = await self._dht.history(
                key, consistency=consistency, after=after, limit=limit, timeout=timeout
            )  # fmt: skip
            timing.what = outcome_of_read(history.provenance)
            return history

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        with self._call_metrics.timing(self.backend, "provide"):
            return await self._dht.provide(key, timeout=timeout)

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> tuple[Provider, ...]:
        with self._call_metrics.timing(self.backend, "find_providers"):
            return await self._dht.find_providers(key, timeout=timeout)
