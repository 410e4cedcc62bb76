"""Failure detector: decides which peers are suspect, and which connections to close because nothing came on them.

A peer that missed a deadline of this node is suspect at once: it gets no reads and no hints until it answers a ping.
Two connected nodes exchange a ping and a pong regularly, because these carry more than the sign of life. A ping tells
what a pong tells, so one exchange serves both ends: one of them leads, and the other one pings by itself only when no
ping that serves it comes in time. Where no connection is kept with a peer (`Kept`), it is pinged only while it is
suspect: pings would say that the connection is needed. A connection without a sign of life for `give_up_seconds` is
given up. A late tick means that this process itself was stopped or that its event loop was late: then no peer is
blamed, and every peer is pinged again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from protocols.policy.machine import Tick


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """`leads`: of the two ends, this one is to ping."""

    peer: str
    leads: bool = True


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    peer: str


@dataclass(frozen=True, slots=True)
class Kept:
    """Whether the connection with a peer is to be kept: each is, until this is said."""

    peer: str
    is_kept: bool


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """A frame came from a peer."""

    peer: str


@dataclass(frozen=True, slots=True)
class PingReceived:
    """A peer sent a ping that tells all that its pong would, and has just been made."""

    peer: str


@dataclass(frozen=True, slots=True)
class DeadlineMissed:
    """A peer did not answer a request within the deadline, which began when the frame was written."""

    peer: str


@dataclass(frozen=True, slots=True)
class PongReceived:
    """A peer answered a ping."""

    peer: str


@dataclass(frozen=True, slots=True)
class SendPing:
    peer: str


@dataclass(frozen=True, slots=True)
class Suspected:
    peer: str


@dataclass(frozen=True, slots=True)
class Trusted:
    peer: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No frame came from a peer for too long: give up its connection."""

    peer: str
    silent_seconds: float


Event = ConnectionOpened | ConnectionClosed | Kept | FrameReceived | PingReceived | DeadlineMissed | PongReceived | Tick
Effect = SendPing | Suspected | Trusted | GiveUp


@dataclass(slots=True)
class _PeerState:
    heard_at: float
    ping_at: float
    leads: bool
    is_suspect: bool = False
    is_kept: bool = True


class FailureDetector:
    """The machine. All times in seconds.

    `deadline` may be too early, never too late: a frame only postpones what is due, and finding the next due time among
    many peers at each frame would cost more than the frame.
    """

    def __init__(
        self,
        *,
        ping_seconds: float = 4.0,
        follow_seconds: float = 0.25,
        suspect_ping_seconds: float = 0.25,
        give_up_seconds: float = 7.0,
        late_seconds: float = 0.5,
    ) -> None:
        self._peers: dict[str, _PeerState] = {}
        self._ping = ping_seconds
        self._follow = follow_seconds
        self._suspect_ping = suspect_ping_seconds
        self._give_up = give_up_seconds
        self._late = late_seconds
        self._deadline: float | None = None

    @property
    def deadline(self) -> float | None:
        return self._deadline

    def is_suspect(self, peer: str) -> bool:
        state = self._peers.get(peer)
        return state is not None and state.is_suspect

    def heard_at(self, peer: str) -> float | None:
        state = self._peers.get(peer)
        return None if state is None else state.heard_at

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case ConnectionOpened(peer, leads):
                return self._connected(peer, leads, now)
            case ConnectionClosed(peer):
                self._peers.pop(peer, None)
                self._deadline = self._next_due()
                return ()
            case Kept(peer, is_kept):
                self._kept(peer, is_kept, now)
                return ()
            case FrameReceived(peer):
                self._heard(peer, now)
                return ()
            case PingReceived(peer):
                self._pinged(peer, now)
                return ()
            case PongReceived(peer):
                return self._ponged(peer, now)
            case DeadlineMissed(peer):
                return self._missed(peer, now)
            case Tick():
                return self._tick(now)

    def _connected(self, peer: str, leads: bool, now: float) -> Sequence[Effect]:
        was_suspect = self.is_suspect(peer)
        state = self._peers[peer] = _PeerState(heard_at=now, ping_at=now, leads=leads)
        state.ping_at = now + self._pause(state)
        self._expect(state)
        return (Trusted(peer),) if was_suspect else ()

    def _kept(self, peer: str, is_kept: bool, now: float) -> None:
        state = self._peers.get(peer)
        if state is not None and state.is_kept != is_kept:
            state.is_kept = is_kept
            state.heard_at = state.ping_at = now
            self._expect(state)

    def _heard(self, peer: str, now: float) -> None:
        if state := self._peers.get(peer):
            state.heard_at = now

    def _pinged(self, peer: str, now: float) -> None:
        """Its ping serves the end that does not lead as a pong would; but a suspect has to answer."""
        self._heard(peer, now)
        state = self._peers.get(peer)
        if state is not None and not state.leads and not state.is_suspect:
            state.ping_at = now + self._pause(state)

    def _pause(self, state: _PeerState) -> float:
        """Until the next ping of a peer: a little longer at the end that does not lead."""
        return self._suspect_ping if state.is_suspect else self._ping + self._follow * (not state.leads)

    def _ponged(self, peer: str, now: float) -> Sequence[Effect]:
        state = self._peers.get(peer)
        if state is None:
            return ()
        state.heard_at = now
        if not state.is_suspect:
            return ()
        state.is_suspect = False
        state.ping_at = now + self._pause(state)
        return (Trusted(peer),)

    def _missed(self, peer: str, now: float) -> Sequence[Effect]:
        state = self._peers.get(peer)
        if state is None or state.is_suspect:
            return ()
        if not state.is_kept:
            state.heard_at = now  # it had no reason to say anything before
        state.is_suspect = True
        state.ping_at = now + self._pause(state)
        self._expect(state)
        return (Suspected(peer), SendPing(peer))

    def _tick(self, now: float) -> Sequence[Effect]:
        due = self._deadline
        if due is None or now < due:
            return ()
        if now - due > self._late:
            for state in filter(self._is_pinged, self._peers.values()):
                state.heard_at = now
                state.ping_at = now
        effects: list[Effect] = []
        for peer, state in list(self._peers.items()):
            if not self._is_pinged(state):
                continue
            if now >= state.heard_at + self._give_up:  # the same sum as in `_due`, to the last bit
                del self._peers[peer]
                effects.append(GiveUp(peer, now - state.heard_at))
            elif now >= state.ping_at:
                state.ping_at = now + self._pause(state)
                effects.append(SendPing(peer))
        self._deadline = self._next_due()
        return effects

    def _is_pinged(self, state: _PeerState) -> bool:
        return state.is_kept or state.is_suspect

    def _due(self, state: _PeerState) -> float:
        if not self._is_pinged(state):
            return inf
        return min(state.ping_at, state.heard_at + self._give_up)

    def _expect(self, state: _PeerState) -> None:
        due = min(self._due(state), inf if self._deadline is None else self._deadline)
        self._deadline = None if due == inf else due

    def _next_due(self) -> float | None:
        due = min(map(self._due, self._peers.values()), default=inf)
        return None if due == inf else due
