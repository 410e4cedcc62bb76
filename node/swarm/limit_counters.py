"""What limits were hit, and how often: plain numbers for whoever asks, and a line in the log that does not repeat.

Whoever floods us must not flood our log as well. So of each kind and peer one line a minute is written, which says how
many there were since the last; and of each kind no more than a few lines a minute, whoever caused them.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import trio

SILENCE_SECONDS = 60.0
LINES_PER_KIND_MAX = 20
"""A kind's lines within `SILENCE_SECONDS`, of whatever peers."""

KEPT_MAX = 1024
"""Kinds and peers of which is remembered when they had their line."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Line:
    at: float
    count: int


@dataclass(slots=True, kw_only=True)
class LimitCounts:
    """Since the node started. Every name is the `kind` that `LimitCounters.hit` takes."""

    connections_refused: int = 0
    """That came when there were too many, and none could give way."""
    connections_evicted: int = 0
    """That gave way to one that came."""
    connections_per_peer: int = 0
    connections_per_subnet: int = 0
    connections_idle: int = 0
    connections_stalled: int = 0
    """That took no byte for too long, though there was something to send."""
    out_of_descriptors: int = 0
    """Vain tries to take a connection that came: this process had no file descriptors left, or the system no memory."""
    half_open_dropped: int = 0
    handshakes_slow: int = 0
    handshakes_failed: int = 0
    other_swarms: int = 0
    """Peers of another swarm that were parted from."""
    members_refused: int = 0
    """That would have been one more than are remembered."""
    streams_refused: int = 0
    """Beyond the number that a connection may have."""
    streams_per_protocol: int = 0
    streams_slow: int = 0
    """That did not say in time what they are for, or then said or read nothing for too long."""
    unread_bytes: int = 0
    answers_unread: int = 0
    frames_too_long: int = 0
    frames_stalled: int = 0
    frames_not_queued: int = 0
    """Of ours, for a peer that does not read fast enough."""
    requests_refused: int = 0
    """Of a peer that has too many, or too large ones, under way, or while all have."""
    requests_refused_for_all: int = 0
    """Those of them for what all have under way together."""
    requests_not_sent: int = 0
    """Of ours, to a peer that has too many of them to answer already."""
    messages_malformed: int = 0
    answers_wrong: int = 0
    answers_left_out: int = 0
    """Envelopes and notices that a peer answered with and that cannot be taken now: ahead of this node's clock."""
    envelopes_refused: int = 0
    """That no author can have signed like that."""
    gossip_refused: int = 0
    gossip_slowed: int = 0
    gossip_dropped: int = 0
    gossip_topics: int = 0
    """Subscriptions that were left out: beyond the number that a peer may have, or to too long a name."""
    gossip_failed: int = 0
    """Messages that a validator or a handler of ours failed at."""
    hints_refused: int = 0
    """Envelopes of ours that a holder refused for good; they are in quarantine, and `bzzz pending` shows them."""
    offences: int = 0
    """Bad input of every kind."""
    connections_forfeited: int = 0
    """Taken from a peer for its offences."""
    turned_away: int = 0
    """Connections that came from those who are not allowed here, or have lost their place."""
    places_lost: int = 0
    """Peers that nobody deals with here until their offences are forgotten."""

    def as_dict(self) -> Mapping[str, int]:
        return asdict(self)


class LimitCounters:
    """Counts, and says so: `hit` is for whoever refuses something."""

    def __init__(self, counts: LimitCounts | None = None, log: logging.Logger | None = None) -> None:
        self.counts = counts or LimitCounts()
        self._log = log or _log
        self._said: dict[tuple[str, str], _Line] = {}
        self._kinds: dict[str, _Line] = {}

    def count(self, kind: str, times: int = 1) -> None:
        """Count one of this kind, of which somebody else has something to say: who blames a peer for it, say."""
        setattr(self.counts, kind, getattr(self.counts, kind) + times)

    def hit(self, kind: str, who: str, what: str, *, times: int = 1, line: str = "") -> None:
        """Count one of this kind; `who` is the peer or place it is about ('' for none), `what` says it in words.

        `line` is the kind whose one line a minute it shares, if it is to have none of its own.
        """
        self.count(kind, times)
        self._say(line or kind, who, what, times)

    def _say(self, kind: str, who: str, what: str, times: int) -> None:
        now = trio.current_time()
        line = self._said.get((kind, who))
        if line is not None and now - line.at < SILENCE_SECONDS:
            line.count += times
        elif self._may_say(kind, now):
            more = f" (and {line.count} more like it before)" if line is not None and line.count else ""
            self._said.pop((kind, who), None)
            self._make_room(now)
            self._said[kind, who] = _Line(now, 0)
            self._log.warning("%s: %s%s", who or "here", what, more)

    def _may_say(self, kind: str, now: float) -> bool:
        lines = self._kinds.get(kind)
        if lines is None or now - lines.at >= SILENCE_SECONDS:
            lines = self._kinds[kind] = _Line(now, 0)
        lines.count += 1
        return lines.count <= LINES_PER_KIND_MAX

    def _make_room(self, now: float) -> None:
        """The oldest come first: those are forgotten whose time is over, with what was kept silent of them."""
        while self._said and (
            len(self._said) >= KEPT_MAX or now - next(iter(self._said.values())).at >= 2 * SILENCE_SECONDS
        ):
            del self._said[next(iter(self._said))]
