"""Call health: how many calls there were, how many failed, and whether calls fail again and again.

A call has failed when it did not do what was asked for and the caller can do nothing about it: `Unavailable`,
`Indeterminate`. A mistake of the caller, and that there is nothing, are answers.
"""

from collections.abc import Callable

import trio

from protocols.errors import Indeterminate, Unavailable
from protocols.policy.hysteresis import Hysteresis

FAILING_AFTER = 3
"""The verdict is bad after so many failed calls in a row, within `FAILING_SECONDS`."""
FAILING_SECONDS = 60.0
WELL_AFTER = 2
"""The verdict is good again after so many calls in a row that did not fail, or after `QUIET_SECONDS` without a failed
call."""
QUIET_SECONDS = 10.0


class CallHealth:
    """`with call_health:` around a call records it. Many calls may be in it at once; it keeps no state of any one."""

    def __init__(self) -> None:
        self._on_change: list[Callable[[], None]] = []
        self.count = 0
        self.errors = 0
        self.last_at: float | None = None
        """When the last call ended, on trio's clock."""
        self.latency_seconds = 0.0
        """A running mean of the calls that were timed."""
        self._time = trio.lowlevel.current_clock().current_time
        self._hysteresis = Hysteresis(
            worse_after=FAILING_AFTER,
            better_after=WELL_AFTER,
            within_seconds=FAILING_SECONDS,
            forget_seconds=QUIET_SECONDS,
        )

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` when the verdict changes. It must be quick, must not wait and must not raise."""
        self._on_change.append(on_change)

    def _report_change(self) -> None:
        for on_change in self._on_change:
            on_change()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.record(error)

    def record(self, error: BaseException | None) -> None:
        """A call ended, with this error if it is not None."""
        if error is None:
            self.succeeded()
        elif isinstance(error, Unavailable | Indeterminate):
            self.failed(error.message)

    def succeeded(self, seconds: float | None = None) -> None:
        self.count += 1
        self.last_at = self._time()
        if seconds is not None:
            self._observe_latency(seconds)
        if not self._hysteresis.is_clear() and self._hysteresis.observe_good(self.last_at):
            self._report_change()

    def failed(self, why: str, seconds: float | None = None) -> None:
        self.count += 1
        self.errors += 1
        self.last_at = self._time()
        if seconds is not None:
            self._observe_latency(seconds)
        if self._hysteresis.observe_bad(why, self.last_at):
            self._report_change()

    def _observe_latency(self, seconds: float) -> None:
        self.latency_seconds += (seconds - self.latency_seconds) / (8 if self.latency_seconds else 1)

    def failing(self, what: str = "calls") -> str:
        """Why calls fail again and again, in words; '' when they do not. `what` names the calls in that text."""
        return f"{what} fail, the last with: {self._hysteresis.why}" if self._hysteresis.is_bad(self._time()) else ""
