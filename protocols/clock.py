"""Versions: readings of a hybrid logical clock, and the clock.

A reading is one whole number of 64 bits: 48 bits of Unix milliseconds and below them 16 bits of counter. So versions
compare as numbers, stay within a millisecond of the wall clock as long as the clock is right, and are later than
everything they were written on top of even when it is not. Source: Kulkarni, Demirbas et al., 'Logical Physical
Clocks' (2014).
"""

from collections.abc import Iterable
from typing import Final

from protocols.errors import ClockAhead, NotLater

COUNTER_BITS: Final = 16
COUNTER_MAX: Final = (1 << COUNTER_BITS) - 1
MS_MAX: Final = (1 << 48) - 1
VERSION_MAX: Final = (1 << 64) - 1
AHEAD_MS_MAX: Final = 60_000
"""How far a version may be ahead of the receiver's clock (`docs/protocol.md`)."""


def version(ms: int, counter: int = 0) -> int:
    """The reading of a moment in Unix milliseconds and a counter within it."""
    assert 0 <= ms <= MS_MAX, ms
    assert 0 <= counter <= COUNTER_MAX, counter
    return ms << COUNTER_BITS | counter


def ms_of(version: int) -> int:
    """The Unix milliseconds in a version."""
    return version >> COUNTER_BITS


def counter_of(version: int) -> int:
    """The counter in a version: how many came before it within its millisecond, when nothing was ahead."""
    return version & COUNTER_MAX


def ahead_ms(version: int, now_ms: int) -> int:
    """By how many milliseconds a version is ahead of a clock; negative when it is behind."""
    return ms_of(version) - now_ms


def check_not_ahead(version: int, now_ms: int) -> None:
    """Raise `ClockAhead` (retryable, with `details['ahead_ms']`) for a version more than 60 s ahead of this clock."""
    ahead = ahead_ms(version, now_ms)
    if ahead > AHEAD_MS_MAX:
        raise ClockAhead(
            f"the version is {ahead} ms ahead of this node's clock, and at most {AHEAD_MS_MAX} are taken: one of the "
            "two clocks is wrong; it can be sent again once that is mended, or that moment has come",
            reason="clock_ahead", ahead_ms=ahead, ahead_ms_max=AHEAD_MS_MAX,
        )  # fmt: skip


class HybridClock:
    """Gives out versions, each greater than every one before it, whatever the wall clock does.

    It starts from the latest accepted version, and is told only of accepted ones: a refused version must not be able
    to drag it ahead.
    """

    __slots__ = ("latest",)

    def __init__(self, latest: int = 0) -> None:
        self.latest = latest
        """The greatest version that was given out or observed; 0 when there was none."""

    def read(self, now_ms: int, *, after: Iterable[int] = ()) -> int:
        """The next version: later than every earlier one, and than each of `after` (the parents' versions).

        A full counter carries into the milliseconds. Raises `NotLater` when no later version can be written.
        """
        wall = version(min(max(now_ms, 0), MS_MAX))
        reading = max(wall, max(after, default=0) + 1, self.latest + 1)
        if reading > VERSION_MAX:
            raise NotLater("no version can be later than the last one there is; the version before it is damaged")
        self.latest = reading
        return reading

    def observe(self, version: int) -> None:
        """Learn of an accepted version: whatever is read from now on is later."""
        self.latest = max(self.latest, version)

    def rewind(self, latest: int) -> None:
        """Start again from `latest`: what was given out after it came from a wall clock that ran ahead, and is gone."""
        self.latest = latest
