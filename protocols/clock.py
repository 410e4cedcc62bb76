"""Hybrid logical clock: its readings are the versions.

A reading is one whole number of 64 bits: 48 bits of Unix milliseconds, and below them 16 bits of counter. So versions
compare as numbers. They stay within a millisecond of the wall clock while that clock is right, and are later than their
parents even when it is wrong. Source: Kulkarni, Demirbas et al., 'Logical Physical Clocks' (2014).
"""

from collections.abc import Iterable
from typing import Final

from protocols.errors import ClockAhead, NotLater

COUNTER_BITS: Final = 16
COUNTER_MAX: Final = (1 << COUNTER_BITS) - 1
MS_MAX: Final = (1 << 48) - 1
VERSION_MAX: Final = (1 << 64) - 1
AHEAD_MS_MAX: Final = 60_000
"""How far a version may be ahead of the receiver's clock (`docs/protocol.md`, 'The clock')."""


def version(ms: int, counter: int = 0) -> int:
    """The reading for a time in Unix milliseconds, and a counter within the millisecond."""
    assert 0 <= ms <= MS_MAX, ms
    assert 0 <= counter <= COUNTER_MAX, counter
    return ms << COUNTER_BITS | counter


def ms_of(version: int) -> int:
    """The Unix milliseconds in a version."""
    return version >> COUNTER_BITS


def ahead_ms(version: int, now_ms: int) -> int:
    """How many milliseconds a version is ahead of a clock; negative when it is behind."""
    return ms_of(version) - now_ms


def check_not_ahead(version: int, now_ms: int) -> None:
    """Raise `ClockAhead` (retryable, with `details['ahead_ms']`) for a version more than 60 s ahead of this clock."""
    ahead = ahead_ms(version, now_ms)
    if ahead > AHEAD_MS_MAX:
        raise ClockAhead(
            f"the version is {ahead} ms ahead of this node's clock, and at most {AHEAD_MS_MAX} are accepted: one of "
            "the two clocks is wrong; send it again once that clock is set, or that time has come",
            reason="clock_ahead", ahead_ms=ahead, ahead_ms_max=AHEAD_MS_MAX,
        )  # fmt: skip


class HybridClock:
    """Issues versions, each greater than every one before it, whatever the wall clock does.

    It starts from the latest accepted version, and observes only accepted ones: a refused version must not move it
    ahead.
    """

    __slots__ = ("latest",)

    def __init__(self, latest: int = 0) -> None:
        self.latest = latest
        """The greatest version that was issued or observed; 0 without one."""

    def read(self, now_ms: int, *, after: Iterable[int] = ()) -> int:
        """The next version: later than every earlier one and than each of `after` (the versions of the parents).

        A full counter carries into the milliseconds. Raises `NotLater` when there is no later version.
        """
        wall = version(min(max(now_ms, 0), MS_MAX))
        reading = max(wall, max(after, default=0) + 1, self.latest + 1)
        if reading > VERSION_MAX:
            raise NotLater("no version can be later than the last one there is; the version before it is damaged")
        self.latest = reading
        return reading

    def observe(self, version: int) -> None:
        """Take an accepted version: every later reading is greater."""
        self.latest = max(self.latest, version)

    def rewind(self, latest: int) -> None:
        """Start again from `latest`. Later versions came from a wall clock that ran ahead, and have been reissued."""
        self.latest = latest
