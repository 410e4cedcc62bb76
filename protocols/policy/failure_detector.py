"""Suspicion judges a peer: who answers, who is to be left out, whose connection is to be given up.

A peer that missed a deadline of ours is suspect at once, and is left out of reads and payments until it answers a
ping. Every connected peer is pinged all the time, for its pong tells more than that it lives; a connection without any
sign of life for `give_up_seconds` is given up. A tick that comes late means that we ourselves were asleep (stopped, or
a late loop): then nobody is blamed and everybody is asked again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.policy.machine import Tick


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    peer: str


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    peer: str


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """A frame came from a peer."""

    peer: str


@dataclass(frozen=True, slots=True)
class DeadlineMissed:
    """A peer did not answer a request within the deadline that ran since its frame was written."""

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
    """Nothing was heard of a peer for too long: give up the connection."""

    peer: str
    silent_seconds: float


Event = ConnectionOpened | ConnectionClosed | FrameReceived | DeadlineMissed | PongReceived | Tick
Effect = SendPing | Suspected | Trusted | GiveUp


@dataclass(slots=True)
class _Pulse:
    heard_at: float
    ping_at: float
    is_suspect: bool = False


class FailureDetector:
    """The machine. All times in seconds.

    `deadline` may be too early, never too late: a frame only puts moments off, and finding the next one among many
    peers at each frame would cost more than the frame.
    """

    def __init__(
        self,
        *,
        ping_seconds: float = 2.0,
        suspect_ping_seconds: float = 0.25,
        give_up_seconds: float = 5.0,
        late_seconds: float = 0.5,
    ) -> None:
        self._pulses: dict[str, _Pulse] = {}
        self._ping = ping_seconds
        self._suspect_ping = suspect_ping_seconds
        self._give_up = give_up_seconds
        self._late = late_seconds
        self._deadline: float | None = None

    @property
    def deadline(self) -> float | None:
        return self._deadline

    def is_suspect(self, peer: str) -> bool:
        pulse = self._pulses.get(peer)
        return pulse is not None and pulse.is_suspect

    def heard_at(self, peer: str) -> float | None:
        pulse = self._pulses.get(peer)
        return None if pulse is None else pulse.heard_at

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case ConnectionOpened(peer):
                return self._connected(peer, now)
            case ConnectionClosed(peer):
                self._pulses.pop(peer, None)
                self._deadline = self._next_due()
                return ()
            case FrameReceived(peer):
                self._heard(peer, now)
                return ()
            case PongReceived(peer):
                return self._ponged(peer, now)
            case DeadlineMissed(peer):
                return self._missed(peer, now)
            case Tick():
                return self._tick(now)

    def _connected(self, peer: str, now: float) -> Sequence[Effect]:
        was_suspect = self.is_suspect(peer)
        pulse = self._pulses[peer] = _Pulse(heard_at=now, ping_at=now + self._ping)
        self._expect(pulse)
        return (Trusted(peer),) if was_suspect else ()

    def _heard(self, peer: str, now: float) -> None:
        if pulse := self._pulses.get(peer):
            pulse.heard_at = now

    def _ponged(self, peer: str, now: float) -> Sequence[Effect]:
        pulse = self._pulses.get(peer)
        if pulse is None:
            return ()
        was_suspect, pulse.is_suspect = pulse.is_suspect, False
        pulse.heard_at = now
        pulse.ping_at = now + self._ping
        return (Trusted(peer),) if was_suspect else ()

    def _missed(self, peer: str, now: float) -> Sequence[Effect]:
        pulse = self._pulses.get(peer)
        if pulse is None or pulse.is_suspect:
            return ()
        pulse.is_suspect = True
        pulse.ping_at = now + self._suspect_ping
        self._expect(pulse)
        return (Suspected(peer), SendPing(peer))

    def _tick(self, now: float) -> Sequence[Effect]:
        due = self._deadline
        if due is None or now < due:
            return ()
        if now - due > self._late:
            for pulse in self._pulses.values():
                pulse.heard_at = now
                pulse.ping_at = now
        effects: list[Effect] = []
        for peer, pulse in list(self._pulses.items()):
            if now >= pulse.heard_at + self._give_up:  # as `_due` says it, to the last bit
                del self._pulses[peer]
                effects.append(GiveUp(peer, now - pulse.heard_at))
            elif now >= pulse.ping_at:
                pulse.ping_at = now + (self._suspect_ping if pulse.is_suspect else self._ping)
                effects.append(SendPing(peer))
        self._deadline = self._next_due()
        return effects

    def _due(self, pulse: _Pulse) -> float:
        return min(pulse.ping_at, pulse.heard_at + self._give_up)

    def _expect(self, pulse: _Pulse) -> None:
        due = self._due(pulse)
        self._deadline = due if self._deadline is None else min(self._deadline, due)

    def _next_due(self) -> float | None:
        return min(map(self._due, self._pulses.values()), default=None)
