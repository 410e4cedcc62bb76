"""Round-trip times: how long each peer takes to answer, and the timeouts that follow from it.

A swarm on a LAN answers within a millisecond, one across an ocean takes 150 ms; both are healthy. So no judgement about
a silent peer uses a fixed time. The estimator gives the time that a peer may take (`timeout`), the delay before another
peer is asked too (`hedge_delay`), and the deadline of a call of several round trips (`stretch`). Each is bounded, so
that the wait for a peer that gets slower and slower does not grow without end.

The estimate of a peer is the median of its few most recent round trips. When one machine stands still, all of its
answers come at once and late; that moves the median as little as one lost frame does, while a network that has become
slower is known after half as many answers as are kept. (Smoothed means, as those of RFC 6298 for TCP's retransmission
timer, forget an outlier much more slowly.) Late answers count too: in a network that has become slow all of them are
late at first.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

KEPT = 9
"""Round trips kept of each peer."""
TOGETHER_SECONDS = 0.005
"""Answers that come within this time of each other are one batch, which counts once, with its quickest answer: the
delay of the others was not on the network."""
TIMEOUT_TIMES = 3.0
"""A peer that takes so many times its median is not merely slow."""
TIMEOUT_SECONDS_MAX = 2.0
"""The longest timeout, however slow the peer was."""
HEDGE_TIMES = 2.0
HEDGE_SECONDS_MIN = 0.01
HEDGE_SECONDS_DEFAULT = 0.02
"""For peers without a round trip yet."""
HEDGE_SECONDS_MAX = 0.5
STRETCH_TRIPS = 4.0
"""Round trips of one call: heads, the versions that they lack, the gaps between those, and one that is late."""
STRETCH_TIMES_MAX = 3.0
"""The most that a deadline is stretched by, as a multiple of it."""


@dataclass(slots=True)
class _Trips:
    """The recent round trips of one peer, and the time of the first answer of the latest batch."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    since: float = float("-inf")
    median: float | None = None
    """None: to be computed again, because a round trip came."""


class RttEstimator:
    """Learns round trips by `observe`. Times are seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._trips: dict[str, _Trips] = {}
        self._median_of_all: float | None = None
        self._is_known = False

    def observe(self, peer: str, seconds: float, now: float) -> None:
        """A peer answered now, after so many seconds."""
        trips = self._trips.get(peer)
        if trips is None:
            trips = self._trips[peer] = _Trips()
        if now - trips.since < TOGETHER_SECONDS and trips.recent:
            if seconds >= trips.recent[-1]:
                return
            trips.recent[-1] = seconds
        else:
            trips.since = now
            trips.recent.append(seconds)
        trips.median = None
        self._is_known = False

    def forget(self, peer: str) -> None:
        """A peer is gone: when it comes again, its path may be another one."""
        if self._trips.pop(peer, None) is not None:
            self._is_known = False

    def median(self, peer: str) -> float | None:
        """The median round trip of this peer; None before its first answer."""
        trips = self._trips.get(peer)
        if trips is None:
            return None
        if trips.median is None:
            trips.median = _median(trips.recent)
        return trips.median

    def median_of_all(self) -> float | None:
        """The median of the peers' medians; None before the first answer of any peer."""
        if not self._is_known:
            medians = [seconds for peer in self._trips if (seconds := self.median(peer)) is not None]
            self._median_of_all = _median(medians) if medians else None
            self._is_known = True
        return self._median_of_all

    def timeout(self, peer: str, *, least: float) -> float:
        """How long this peer may take before its silence counts as a failure; at least `least`."""
        median = self.median(peer)
        if median is None:
            median = self.median_of_all() or 0.0
        return max(least, min(TIMEOUT_SECONDS_MAX, TIMEOUT_TIMES * median))

    def timeout_of_all(self, peers: Iterable[str], *, least: float) -> float:
        """How long before the silence of all of these peers counts as a failure: the longest of their timeouts."""
        return max((self.timeout(peer, least=least) for peer in peers), default=least)

    def hedge_delay(self, peers: Iterable[str], *, most: float) -> float:
        """How long to wait for these peers before another one is asked too: at most `most`, at least the minimum."""
        delay = max((self._hedge_delay(peer) for peer in peers), default=HEDGE_SECONDS_DEFAULT)
        return max(HEDGE_SECONDS_MIN, min(delay, HEDGE_SECONDS_MAX, most))

    def _hedge_delay(self, peer: str) -> float:
        median = self.median(peer)
        return HEDGE_SECONDS_DEFAULT if median is None else HEDGE_TIMES * median

    def stretch(self, seconds: float) -> float:
        """The deadline of a call that gets `seconds` on a fast network: longer, up to a bound, on a slow one."""
        return stretch(seconds, self.median_of_all() or 0.0)


def stretch(seconds: float, round_trip: float) -> float:
    """A deadline of so many seconds, stretched for networks where `round_trip` is the median."""
    return max(seconds, min(STRETCH_TRIPS * round_trip, STRETCH_TIMES_MAX * seconds))


def _median(values: Iterable[float]) -> float:
    """The middle value, or the lower of the two in the middle."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]
