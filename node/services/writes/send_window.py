"""A holder's account with the publisher: how far what it is owed was read, and what is under way to it. No clock here.

Source of the windows: `BENCHMARKS.md`, where the swarm's return is measured.
"""

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field

from node.store.hints import Hint
from protocols.policy.backoff import backoff

WINDOW = 256
"""Hints of one peer under way at once;"""
WINDOW_IN_TURN = 5
"""of a long backlog so many for a peer that is near: what calls write now is held up by them, and so are all that this
node answers. More at once are not paid much sooner,"""
WINDOW_SECONDS = 0.01
"""but for peers that are far: so many more for each such time that their answers usually take."""
WINDOW_BYTES = 8 << 20
"""And their bytes: what a swarm that comes back may have this node hold in memory, for each peer."""


@dataclass(slots=True)
class SendWindow:
    """How far a holder's hints have been read, which are under way, and whether it is left in peace."""

    cursor: int = 0
    """What is due up to here has been sent."""
    turn: int = 0
    """Counts how often reading began anew: who was waiting meanwhile must not go on from where it was."""
    news: int = 0
    """Counts how often there was more to read: who saw the end before that did not see the end."""
    is_at_end: bool = False
    """Everything due has been sent: what is written next need not wait for its turn."""
    under_way: dict[int, int] = field(default_factory=dict)
    """The size in bytes by sequence; also those that are being put into quarantine."""
    unread: set[int] = field(default_factory=set)
    """Those of them that were sent as they were written, without waiting for their turn."""
    window: int = WINDOW_IN_TURN
    """How many of the others may be under way at once."""
    bytes_under_way: int = 0
    read: list[Hint] = field(default_factory=list)
    """What was read and has not had its turn yet, in order: a window is small, and reading is not cheap."""
    held: "array[int]" = field(default_factory=lambda: array("q"))
    """What is due up to the cursor and was held back, in order."""
    rewound_at: float = 0.0
    look_at: float = 0.0
    is_paying: bool = False
    is_asked_again: bool = False
    """There was news while it was being paid."""
    paused_until: float = 0.0
    failures: int = 0
    """How often in a row the peer did not answer, or took nothing; then it is tried with one hint. What it did not
    answer it may still have before it, and be it only a disk that hangs."""

    @property
    def has_room(self) -> bool:
        """For one whose turn it is."""
        return self.room > 0 and self._has_bytes

    @property
    def room(self) -> int:
        """For how many of those whose turn it is, as far as their number goes."""
        if self.failures:
            return 1 - len(self.under_way)
        return self.window - (len(self.under_way) - len(self.unread))

    @property
    def has_room_unread(self) -> bool:
        """For one that does not wait for its turn."""
        return (not self.under_way if self.failures else len(self.unread) < WINDOW) and self._has_bytes

    @property
    def _has_bytes(self) -> bool:
        return self.bytes_under_way < WINDOW_BYTES and not self.paused_until

    def has_read(self, sequence: int) -> bool:
        """Whether a new write was read already, and sent if there was anything to send."""
        at = bisect_right(self.held, sequence)
        return sequence <= self.cursor and not (at and self.held[at - 1] == sequence)

    def rewind(self, to: int = 0) -> None:
        """There is something to read from there on: read it again, if it was read before."""
        self.news += 1
        self.is_at_end = False
        if self.read and to < self.read[-1].sequence:
            self.read = []
        if to < self.cursor:
            self.cursor = to
            del self.held[bisect_right(self.held, to) :]
            self.turn += 1

    def settle(self, sequence: int) -> None:
        self.bytes_under_way -= self.under_way.pop(sequence, 0)
        self.unread.discard(sequence)

    def pause(self, base: float, cap: float, chance: float, now: float) -> float:
        """Leave the peer in peace, the longer the more often that was in vain; answer for how long from now.

        What was under way together fails together, and counts as one failure.
        """
        if self.paused_until <= now:
            self.failures += 1
            self.paused_until = now + backoff(self.failures, base=base, cap=cap, chance=chance)
        return self.paused_until - now
