"""Rates of sources: each source may do something so often, and the memory for all of them is bounded."""

from protocols.policy.token_bucket import TokenBucket

SOURCES_MAX = 4096
"""Sources that are remembered; above it a further one must wait until another one's bucket is full again."""


class SourceRates:
    """`rate` a second for each source in the long run, `burst` at once. Times in seconds."""

    def __init__(self, *, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, TokenBucket] = {}

    def may(self, source: str, now: float) -> bool:
        """Whether a source may do it now; if so, that counts."""
        bucket = self._buckets.get(source)
        if bucket is None:
            if len(self._buckets) >= SOURCES_MAX:
                self._buckets = {name: each for name, each in self._buckets.items() if not each.is_full(now)}
            if len(self._buckets) >= SOURCES_MAX:
                return False
            bucket = self._buckets[source] = TokenBucket(rate=self._rate, burst=self._burst, now=now)
        if bucket.take(0.0, now) > 0.0:
            return False
        bucket.take(1.0, now)
        return True
