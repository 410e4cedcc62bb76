"""A token bucket: how much of something may be had at once, and how fast it may be had in the long run.

Turner, "New directions in communications" (1986).
"""


class TokenBucket:
    """`rate` tokens a second flow in, at most `burst` stay. Times in seconds."""

    def __init__(self, *, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, amount: float, now: float) -> float:
        """Take tokens, be they there or not, and answer for how many seconds to wait until they would have been."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - amount
        self._at = now
        return max(0.0, -self._tokens / self._rate)

    def is_full(self, now: float) -> bool:
        """Whether it is as if nobody had ever taken anything: then there is no need to keep it."""
        return self._tokens + (now - self._at) * self._rate >= self._burst
