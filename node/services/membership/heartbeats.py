"""Heartbeats: the pings between this node and its members, and what both ends learn from one exchange.

A ping and a pong tell the same: the clock of their sender, the hints that it has for the receiver, and whom it is
connected with. So one exchange serves both ends. A pong is as old as its ping at most. How old a ping is, its receiver
knows by an echo: it names the last heartbeat that its sender heard, and how long before that was, as the receiver
reports of RTP do (LSR and DLSR in RFC 3550). Both ends measure only with their own monotonic clocks.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from node.services.membership.log_continuity import LogContinuity
from node.services.membership.stored_members import StoredMembers
from node.store.base import Store
from node.swarm.members import Members, Presence
from node.swarm.rpc import Rpc
from protocols.errors import BzzzError
from protocols.messages import Ping, Pong
from protocols.policy.failure_detector import Event, PingReceived, PongReceived

PING_SECONDS = 0.5
"""How long a peer may take to answer a ping before it is suspect; longer when its round trips are long."""
SUSPECT_PING_SECONDS = 2.0
ECHO_SECONDS_MAX = 6.0
"""A ping that echoes an older heartbeat serves its receiver nothing: this node's later ones did not arrive there."""
SENT_KEPT_MAX = 8
"""The heartbeats to each peer that are remembered for its echo."""
SEEN_MS = 60_000
"""How often the time at which a connected member was seen last is stored."""
DUE_MAX = 256
"""Hints read to find since when a peer lacks something; with more hints the answer is `LONG_MS`."""
LONG_MS = 365 * 24 * 3600 * 1000
"""The age that is told for the oldest hint when that age is not known: longer than anything counts as fresh."""


class Heartbeats:
    """`knows_hints` says whether a peer has its hints for all that it should get from this node. `detected` gives an
    event to the failure detector."""

    def __init__(
        self,
        *,
        rpc: Rpc,
        members: Members,
        store: Store,
        stored: StoredMembers,
        log_continuity: LogContinuity,
        knows_hints: Callable[[str], bool],
        now_ms: Callable[[], int],
        detected: Callable[[Event], None],
    ) -> None:
        self._rpc = rpc
        self._members = members
        self._store = store
        self._stored = stored
        self._log_continuity = log_continuity
        self._knows_hints = knows_hints
        self._now_ms = now_ms
        self._detected = detected
        self._ahead_ms = -math.inf
        self._sent: dict[str, dict[int, float]] = {}
        """By peer: the `now_ms` of the latest heartbeats to it, each with its time on trio's clock."""
        self._heard: dict[str, tuple[int, float]] = {}
        """By peer: the `now_ms` of the latest heartbeat from it, and when that came."""

    def forget(self, peer: str) -> None:
        """The connection to a peer has ended."""
        self._sent.pop(peer, None)
        self._heard.pop(peer, None)

    # -- this node pings ------------------------------------------------------------------------------------------

    async def ping(self, peer: str) -> None:
        """Ping a peer, and take what it answers. Does not raise; a silent peer is reported by the call."""
        presence = self._members.get(peer)
        heard_ms, heard_at = self._heard.get(peer, (0, 0.0))
        heard_ago_us = int((trio.current_time() - heard_at) * 1e6) if heard_ms else 0
        report = self._report(peer)  # not before the time that the echo claims
        report = report if isinstance(report, Pong) else await report
        least = SUSPECT_PING_SECONDS if presence and presence.is_suspect else PING_SECONDS
        timeout = self._rpc.round_trips.timeout(peer, least=least)
        started = trio.current_time()
        try:
            reply = await self._rpc.call(peer, Ping(*report, heard_ms, heard_ago_us), timeout=timeout)
        except BzzzError:
            return
        if isinstance(reply, Pong) and presence is not None:
            self._take(presence, reply, made_at=started, round_trip=trio.current_time() - started)
            self._detected(PongReceived(peer))

    # -- a peer pings ---------------------------------------------------------------------------------------------

    def answer(self, peer: str, ping: Ping) -> Pong | Awaitable[Pong]:
        """Take what a ping tells, and answer it."""
        now = trio.current_time()
        sent_at = self._sent.get(peer, {}).get(ping.heard_ms, -math.inf)
        made_at = min(now, sent_at + ping.heard_ago_us / 1e6)
        usual = self._rpc.round_trips.timeout(peer, least=PING_SECONDS)
        presence = self._members.get(peer)
        if presence is not None and now - sent_at <= ECHO_SECONDS_MAX and now - made_at <= usual:
            self._take(presence, ping, made_at=made_at, round_trip=now - made_at)
            self._rpc.round_trips.observe(peer, now - made_at, now)
            self._detected(PingReceived(peer))
        self._note_heard(peer, ping.now_ms)
        return self._report(peer)

    # -- what is told ---------------------------------------------------------------------------------------------

    def _report(self, peer: str) -> Pong | Awaitable[Pong]:
        # The furthest ahead that the wall clock was: after it was set back the hints would look younger than they are.
        self._ahead_ms = max(self._ahead_ms, self._now_ms() - trio.current_time() * 1000.0)
        hint_count = self._store.hint_counts().get(peer, 0)
        if not self._knows_hints(peer):
            return self._report_of(peer, max(1, hint_count), LONG_MS)
        if hint_count:
            return self._report_with_hints(peer, hint_count)
        return self._report_of(peer, 0, 0)

    def _report_of(self, peer: str, hint_count: int, oldest_ms: int) -> Pong:
        now_ms, sent = self._now_ms(), self._sent.setdefault(peer, {})
        sent.setdefault(now_ms, trio.current_time())
        if len(sent) > SENT_KEPT_MAX:
            del sent[next(iter(sent))]
        return Pong(now_ms, hint_count, oldest_ms, self._store.last_sequence, self._members.view())

    async def _report_with_hints(self, peer: str, hint_count: int) -> Pong:
        now_ms = self._now_ms()
        try:
            due = await self._store.due_hints(peer, limit=min(hint_count, DUE_MAX), now_ms=now_ms)
        except BzzzError:  # a node whose disk fails is alive, and its hints may have any age
            return self._report_of(peer, hint_count, LONG_MS)
        # A hint that is not due was postponed. Its age would cost another read, and it may be the oldest of all.
        age_ms = int(trio.current_time() * 1000.0 + self._ahead_ms) - due[0].at_ms if due else LONG_MS
        oldest_ms = max(0, age_ms) if len(due) >= hint_count and age_ms > -100 else LONG_MS
        return self._report_of(peer, hint_count, oldest_ms)

    # -- what is learned ------------------------------------------------------------------------------------------

    def _note_heard(self, peer: str, now_ms: int) -> None:
        if now_ms:
            self._heard[peer] = now_ms, trio.current_time()

    def _take(self, presence: Presence, report: Ping | Pong, *, made_at: float, round_trip: float) -> None:
        """A member told in a heartbeat, not made before `made_at`, what it knows of itself and of this node."""
        now_ms, peer = self._now_ms(), presence.member.peer
        presence.round_trip_seconds = round_trip
        presence.clock_offset_ms = report.now_ms - (now_ms - round_trip * 500.0)
        presence.view = report.view
        self._log_continuity.heard(peer, report.sequence)
        self._members.caught_up(presence, made_at - (report.oldest_hint_ms / 1000.0 if report.hints else 0.0))
        if isinstance(report, Pong):
            self._note_heard(peer, report.now_ms)
        if now_ms - presence.member.last_seen_ms > SEEN_MS:
            presence.member = replace(presence.member, last_seen_ms=now_ms)
            self._stored.save(presence.member)
