"""Calls observed: how many there were, how many failed, and whether they fail again and again.

A call has failed when it did not do what it was asked for and the caller can do nothing about that: `Unavailable`,
`Indeterminate`. What the caller did wrong, and that nothing is there, are answers.
"""

from collections.abc import Callable

import trio

from protocols.errors import Indeterminate, Unavailable
from protocols.policy.hysteresis import Hysteresis

FAILING_AFTER = 3
"""So many calls in a row that failed, within"""
FAILING_SECONDS = 60.0
"""this time, say that something is wrong;"""
WELL_AFTER = 2
"""so many in a row that did not, or"""
QUIET_SECONDS = 10.0
"""this time without a failed one, that it is over."""


class CallHealth:
    """Whether calls fail again and again: how many there were, how many failed, and the verdict.

    `with record:` round a call records it. It is held by many calls at once, and keeps nothing of any of them.
    """

    def __init__(self) -> None:
        self._on_change: list[Callable[[], None]] = []
        self.count = 0
        self.errors = 0
        self.last_at: float | None = None
        """When the last one ended, on trio's clock."""
        self.latency_seconds = 0.0
        """A running mean, of those whose time was told."""
        self._time = trio.lowlevel.current_clock().current_time
        self._steady = Hysteresis(
            worse_after=FAILING_AFTER,
            better_after=WELL_AFTER,
            within_seconds=FAILING_SECONDS,
            forget_seconds=QUIET_SECONDS,
        )

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Call this when the verdict changes. It must be quick, must not wait and must not raise."""
        self._on_change.append(on_change)

    def _changed(self) -> None:
        for on_change in self._on_change:
            on_change()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.ended(error)

    def ended(self, error: BaseException | None) -> None:
        """A call ended, with this error if it is not None."""
        if error is None:
            self.succeeded()
        elif isinstance(error, Unavailable | Indeterminate):
            self.failed(error.message)

    def succeeded(self, seconds: float | None = None) -> None:
        self.count += 1
        self.last_at = self._time()
        if seconds is not None:
            self._took(seconds)
        if not self._steady.is_clear() and self._steady.observe_good(self.last_at):
            self._changed()

    def failed(self, why: str, seconds: float | None = None) -> None:
        self.count += 1
        self.errors += 1
        self.last_at = self._time()
        if seconds is not None:
            self._took(seconds)
        if self._steady.observe_bad(why, self.last_at):
            self._changed()

    def _took(self, seconds: float) -> None:
        self.latency_seconds += (seconds - self.latency_seconds) / (8 if self.latency_seconds else 1)

    def failing(self, what: str = "calls") -> str:
        """Why they fail again and again, in words; '' when they do not. `what` is what a person calls them."""
        return f"{what} fail, the last with: {self._steady.why}" if self._steady.is_bad(self._time()) else ""
