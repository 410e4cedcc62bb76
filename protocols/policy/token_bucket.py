"""Token bucket: a limit on a rate that allows bursts.

Source: Turner, "New directions in communications" (1986).
"""


class TokenBucket:
    """`rate` tokens are added each second, up to `burst`. Times in seconds."""

    def __init__(self, *, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, amount: float, now: float) -> float:
        """Take tokens, going negative if needed; return the seconds to wait."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - amount
        self._at = now
        return max(0.0, -self._tokens / self._rate)

    def is_full(self, now: float) -> bool:
        """Whether the bucket is like a new one, so that it need not be kept."""
        return self._tokens + (now - self._at) * self._rate >= self._burst
