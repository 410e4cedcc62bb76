"""Hint retry: what becomes of a hint whose delivery failed.

When the holder did not answer, or takes nothing now (its disk is full, it is busy), deliveries to it are paused. A hint
that is refused for a while is postponed alone. A hint that is refused for good goes to quarantine, where an operator
sees it and can retry it.
"""

import logging
from collections.abc import Callable

import trio

from node.services.writes.send_window import SendWindow
from node.store.base import Store
from node.swarm.limit_counters import LimitCounters
from node.swarm.rpc import CallAbandoned, Silent, Unreachable
from protocols.clock import AHEAD_MS_MAX, ahead_ms
from protocols.envelope import Envelope
from protocols.errors import BzzzError, ClockAhead, Malformed, StorageFull, TooManyRequests
from protocols.policy.backoff import backoff

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.1
"""The first pause of deliveries to a peer that did not answer."""
RETRY_BASE_SECONDS = 1.0
RETRY_CAP_SECONDS = 30.0
"""The longest time that one hint is postponed."""
PAUSE_CAP_SECONDS = 10.0
"""The longest pause of deliveries to a peer."""
FAILURES_TOGETHER_MAX = 3
"""A peer that fails more often in a row may fail because of one of its hints: then each hint is postponed alone."""


class HintRetry:
    """`own` is this node's peer id. `on_own_clock_ahead` is called with a version of this node that a peer refused as
    ahead of its clock, and that is ahead of this node's own clock too."""

    def __init__(
        self,
        store: Store,
        *,
        own: str,
        now_ms: Callable[[], int],
        chance: Callable[[], float],
        on_own_clock_ahead: Callable[[Envelope], None],
        limit_counters: LimitCounters | None = None,
    ) -> None:
        """`limit_counters` counts what is refused for good."""
        self._store = store
        self._own = own
        self._now_ms = now_ms
        self._chance = chance
        self._on_own_clock_ahead = on_own_clock_ahead
        self._limit_counters = limit_counters or LimitCounters()

    def count_refusal(self, peer: str, envelope: Envelope, error: BzzzError) -> None:
        why = f"refused {envelope.address} for good: {error.message}; `bzzz pending --refused` shows all that was"
        self._limit_counters.hit("hints_refused", peer, why)

    async def quarantine(self, peer: str, sequence: int, refusal: str) -> None:
        """Put a hint that was refused for good into quarantine; postpone it when the store cannot do that now."""
        try:
            await self._store.quarantine_hint(peer, sequence, refusal=refusal)
        except BzzzError as error:
            log.warning("a refused hint could not be put into quarantine: %s", error.message)
            self._postpone(peer, sequence, RETRY_BASE_SECONDS, error)

    def delivery_failed(
        self, peer: str, window: SendWindow, sequence: int, envelope: Envelope, attempts: int, error: BzzzError
    ) -> None:
        """Pause the peer, or postpone the hint. The error is not final, and the hint is no longer in flight."""
        match error:
            case (
                Silent() | CallAbandoned() | Unreachable() | Malformed()
            ):  # the hint was not refused, as far as is known
                window.pause(PAUSE_SECONDS, PAUSE_CAP_SECONDS, self._chance(), trio.current_time())
                window.rewind()
            case ClockAhead():
                window.failures = 0
                self._postpone_ahead(peer, sequence, envelope, attempts, error)
            case _:
                self._hold_off(peer, window, sequence, attempts, error)

    def _postpone_ahead(self, peer: str, sequence: int, envelope: Envelope, attempts: int, error: ClockAhead) -> None:
        """One of the two clocks is wrong: this hint waits, and no other one."""
        seconds = backoff(attempts, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS, chance=self._chance())
        ahead = error.details.get("ahead_ms", 0)
        too_far = (ahead - AHEAD_MS_MAX) / 1000.0 if isinstance(ahead, int | float) else 0.0
        self._postpone(peer, sequence, min(max(seconds, too_far), RETRY_CAP_SECONDS), error)
        if envelope.author == self._own and ahead_ms(envelope.version, self._now_ms()) > AHEAD_MS_MAX:
            self._on_own_clock_ahead(envelope)

    def _hold_off(self, peer: str, window: SendWindow, sequence: int, attempts: int, error: BzzzError) -> None:
        """The peer takes nothing now. All that was in flight is due again at the same moment: order is kept."""
        is_for_all = window.failures < FAILURES_TOGETHER_MAX or isinstance(error, StorageFull | TooManyRequests)
        if not is_for_all and window.paused_until <= trio.current_time():
            seconds = backoff(attempts, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS, chance=self._chance())
            self._postpone(peer, sequence, seconds, error)
            return
        seconds = window.pause(RETRY_BASE_SECONDS, PAUSE_CAP_SECONDS, self._chance(), trio.current_time())
        self._postpone(peer, sequence, seconds, error)
        window.rewind()

    def _postpone(self, peer: str, sequence: int, seconds: float, error: BzzzError) -> None:
        next_try_ms = self._now_ms() + int(seconds * 1000)
        self._store.postpone_hint(peer, sequence, next_try_ms=next_try_ms, refusal=error.message)
