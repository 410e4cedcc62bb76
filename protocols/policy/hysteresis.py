"""Hysteresis: one bad moment is no illness, and one good one no recovery.

Worse only after several bad observations in a row, and not too long apart; better after several good ones. Between the
first sign and the verdict it is `stirred`: whoever can look again should, soon, instead of at the next regular time. So
neither verdict waits for a long interval, and neither comes from a single moment. Pure: `now` is seconds on one clock.
"""

from math import inf


class Hysteresis:
    """One thing that is observed again and again.

    Observations closer together than `apart_seconds` count as one. What is bad and was not seen to be for
    `forget_seconds` is over (for what nobody observes unless it is used).
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
        """Observations in a row that say otherwise than `is_bad`."""
        self._counted_at = -inf
        self._bad_at = -inf
        self.why = ""
        """What the last bad observation said."""

    def is_bad(self, now: float) -> bool:
        """The verdict."""
        if self._is_bad and now - self._bad_at >= self._forget:
            self._is_bad, self._streak = False, 0
        return self._is_bad

    def is_stirred(self, now: float) -> bool:
        """What was seen last says otherwise than the verdict: look again soon."""
        return self._streak > 0 and (self.is_bad(now) or now - self._bad_at < self._within)

    def is_quiet(self) -> bool:
        """A good observation would tell nothing new."""
        return not self._is_bad and not self._streak

    def saw_good(self, now: float) -> bool:
        """It was seen to be well; answers whether the verdict is another now."""
        if not self.is_bad(now):
            self._streak = 0
            return False
        return self._count(self._better_after, now)

    def saw_bad(self, why: str, now: float) -> bool:
        """It was seen to be ill; answers whether the verdict is another now."""
        is_bad, is_news = self.is_bad(now), now - self._bad_at < self._within
        self.why, self._bad_at = why, now
        if is_bad:
            self._streak = 0
            return False
        if not is_news:
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
