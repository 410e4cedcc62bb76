"""Absence: which members are gone, so that others hold in their place.

A member is gone when no node was connected with it for longer than a grace. One that is frozen or suspect is connected
still, and a restart is shorter than the grace. When half of the members or more are away at once, it is this node that
is parted, or that slept: then nobody else becomes gone. Otherwise the smaller side of a partition would copy all that
the larger side holds.
"""

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

HERE = inf
"""The time of the last sign of life of a member that is connected."""


class Judgement(NamedTuple):
    """The members that are gone, sorted; and why no further one is, in words, or ''."""

    gone: tuple[str, ...]
    held: str


class Absence:
    """Of one node. Times are seconds on one monotonic clock; `started_at` is when this node began to look."""

    def __init__(self, *, grace_seconds: float, started_at: float) -> None:
        self._grace_seconds = grace_seconds
        self._started_at = started_at
        self._gone: tuple[str, ...] = ()
        self._held_at = -inf
        """When this node was cut off last, as far as it could tell."""

    def judge(self, alive_at: Mapping[str, float], now: float) -> Judgement:
        """The judgement over all members, of which `alive_at` has the last sign of life (`HERE`: it is connected, or
        need not be).

        A member that was gone and is here again is not gone any more, whatever the others do.
        """
        silent = {peer: now - max(at, self._started_at) for peer, at in alive_at.items()}
        gone = [peer for peer in self._gone if silent.get(peer, 0.0) > 0.0]
        others = [peer for peer in silent if peer not in gone]
        away = [peer for peer in others if silent[peer] > self._grace_seconds / 2]
        due = [peer for peer in away if silent[peer] > self._grace_seconds]
        held = ""
        if due and 2 * len(away) >= len(others) + 1:
            self._held_at = now
            held = (
                f"{len(away)} of the {len(others)} other members are away at once: this node may be the one that is "
                "cut off, so no other node takes their place"
            )
        elif now - self._held_at > self._grace_seconds:  # else the others are coming back one after another
            gone += due
        self._gone = tuple(sorted(gone))
        return Judgement(self._gone, held)
