"""How long to wait before the next try: exponential, capped, with full-range jitter below the cap.

Source: "Exponential Backoff And Jitter" (Brooker, AWS Architecture Blog, 2015), the 'equal jitter' form: half of the
wait is certain, so that nobody hammers, and half is chance, so that many do not come at once.
"""


def backoff(attempt: int, *, base: float, cap: float, chance: float) -> float:
    """Seconds to wait after the `attempt`-th failure (1 is the first). `chance` is drawn from [0, 1)."""
    whole = min(cap, base * 2.0 ** min(attempt - 1, 62))
    return whole / 2 + whole / 2 * chance
