"""Announcements that this node keeps of other nodes: which are taken, which are passed on, and until when each holds.

Anybody can make up identities and announce each of them, so what one source can cost is bounded: each author has a
rate, and peers that are no members share a part of the places. When those are taken, a newcomer gets the place of the
oldest one from the peer that brought the most: a peer that brings thousands drives out its own. A peer's own word over
its own connection needs no proof of time; everywhere else an announcement holds until its expiry, and a sequence that
was seen before is a replay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from protocols.announce import Announcement
from protocols.policy.source_rates import SourceRates

HOLD_SECONDS_MAX = 24 * 3600.0
"""No announcement holds longer, whatever its expiry says."""
AHEAD_SECONDS_MAX = 60.0
"""How much later than that an expiry may be, because clocks differ."""
FAREWELL_SECONDS = 600.0
"""How long the farewell of a peer is remembered, so that what the peer announced before is not taken again."""
RATE, BURST = 0.5, 30.0
"""Announcements a second from one source in the long run, and at once."""


class Verdict(Enum):
    """What becomes of an announcement."""

    NEW = "it says something new"
    PASS_ON = "it is known here, and was not passed on yet"
    REPEATED = "it was passed on before"
    REPLAYED = "the peer has announced something later"
    EXPIRED = "it has expired, or the clock of the peer or of this node is off"
    AHEAD = "it expires too far in the future, or a clock is off"
    FLOOD = "its source announces too often"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An announcement that holds until a time, in seconds on the caller's monotonic clock."""

    announcement: Announcement
    until: float
    source: str
    """The peer that brought it, for one of a peer that is no member; else ''."""
    passed_on: int
    """The greatest sequence of this peer that came by the topic."""


class AnnouncementTable:
    """Those of members, whose number others bound, and those of at most `strangers_max` other peers."""

    def __init__(self, *, strangers_max: int = 1024) -> None:
        self._strangers_max = strangers_max
        self._held: dict[str, Held] = {}
        self._strangers: dict[str, dict[str, None]] = {}
        """By source, the peers that are no members, the oldest first."""
        self._sources = SourceRates(rate=RATE, burst=BURST)

    def __len__(self) -> int:
        return len(self._held)

    def current(self, now: float) -> Sequence[Announcement]:
        """The announcements that hold, without farewells."""
        self._drop_expired(now)
        return [held.announcement for held in self._held.values() if not held.announcement.is_farewell]

    def get(self, peer: str, now: float) -> Announcement | None:
        held = self._held.get(peer)
        return held.announcement if held is not None and held.until > now else None

    def may_come(self, source: str, now: float) -> bool:
        """Whether a source may announce now; it counts as one announcement."""
        return self._sources.may(source, now)

    def judge(self, announcement: Announcement, now: float, *, now_ms: int, by_topic: bool) -> Verdict:
        """What becomes of an announcement that came by the topic, or from a peer that passed it on. Changes nothing.

        `now_ms` is the wall clock of the announcing peer, as far as this node knows how it differs from its own.
        """
        held = self._held.get(announcement.peer)
        if held is not None and held.until <= now:
            held = None
        if held is not None and announcement.sequence <= held.announcement.sequence:
            if announcement.sequence < held.announcement.sequence:
                return Verdict.REPLAYED
            return Verdict.PASS_ON if by_topic and held.passed_on < announcement.sequence else Verdict.REPEATED
        if not announcement.is_farewell:
            left = announcement.expires_ms - now_ms
            if left <= 0:
                return Verdict.EXPIRED
            if left > (HOLD_SECONDS_MAX + AHEAD_SECONDS_MAX) * 1000.0:
                return Verdict.AHEAD
        return Verdict.NEW

    def put(
        self, announcement: Announcement, now: float, *, now_ms: int, source: str = "", by_topic: bool = False
    ) -> str:
        """Keep an announcement whose signature was checked. Returns the peer whose announcement gave way to it, or ''.

        `source` is the peer that brought it, '' for one of a member. What a peer says over its own connection is kept
        without `judge`: it cannot be a replay.
        """
        before = self._drop(announcement.peer)
        until = now + min(max((announcement.expires_ms - now_ms) / 1000.0, 0.0), HOLD_SECONDS_MAX)
        if announcement.is_farewell:
            until = max(now + FAREWELL_SECONDS, before.until if before else 0.0)
        passed_on = announcement.sequence if by_topic else before.passed_on if before else 0
        dropped = self._make_room(now) if source else ""
        self._held[announcement.peer] = Held(
            announcement=announcement,
            until=until,
            source=source,
            passed_on=passed_on if passed_on <= announcement.sequence else 0,
        )
        if source:
            self._strangers.setdefault(source, {})[announcement.peer] = None
        return dropped

    def pass_on(self, announcement: Announcement) -> None:
        """A known announcement came by the topic, and is passed on once."""
        held = self._held[announcement.peer]
        self._held[announcement.peer] = replace(held, passed_on=announcement.sequence)

    def _make_room(self, now: float) -> str:
        """Have room for one more peer that is no member. Returns the peer whose announcement is dropped, or ''."""
        if self._strangers_count() >= self._strangers_max:
            self._drop_expired(now)
        if self._strangers_count() < self._strangers_max:
            return ""
        most = max(self._strangers.values(), key=len)
        self._drop(oldest := next(iter(most)))
        return oldest

    def _strangers_count(self) -> int:
        return sum(map(len, self._strangers.values()))

    def _drop(self, peer: str) -> Held | None:
        held = self._held.pop(peer, None)
        if held is not None and held.source:
            del self._strangers[held.source][peer]
            if not self._strangers[held.source]:
                del self._strangers[held.source]
        return held

    def _drop_expired(self, now: float) -> None:
        for peer in [peer for peer, held in self._held.items() if held.until <= now]:
            self._drop(peer)
