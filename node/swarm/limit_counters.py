"""Counters of the limits that were hit, with a rate-limited log line for each.

A peer that floods this node must not flood its log as well. So the log gets at most one line a minute for each kind and
peer, with the number of hits since the last line; and at most a few lines a minute for each kind, over all peers.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import trio

SILENCE_SECONDS = 60.0
LINES_PER_KIND_MAX = 20
"""Lines of one kind within `SILENCE_SECONDS`, over all peers."""

KEPT_MAX = 1024
"""Pairs of kind and peer whose last line is remembered."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _LastLine:
    at: float
    """When it was written."""
    count: int
    """Hits since then."""


@dataclass(slots=True)
class _Lines:
    """The lines of one kind since `since`, the ones that were left out included."""

    since: float
    count: int = 0


@dataclass(slots=True, kw_only=True)
class LimitCounts:
    """Hits since the node started. Each name is a `kind` that `LimitCounters.hit` takes, and a label in the metrics."""

    connections_refused: int = 0
    """Inbound ones that came when there were too many and no idle one could be closed."""
    connections_evicted: int = 0
    """Idle ones that were closed to make room for an inbound one."""
    connections_per_peer: int = 0
    connections_per_subnet: int = 0
    connections_idle: int = 0
    connections_stalled: int = 0
    """Those that took no byte for too long, though there was something to send."""
    out_of_descriptors: int = 0
    """Failed accepts: this process had no file descriptors left, or the system no memory."""
    half_open_dropped: int = 0
    handshakes_slow: int = 0
    handshakes_failed: int = 0
    network_keys_wrong: int = 0
    """Inbound connections of nodes with another network key than this one, or without."""
    other_swarms: int = 0
    """Peers of another swarm that were disconnected."""
    addresses_refused: int = 0
    """Addresses of peers, finders and the store that can never be dialled."""
    sightings_refused: int = 0
    """Peers that were reported when their reporter, or all of them, had named too many that were never met."""
    members_refused: int = 0
    """Newcomers that came when as many members were remembered as may be."""
    streams_refused: int = 0
    """Beyond the number that a connection may have."""
    streams_per_protocol: int = 0
    streams_slow: int = 0
    """Those that did not name their protocol in time, or then sent or read nothing for too long."""
    unread_bytes: int = 0
    answers_unread: int = 0
    frames_too_long: int = 0
    frames_stalled: int = 0
    frames_not_queued: int = 0
    """This node's own, for a peer that does not read fast enough."""
    requests_refused: int = 0
    """Those that came while too many, or too large ones, of the peer or of all peers were in progress."""
    requests_refused_for_all: int = 0
    """Those among them that the total of all peers was the reason for."""
    requests_not_sent: int = 0
    """This node's own, to a peer that has too many of them to answer already."""
    messages_malformed: int = 0
    answers_wrong: int = 0
    answers_left_out: int = 0
    """Envelopes and notices in answers that cannot be accepted now: they are ahead of this node's clock."""
    envelopes_refused: int = 0
    """Those that no author can have signed like that."""
    contents_wrong: int = 0
    """Contents that a peer sent and that are not those of the digest that was asked for."""
    kad_streams_dropped: int = 0
    """Idle streams of the DHT that were reset to make room for others."""
    kad_streams_refused: int = 0
    """Those that came when there were too many, and none was idle."""
    kad_slowed: int = 0
    """Messages of the DHT that waited because their sender sends too many."""
    kad_answers_unread: int = 0
    """Streams that were reset because too many answers were not read."""
    kad_malformed: int = 0
    """Messages of the DHT that cannot be read."""
    kad_contacts_left_out: int = 0
    """Contacts in answers that were too many, or had no valid peer id."""
    gossip_refused: int = 0
    gossip_slowed: int = 0
    gossip_dropped: int = 0
    gossip_topics: int = 0
    """Subscriptions that were ignored: more than a peer may have, or to too long a name."""
    gossip_failed: int = 0
    """Messages at which a validator or a handler of this node raised."""
    announcements_forged: int = 0
    """Those that no honest node sends: malformed, not signed by their peer, of another peer or swarm."""
    announcements_late: int = 0
    """Those that were replayed or had expired, or that a clock is off for."""
    announcements_flooded: int = 0
    """Those that came too often from one author, and those of peers that are no members which gave way to others."""
    hints_refused: int = 0
    """Hints that a holder refused for good; they are in quarantine, and `bzzz pending` shows them."""
    offences: int = 0
    """Bad input of every kind."""
    connections_forfeited: int = 0
    """Those that were closed because of the peer's offences."""
    turned_away: int = 0
    """Inbound connections of peers that are not allowed here, or are banned."""
    places_lost: int = 0
    """Peers that were banned until their offences are forgotten."""

    def as_dict(self) -> Mapping[str, int]:
        return asdict(self)


class LimitCounters:
    """Counts hits and logs them. Code that refuses something calls `hit`."""

    def __init__(self, counts: LimitCounts | None = None, log: logging.Logger | None = None) -> None:
        self.counts = counts or LimitCounts()
        self._log = log or _log
        self._last_lines: dict[tuple[str, str], _LastLine] = {}
        """By kind and peer, the oldest first."""
        self._lines: dict[str, _Lines] = {}
        """By kind."""

    def count(self, kind: str, times: int = 1) -> None:
        """Count without a log line, where another call logs the same event (`PeerPolicy.blame`, for example)."""
        setattr(self.counts, kind, getattr(self.counts, kind) + times)

    def hit(self, kind: str, source: str, what: str, *, times: int = 1, line: str = "") -> None:
        """Count a hit of this kind and log it.

        `source` is the peer or address that it is about ('' for none), and `what` describes it. `line` is the kind
        whose log line it shares, when it has none of its own.
        """
        self.count(kind, times)
        self._log_line(line or kind, source, what, times)

    def _log_line(self, kind: str, source: str, what: str, times: int) -> None:
        now = trio.current_time()
        last = self._last_lines.get((kind, source))
        if last is not None and now - last.at < SILENCE_SECONDS:
            last.count += times
        elif self._may_log(kind, now):
            more = f" (and {last.count} more like it before)" if last is not None and last.count else ""
            self._last_lines.pop((kind, source), None)
            self._make_room(now)
            self._last_lines[kind, source] = _LastLine(now, 0)
            self._log.warning("%s: %s%s", source or "here", what, more)

    def _may_log(self, kind: str, now: float) -> bool:
        lines = self._lines.get(kind)
        if lines is None or now - lines.since >= SILENCE_SECONDS:
            lines = self._lines[kind] = _Lines(now)
        lines.count += 1
        return lines.count <= LINES_PER_KIND_MAX

    def _make_room(self, now: float) -> None:
        """Forget the oldest lines, with the hits since: those whose time is over, or one when there are too many."""
        lines = self._last_lines
        while lines and (len(lines) >= KEPT_MAX or now - next(iter(lines.values())).at >= 2 * SILENCE_SECONDS):
            del lines[next(iter(lines))]
