"""Waiting for a condition: `until` in async tests, `block_until` in tests without trio, for what other processes do.

Both ask again and again until the condition holds, and fail with an AssertionError that names the condition when it
does not hold in time.
"""

import inspect
import time
from collections.abc import Awaitable, Callable

import trio
from trio.testing import MockClock

SECONDS_MAX = 45.0
"""How long a condition may take on a real clock, unless the caller says otherwise: what a busy machine may need."""
VIRTUAL_SECONDS_MAX = 120.0
"""How long it may take on a mock clock."""

Condition = Callable[[], object] | Callable[[], Awaitable[object]]


async def until(
    condition: Condition, *, seconds: float | None = None, what: str = "", on_real_clock: bool = False
) -> float:
    """Wait until `condition()` is true, and return how many seconds that took. Fails after `seconds`.

    Seconds are those of trio's clock: virtual ones under a mock clock. A thread or a disk does not know the mock
    clock: with `on_real_clock` the wait is measured in real seconds, and the mock clock stands still meanwhile.
    `what` names the condition in the failure, instead of its source line.
    """
    is_virtual = isinstance(trio.lowlevel.current_clock(), MockClock) and not on_real_clock
    limit = seconds if seconds is not None else VIRTUAL_SECONDS_MAX if is_virtual else SECONDS_MAX
    now = time.monotonic if on_real_clock else trio.current_time
    started = now()
    while not await _holds(condition):
        spent = now() - started
        if spent >= limit:
            raise AssertionError(_failure(condition, limit, what))
        await trio.sleep(0.0 if on_real_clock else _pause(spent))
    return now() - started


def block_until(condition: Callable[[], object], *, seconds: float = SECONDS_MAX, what: str = "") -> None:
    """Block this thread until `condition()` is true. Fails after `seconds`, on the real clock."""
    started = time.monotonic()
    while not condition():
        spent = time.monotonic() - started
        if spent >= seconds:
            raise AssertionError(_failure(condition, seconds, what))
        time.sleep(_pause(spent))


async def _holds(condition: Condition) -> bool:
    found = condition()
    return bool(await found if isinstance(found, Awaitable) else found)


def _pause(spent: float) -> float:
    return 0.005 if spent < 0.5 else 0.05


def _failure(condition: Condition, seconds: float, what: str) -> str:
    return f"not within {seconds:g} s: {what or _name(condition)}"


def _name(condition: Condition) -> str:
    """The source line of a lambda, the name of a function."""
    name = str(getattr(condition, "__qualname__", condition))
    if "<lambda>" not in name:
        return name
    try:
        return " ".join(inspect.getsource(condition).split())
    except OSError:  # typed into an interpreter
        return name
