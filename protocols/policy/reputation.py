"""Reputation of peers: each offence costs points, and points decay with time.

The points of a peer halve every few minutes. With many points a peer loses its connection at each further offence; with
more it is banned until most of its points have decayed. One mistake costs little, because an honest peer may forward
what another peer made up. Refusals that belong to the protocol, such as that of a clock that is ahead, are no offence.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import exp2, log2


class Offence(StrEnum):
    """An offence of a peer; `POINTS` has its cost."""

    FLOOD = "flood"
    """More of something than the limit, after the peer was warned."""
    BAD_INPUT = "bad input"
    """Input that cannot be decoded; its stream ends."""
    BAD_ENVELOPE = "bad envelope"
    """An envelope whose signature is wrong, or bytes that are no envelope."""
    WRONG_ANSWER = "wrong answer"
    """A reply that does not fit its request."""
    BROKEN_RULES = "broken rules"
    """Input that no correct peer sends; its connection ends."""


POINTS = {
    Offence.FLOOD: 0.25,
    Offence.BAD_INPUT: 5.0,
    Offence.BAD_ENVELOPE: 5.0,
    Offence.WRONG_ANSWER: 5.0,
    Offence.BROKEN_RULES: 25.0,
}


class Penalty(StrEnum):
    """The consequence of an offence, beside the end of the stream that it came on."""

    NONE = "none"
    DISCONNECT = "disconnect"
    BAN = "ban"


@dataclass(slots=True)
class _Standing:
    points: float
    at: float
    is_banned: bool = False


class Reputation:
    """The points of each peer. The same offences at the same times (seconds) always give the same penalties.

    From `disconnect_at` points on an offence costs the connection, from `ban_at` points on it is a ban, which ends when
    the points are down to `readmit_at`. No peer has more than `points_max`, which bounds the length of a ban. At most
    `peers_max` peers are remembered.
    """

    def __init__(
        self,
        *,
        half_life_seconds: float = 300.0,
        disconnect_at: float = 40.0,
        ban_at: float = 90.0,
        readmit_at: float = 25.0,
        points_max: float = 400.0,
        peers_max: int = 4096,
    ) -> None:
        assert 0 < readmit_at < ban_at <= points_max
        self._half_life = half_life_seconds
        self._disconnect_at = disconnect_at
        self._ban_at = ban_at
        self._readmit_at = readmit_at
        self._points_max = points_max
        self._peers_max = peers_max
        self._records: dict[str, _Standing] = {}

    def __len__(self) -> int:
        return len(self._records)

    def offend(self, peer: str, offence: Offence, now: float, *, times: int = 1) -> Penalty:
        """Count an offence of a peer, `times` times at once."""
        record = self._records.get(peer)
        if record is None:
            self._make_room(now)
            record = self._records[peer] = _Standing(0.0, now)
        self._is_banned(record, now)  # the ban may have ended since
        record.points = min(self._points_max, self._points(record, now) + times * POINTS[offence])
        record.at = now
        if record.is_banned or record.points >= self._ban_at:
            record.is_banned = True
            return Penalty.BAN
        return Penalty.DISCONNECT if record.points >= self._disconnect_at else Penalty.NONE

    def points(self, peer: str, now: float) -> float:
        record = self._records.get(peer)
        return 0.0 if record is None else self._points(record, now)

    def is_banned(self, peer: str, now: float) -> bool:
        """Whether a peer is banned now."""
        record = self._records.get(peer)
        return record is not None and self._is_banned(record, now)

    def banned_seconds(self, peer: str, now: float) -> float:
        """How long the ban of a peer still lasts; 0 without a ban."""
        if not self.is_banned(peer, now):
            return 0.0
        return self._half_life * log2(self.points(peer, now) / self._readmit_at)

    def pardon(self, peer: str) -> None:
        """Forget all offences of a peer."""
        self._records.pop(peer, None)

    def _points(self, record: _Standing, now: float) -> float:
        return record.points * exp2(-max(0.0, now - record.at) / self._half_life)

    def _is_banned(self, record: _Standing, now: float) -> bool:
        record.is_banned = record.is_banned and self._points(record, now) > self._readmit_at
        return record.is_banned

    def _make_room(self, now: float) -> None:
        """When there are too many peers, forget the quarter with the fewest points: memory stays bounded."""
        if len(self._records) < self._peers_max:
            return
        by_points = sorted(self._records, key=lambda peer: (self._points(self._records[peer], now), peer))
        for peer in by_points[: max(1, self._peers_max // 4)]:
            del self._records[peer]
