"""Hysteresis: a verdict changes only after several observations in a row that contradict it.

Good becomes bad after several bad observations that are not too far apart, bad becomes good after several good ones.
Between the first contradicting observation and the change of the verdict `needs_recheck` is true: the caller should
observe again soon, and not wait for its next regular time. So no verdict takes a long interval, and none comes from a
single observation. `now` is seconds on one clock.
"""

from math import inf


class Hysteresis:
    """The verdict about one thing that is observed repeatedly.

    Observations closer together than `apart_seconds` count as one. A bad verdict without a bad observation for
    `forget_seconds` ends (for a thing that is observed only when it is used).
    """

    def __init__(
        self,
        *,
        worse_after: int,
        better_after: int,
        within_seconds: float = inf,
        apart_seconds: float = 0.0,
        forget_seconds: float = inf,
    ) -> None:
        self._worse_after = worse_after
        self._better_after = better_after
        self._within = within_seconds
        self._apart = apart_seconds
        self._forget = forget_seconds
        self._is_bad = False
        self._streak = 0
        """Observations in a row that contradict `_is_bad`."""
        self._counted_at = -inf
        self._bad_at = -inf
        self.why = ""
        """The reason of the last bad observation."""

    def is_bad(self, now: float) -> bool:
        """The verdict."""
        if self._is_bad and now - self._bad_at >= self._forget:
            self._is_bad, self._streak = False, 0
        return self._is_bad

    def needs_recheck(self, now: float) -> bool:
        """Whether the last observation contradicts the verdict: observe again soon."""
        return self._streak > 0 and (self.is_bad(now) or now - self._bad_at < self._within)

    def is_clear(self) -> bool:
        """Whether a good observation would change nothing."""
        return not self._is_bad and not self._streak

    def observe_good(self, now: float) -> bool:
        """Take a good observation. Returns whether the verdict changed."""
        if not self.is_bad(now):
            self._streak = 0
            return False
        return self._count(self._better_after, now)

    def observe_bad(self, why: str, now: float) -> bool:
        """Take a bad observation. Returns whether the verdict changed."""
        is_bad, is_near = self.is_bad(now), now - self._bad_at < self._within
        self.why, self._bad_at = why, now
        if is_bad:
            self._streak = 0
            return False
        if not is_near:
            self._streak = 0
        return self._count(self._worse_after, now)

    def _count(self, enough: int, now: float) -> bool:
        if self._streak and now - self._counted_at < self._apart:
            return False
        self._streak += 1
        self._counted_at = now
        if self._streak < enough:
            return False
        self._is_bad, self._streak = not self._is_bad, 0
        return True
