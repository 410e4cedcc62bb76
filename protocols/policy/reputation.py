"""Misbehaviour: what a peer did wrong, added up and forgotten again in time.

Every piece of bad input costs points; the points of a peer halve every few minutes. Whoever has many loses its
connection with each further offence, whoever has more loses its place: nobody deals with it until most of its points
have decayed. One mistake costs next to nothing, for an honest peer may hand on what another one made up; refusals that
belong to the protocol, such as that of a clock that is ahead, are no offence at all.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import exp2, log2


class Offence(StrEnum):
    """What a peer did. `POINTS` says what each costs."""

    FLOOD = "flood"
    """More of something than it may have, and was told so."""
    BAD_INPUT = "bad input"
    """What cannot be read, on a stream that ends with it."""
    BAD_ENVELOPE = "bad envelope"
    """An envelope that no author signed like that, or that is none at all."""
    WRONG_ANSWER = "wrong answer"
    """An answer to something else than what was asked."""
    BROKEN_RULES = "broken rules"
    """What no working peer sends: its connection ends with it."""


POINTS = {
    Offence.FLOOD: 0.25,
    Offence.BAD_INPUT: 5.0,
    Offence.BAD_ENVELOPE: 5.0,
    Offence.WRONG_ANSWER: 5.0,
    Offence.BROKEN_RULES: 25.0,
}


class Penalty(StrEnum):
    """What an offence costs now, beyond what it was sent on."""

    NOTHING = "nothing"
    CONNECTION = "connection"
    PLACE = "place"


@dataclass(slots=True)
class _Record:
    points: float
    at: float
    is_out: bool = False


class Reputation:
    """Told offences with the time in seconds; the same ones always give the same verdicts.

    `connection_at` and `place_at` are the points from which on an offence costs the connection, or the place;
    `back_at` are those at which it gets its place back. Nobody is given more than `points_max`, so that nobody is out
    for longer than it takes these to decay. Of at most `peers_max` peers something is remembered.
    """

    def __init__(
        self,
        *,
        half_life_seconds: float = 300.0,
        connection_at: float = 40.0,
        place_at: float = 90.0,
        back_at: float = 25.0,
        points_max: float = 400.0,
        peers_max: int = 4096,
    ) -> None:
        assert 0 < back_at < place_at <= points_max
        self._half_life = half_life_seconds
        self._connection_at = connection_at
        self._place_at = place_at
        self._back_at = back_at
        self._points_max = points_max
        self._peers_max = peers_max
        self._records: dict[str, _Record] = {}

    def __len__(self) -> int:
        return len(self._records)

    def offend(self, peer: str, offence: Offence, now: float, *, times: int = 1) -> Penalty:
        """A peer did this, so many times at once."""
        record = self._records.get(peer)
        if record is None:
            self._make_room(now)
            record = self._records[peer] = _Record(0.0, now)
        self._is_out(record, now)  # it may have its place back since
        record.points = min(self._points_max, self._points(record, now) + times * POINTS[offence])
        record.at = now
        if record.is_out or record.points >= self._place_at:
            record.is_out = True
            return Penalty.PLACE
        return Penalty.CONNECTION if record.points >= self._connection_at else Penalty.NOTHING

    def points(self, peer: str, now: float) -> float:
        record = self._records.get(peer)
        return 0.0 if record is None else self._points(record, now)

    def is_out(self, peer: str, now: float) -> bool:
        """Whether a peer has lost its place, and not got it back yet."""
        record = self._records.get(peer)
        return record is not None and self._is_out(record, now)

    def out_seconds(self, peer: str, now: float) -> float:
        """How long it is until a peer gets its place back; 0 when it has one."""
        if not self.is_out(peer, now):
            return 0.0
        return self._half_life * log2(self.points(peer, now) / self._back_at)

    def pardon(self, peer: str) -> None:
        """Forget all that a peer did."""
        self._records.pop(peer, None)

    def _points(self, record: _Record, now: float) -> float:
        return record.points * exp2(-max(0.0, now - record.at) / self._half_life)

    def _is_out(self, record: _Record, now: float) -> bool:
        record.is_out = record.is_out and self._points(record, now) > self._back_at
        return record.is_out

    def _make_room(self, now: float) -> None:
        """Forget the quarter with the fewest points when there are too many: nobody can make us keep it all."""
        if len(self._records) < self._peers_max:
            return
        by_points = sorted(self._records, key=lambda peer: (self._points(self._records[peer], now), peer))
        for peer in by_points[: max(1, self._peers_max // 4)]:
            del self._records[peer]
