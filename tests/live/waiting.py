"""Waiting for what another process does, and does not tell of by itself."""

import time
from collections.abc import Callable

WAIT_SECONDS = 15.0


def until(condition: Callable[[], object], what: str, *, seconds: float = WAIT_SECONDS) -> None:
    """Ask again and again until it holds; `what` says in words what is waited for, when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
