"""Backoff: the wait before the next attempt, exponential and capped, with jitter.

Source: "Exponential Backoff And Jitter" (Brooker, AWS Architecture Blog, 2015), the 'equal jitter' form: half of the
wait is fixed, so that no caller retries at once, and half is random, so that many callers do not retry together.
"""


def backoff(attempt: int, *, base: float, cap: float, chance: float) -> float:
    """Seconds to wait after the `attempt`-th failure (1 is the first). `chance` is drawn from [0, 1)."""
    wait = min(cap, base * 2.0 ** min(attempt - 1, 62))
    return wait / 2 + wait / 2 * chance
