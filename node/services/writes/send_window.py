"""Send window: how far the hints for one holder have been read, and which of them are in flight. It reads no clock.

Source of the sizes: `BENCHMARKS.md`, where the return of a swarm is measured.
"""

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field

from node.store.hints import Hint
from protocols.policy.backoff import backoff

WINDOW = 256
"""Hints in flight to one peer."""
WINDOW_BACKLOG = 5
"""Hints of a long backlog in flight to a near peer. They delay new writes of callers and all answers of this node, and
a larger window delivers a backlog hardly sooner;"""
WINDOW_SECONDS = 0.01
"""except for far peers: the window grows by `WINDOW_BACKLOG` for each such time in the peer's median round trip."""
WINDOW_BYTES = 8 << 20
"""Bytes in flight to one peer: what the return of a swarm may cost this node in memory for each peer."""


@dataclass(slots=True)
class SendWindow:
    """The hints for one holder are read in the order of their sequences. A new write is sent at once, without being
    read, when the backlog has been sent (`is_at_end`)."""

    cursor: int = 0
    """All due hints up to this sequence have been sent."""
    restarts: int = 0
    """Counts how often reading went back: a task that waited meanwhile must not go on from its old position."""
    additions: int = 0
    """Counts how often there was more to read: a task that saw the end before that has not seen the end."""
    is_at_end: bool = False
    """All due hints have been sent: a new write need not wait for its turn."""
    in_flight: dict[int, int] = field(default_factory=dict)
    """The size in bytes by sequence; also of hints that are being put into quarantine."""
    sent_unread: set[int] = field(default_factory=set)
    """Those in flight that were sent as they were written, without waiting for their turn."""
    backlog_max: int = WINDOW_BACKLOG
    """How many of the others may be in flight at once."""
    bytes_in_flight: int = 0
    read_ahead: list[Hint] = field(default_factory=list)
    """Hints that were read and not sent yet, in order: the window is small, and a read is not cheap."""
    held_back: "array[int]" = field(default_factory=lambda: array("q"))
    """Due hints up to the cursor that were held back by the flags, in order."""
    rewound_at: float = 0.0
    scan_at: float = 0.0
    """When to look for due hints next."""
    is_sending: bool = False
    """Whether a task sends the hints of this holder now."""
    is_woken: bool = False
    """There was something new while it was sending."""
    paused_until: float = 0.0
    failures: int = 0
    """How often in a row the peer did not answer, or took nothing; after that one hint at a time is sent. The peer may
    still have the unanswered ones to process, for example when its disk hangs."""

    @property
    def has_room(self) -> bool:
        """Whether a hint of the backlog may be sent."""
        return self.room > 0 and self._has_bytes

    @property
    def room(self) -> int:
        """How many hints of the backlog may be sent, by their number alone."""
        if self.failures:
            return 1 - len(self.in_flight)
        return self.backlog_max - (len(self.in_flight) - len(self.sent_unread))

    @property
    def has_room_unread(self) -> bool:
        """Whether a new write may be sent without waiting for its turn."""
        return (not self.in_flight if self.failures else len(self.sent_unread) < WINDOW) and self._has_bytes

    @property
    def _has_bytes(self) -> bool:
        return self.bytes_in_flight < WINDOW_BYTES and not self.paused_until

    def has_read(self, sequence: int) -> bool:
        """Whether the hint of a new write was read already, and sent if it was due."""
        at = bisect_right(self.held_back, sequence)
        return sequence <= self.cursor and not (at and self.held_back[at - 1] == sequence)

    def rewind(self, to: int = 0) -> None:
        """There is something to read after the sequence `to`: read it again, if it was read before."""
        self.additions += 1
        self.is_at_end = False
        if self.read_ahead and to < self.read_ahead[-1].sequence:
            self.read_ahead = []
        if to < self.cursor:
            self.cursor = to
            del self.held_back[bisect_right(self.held_back, to) :]
            self.restarts += 1

    def remove(self, sequence: int) -> None:
        """A hint is no longer in flight."""
        self.bytes_in_flight -= self.in_flight.pop(sequence, 0)
        self.sent_unread.discard(sequence)

    def pause(self, base: float, cap: float, chance: float, now: float) -> float:
        """Pause deliveries to the peer, exponentially longer with each failure; return the seconds from now.

        Deliveries that were in flight together fail together, and count as one failure.
        """
        if self.paused_until <= now:
            self.failures += 1
            self.paused_until = now + backoff(self.failures, base=base, cap=cap, chance=chance)
        return self.paused_until - now
