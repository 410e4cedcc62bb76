"""Flag effects: applies a change of flags to the breaker and to hints, and audits what the breaker does.

The order of a change: calls first, then the breaker, then hints. The audit log has one entry for each time that the
breaker opens or closes, by itself or by force; its probes in between are in the process log alone.
"""

import logging
from typing import Any

import trio

from node.config.flags import Flags, Force
from node.dht.circuit_breaker import CircuitBreaker, Transition
from node.services.control.audit import Audit
from protocols.errors import BzzzError
from protocols.policy.breaker import BreakerState

log = logging.getLogger(__name__)

WAITING_MAX = 256
"""Changes of the breaker that wait to be written; further ones are lost, and the audit log says how many."""

_STATES = {Force.OPEN: BreakerState.OPEN, Force.CLOSED: BreakerState.CLOSED}


def apply_to_breaker(breaker: CircuitBreaker, before: Flags, after: Flags) -> None:
    """Have the breaker follow the flags; what it has learned stays."""
    limits = (after.threshold_errors, after.backoff_ms)
    if limits != (before.threshold_errors, before.backoff_ms):
        breaker.tune(threshold=after.threshold_errors, backoff_seconds=after.backoff_ms / 1000.0)
    if after.override == before.override:
        return
    override = after.override
    if override is not None and override.force in _STATES:
        breaker.force(_STATES[override.force], f"forced by {override.author}: {override.reason}")
    else:
        breaker.release("no longer forced")


def changes_held_keys(before: Flags, after: Flags) -> bool:
    """Whether the flags may hold back the hints of other keys after a change than before."""

    def rule(flags: Flags) -> tuple[bool, bool, float]:
        return flags.sync_enabled, flags.in_force == "mock", flags.rollout_percent

    return rule(before) != rule(after)


class BreakerAuditor:
    """Writes each opening and closing of the breaker to the audit log, in order; the breaker does not wait for that."""

    def __init__(self, audit: Audit, breaker: CircuitBreaker, *, author: str) -> None:
        self._audit = audit
        self._author = author
        self._send, self._receive = trio.open_memory_channel[Transition](WAITING_MAX)
        self._lost = 0
        breaker.subscribe(on_change=self._changed)

    def _changed(self, transition: Transition) -> None:
        if (transition.before is BreakerState.CLOSED) == (transition.after is BreakerState.CLOSED):
            return
        try:
            self._send.send_nowait(transition)
        except trio.WouldBlock:
            self._lost += 1

    async def run(self) -> None:
        """Write until cancelled."""
        async for transition in self._receive:
            details: dict[str, Any] = {
                "before": transition.before,
                "after": transition.after,
                "at_ms": transition.at_ms,
            }
            if self._lost:
                details["lost_before"] = self._lost
            try:
                await self._audit.append(
                    "breaker.changed", author=self._author, reason=transition.text, details=details
                )
                self._lost = 0
            except BzzzError as error:
                self._lost += 1
                log.error("a change of the breaker could not be written to the audit log: %s", error.message)
