"""Round trips: how long peers take to answer, and what follows from it for whoever waits for them.

A swarm on a LAN answers within a millisecond, one across an ocean takes 150; neither is ill. So nothing that judges a
peer by its silence goes by a fixed time: it asks here how long this peer may take (`patience`), when it is time to ask
another one too (`hedge`), and how much a call of several round trips needs (`stretched`). All of it is bounded, so that
a peer that gets slower and slower is not waited for longer and longer.

Told by the few most recent round trips of each peer, and judged by their median: a standstill of one machine, after
which all of its answers come at once and late, moves it as little as one lost frame does, while a network that has
really become slower is known after half as many answers as are kept. (Smoothed means, as those of RFC 6298 for TCP's
retransmission timer, forget an outlier much more slowly.) Late answers count too: those of a network that has become
slow are all late at first.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

KEPT = 9
"""Round trips kept of each peer."""
TOGETHER_SECONDS = 0.005
"""Answers that come within this time of each other came together: they count once, with the quickest of them, for
what held the others up was not the way."""
PATIENCE_TIMES = 3.0
"""Who takes so many times its usual time is not merely slow."""
PATIENCE_SECONDS_MAX = 2.0
"""Nobody is waited for longer before it is blamed, however slow it was."""
HEDGE_TIMES = 2.0
HEDGE_SECONDS_MIN = 0.01
HEDGE_SECONDS_USUAL = 0.02
"""For peers of which nothing is known yet."""
HEDGE_SECONDS_MAX = 0.5
STRETCH_TRIPS = 4.0
"""So many round trips are a call's due: heads, what they lack, the gaps between, and one that is late."""
STRETCH_TIMES_MAX = 3.0
"""No deadline is stretched to more times what it is."""


@dataclass(slots=True)
class _Way:
    """The recent round trips of one peer, and when the latest batch of answers began to come."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    since: float = float("-inf")
    usual: float | None = None
    """Their median; None while it has not been worked out since the last one came."""


class RttEstimator:
    """Told of answers with `took`; asked for what may be expected. Times are seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._ways: dict[str, _Way] = {}
        self._overall: float | None = None
        self._is_known = False

    def took(self, peer: str, seconds: float, now: float) -> None:
        """A peer answered after so long, now."""
        way = self._ways.get(peer)
        if way is None:
            way = self._ways[peer] = _Way()
        if now - way.since < TOGETHER_SECONDS and way.recent:
            if seconds >= way.recent[-1]:
                return
            way.recent[-1] = seconds
        else:
            way.since = now
            way.recent.append(seconds)
        way.usual = None
        self._is_known = False

    def forget(self, peer: str) -> None:
        """A peer is gone: when it comes again, it may be by another way."""
        if self._ways.pop(peer, None) is not None:
            self._is_known = False

    def usual(self, peer: str) -> float | None:
        """How long this peer usually takes; None while it has not answered anything."""
        way = self._ways.get(peer)
        if way is None:
            return None
        if way.usual is None:
            way.usual = _median(way.recent)
        return way.usual

    def overall(self) -> float | None:
        """How long the peers usually take: half of them are quicker. None while nobody has answered anything."""
        if not self._is_known:
            usual = [seconds for peer in self._ways if (seconds := self.usual(peer)) is not None]
            self._overall = _median(usual) if usual else None
            self._is_known = True
        return self._overall

    def patience(self, peer: str, *, least: float) -> float:
        """How long this peer may take before its silence says something of it; at least `least`."""
        usual = self.usual(peer)
        if usual is None:
            usual = self.overall() or 0.0
        return max(least, min(PATIENCE_SECONDS_MAX, PATIENCE_TIMES * usual))

    def patience_with(self, peers: Iterable[str], *, least: float) -> float:
        """How long before the silence of all of these says something: the slowest of them had its time."""
        return max((self.patience(peer, least=least) for peer in peers), default=least)

    def hedge(self, peers: Iterable[str], *, most: float) -> float:
        """How long to wait for these before another one is asked too; at most `most`, but for the least there is."""
        delay = max((self._hedge(peer) for peer in peers), default=HEDGE_SECONDS_USUAL)
        return max(HEDGE_SECONDS_MIN, min(delay, HEDGE_SECONDS_MAX, most))

    def _hedge(self, peer: str) -> float:
        usual = self.usual(peer)
        return HEDGE_SECONDS_USUAL if usual is None else HEDGE_TIMES * usual

    def stretched(self, seconds: float) -> float:
        """What a call gets that may take so long on a quick network: longer, up to a bound, where answers take long."""
        return stretched(seconds, self.overall() or 0.0)


def stretched(seconds: float, round_trip: float) -> float:
    """A deadline of so many seconds where round trips usually take so long."""
    return max(seconds, min(STRETCH_TRIPS * round_trip, STRETCH_TIMES_MAX * seconds))


def _median(values: Iterable[float]) -> float:
    """The middle one, the lower of the two where there are two."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]
