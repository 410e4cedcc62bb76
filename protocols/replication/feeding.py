"""Feeding: goes through the log of this node, and sees that the members it feeds have the versions that others wrote.

The writes of this node itself are the work of its hints. For all other entries of its log `duty.py` says who is fed.
The member is asked which of these versions it lacks, and is sent those: so little is sent twice.
There is one position in the log for each member: up to there it has all that this node feeds it. When other members
are live than before, all positions begin at 0 again, and only what is new in the duty is asked for.

Entries are looked at when they are `SETTLE_SECONDS` old, or a little more: by then the hints of their authors have
brought them.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from protocols.policy.machine import Tick
from protocols.replication.duty import Duty
from protocols.replication.feeding_events import (
    Advanced,
    AskMissing,
    Effect,
    Entry,
    Event,
    Grown,
    LiveChanged,
    MissingAnswered,
    MissingUnanswered,
    PageFailed,
    PageRead,
    Reached,
    ReadPage,
    Send,
    Sent,
)

SETTLE_SECONDS = 10.0
TOGETHER_SECONDS = 5.0
"""Entries of so long are looked at together: a question about a few costs as much as one about a hundred."""
AGAIN_SECONDS = 10.0
"""Until a member that did not answer, or still lacks something, is asked again."""
PAGE_MAX = 256
"""Entries in a page, and so versions in one question;"""
PAGE_WORK = 4_096
"""less where many members are live: entries times members, which takes a few milliseconds."""
ADVANCED_ENTRIES = 4_096
"""The positions are saved when so many entries were done, and at the end."""


@dataclass(slots=True)
class _Page:
    """The entries that are being looked at, for the members that need them; their work is by peer, in order."""

    number: int
    targets: tuple[str, ...]
    until: int = 0
    is_read: bool = False
    work: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    claimed: dict[str, tuple[bytes, ...]] = field(default_factory=dict)


class Feeding:
    """Of the node `own`. A `Machine`."""

    def __init__(self, own: str, *, replication: int) -> None:
        self._replication = replication
        self._duty = Duty(own=own, live=(own,), replication=replication)
        self._duty_before: Duty | None = None
        self._before: dict[str, int] = {}
        """The positions under the duty before this one."""
        self.positions: dict[str, int] = {}
        """By live member: it has all that this node feeds it, up to there."""
        self._epochs: dict[str, int] = {}
        self._first_until: dict[str, int] = {}
        """By member that was not asked for everything yet, since it came: the log's end at that time."""
        self._reached: frozenset[str] = frozenset()
        self._again_at: dict[str, float] = {}
        self._growth: deque[tuple[float, int]] = deque()
        """When the log ended where, of the last `SETTLE_SECONDS`."""
        self.until = 0
        """The last entry that is old enough to be looked at."""
        self._page: _Page | None = None
        self._pages = 0
        """The number of the last page."""
        self._unsaved = 0

    # -- questions --------------------------------------------------------------------------------------------

    def is_behind(self, peer: str) -> bool:
        """Whether a member was not asked yet for all that was in the log when it came."""
        return peer not in self.positions or self.positions[peer] < self._first_until.get(peer, 0)

    def lacking(self, sequence: int, key: bytes) -> list[str]:
        """The members that this node feeds, and of which it does not know that they have this entry of another node."""
        return self._lacking(sequence, key) if sequence <= self.until else []

    @property
    def oldest(self) -> int:
        """All live members have what this node feeds them, up to this entry."""
        return min((*self.positions.values(), self.until))

    @property
    def deadline(self) -> float | None:
        settles_at = self._growth[0][0] + SETTLE_SECONDS if self._growth else inf
        waiting = [at for peer, at in self._again_at.items() if peer in self._reached] if self._page is None else []
        deadline = min([settles_at, *waiting])
        return None if deadline == inf else deadline

    # -- events -----------------------------------------------------------------------------------------------

    def handle(self, event: Event | Tick, now: float) -> Sequence[Effect]:
        effects: list[Effect] = []
        match event:
            case LiveChanged():
                self._change_live(event)
            case Reached(peers):
                for peer in sorted(peers - self._reached):
                    self._again_at.pop(peer, None)
                self._reached = peers
            case Grown(last_sequence):
                self._grow(last_sequence, now)
            case PageRead() if (page := self._page) is not None and page.number == event.page and not page.is_read:
                effects += self._begin(page, event)
            case PageFailed() if (page := self._page) is not None and page.number == event.page:
                self._again_at |= dict.fromkeys(page.targets, now + AGAIN_SECONDS)
                self._page = None
            case MissingAnswered() if page := self._page_of(event):
                effects += self._answered(page, event, now)
            case Sent() if page := self._page_of(event):
                self._end(page, event.peer, event.unsent, now)
            case MissingUnanswered() if page := self._page_of(event):
                self._postpone(page, event.peer, now)
            case Tick():
                while self._growth and self._growth[0][0] + SETTLE_SECONDS <= now:
                    self.until = max(self.until, self._growth.popleft()[1])
                self._again_at = {peer: at for peer, at in self._again_at.items() if at > now}
            case _:  # an answer that came too late
                pass
        effects += self._go_on()
        return effects

    def _change_live(self, event: LiveChanged) -> None:
        """Everything is looked at again, but for what a member has, by the duty until now."""
        epochs = {target.peer: target.epoch for target in event.live}
        known = [peer for peer, epoch in epochs.items() if self._epochs.get(peer) == epoch]
        self._duty_before, self._before = self._duty, {peer: self.positions[peer] for peer in known}
        self._first_until = {
            peer: event.last_sequence if peer not in self._before else self._first_until[peer]
            for peer in epochs
            if peer not in self._before or self.is_behind(peer)
        }
        self._duty = Duty(own=self._duty.own, live=(self._duty.own, *epochs), replication=self._replication)
        self._epochs = epochs
        self.positions = {peer: min(event.positions.get(peer, 0), event.last_sequence) for peer in epochs}
        self._again_at = {peer: at for peer, at in self._again_at.items() if peer in self._before}
        self._growth.clear()
        self.until = event.last_sequence
        self._page = None

    def _grow(self, last_sequence: int, now: float) -> None:
        at, end = self._growth[-1] if self._growth else (-inf, self.until)
        if last_sequence <= end:
            return
        if self._growth and at // TOGETHER_SECONDS == now // TOGETHER_SECONDS:
            self._growth.pop()
        self._growth.append((now, last_sequence))

    # -- a page -----------------------------------------------------------------------------------------------

    def _go_on(self) -> list[Effect]:
        """Begin with the next page, if there is something to do: for the members that lag least. One that has just come
        may take hours, and holds up the others for no more than a page."""
        if self._page is not None:
            return []
        lagging = [p for p, at in self.positions.items() if at < self.until and p in self._reached]
        lagging = [peer for peer in lagging if peer not in self._again_at]
        if not lagging:
            return self._save(is_end=True)
        after = max(self.positions[peer] for peer in lagging)
        self._pages += 1
        self._page = _Page(self._pages, tuple(peer for peer in lagging if self.positions[peer] == after))
        limit = max(1, min(PAGE_MAX, PAGE_WORK // len(self._duty.live)))
        return [*self._save(is_end=False), ReadPage(self._pages, after, self.until, limit)]

    def _save(self, *, is_end: bool) -> list[Effect]:
        if self._unsaved < (1 if is_end else ADVANCED_ENTRIES):
            return []
        self._unsaved = 0
        return [Advanced(dict(self.positions))]

    def _begin(self, page: _Page, read: PageRead) -> list[Effect]:
        page.is_read, page.until = True, read.until
        work: dict[str, list[Entry]] = {peer: [] for peer in page.targets}
        for entry in read.entries:
            for peer in self._lacking(entry.sequence, entry.key):
                if peer in work:
                    work[peer].append(entry)
        self._unsaved += len(read.entries)
        for peer in [peer for peer, entries in work.items() if not entries]:
            self.positions[peer] = read.until
            del work[peer]
        page.work = {peer: tuple(entries) for peer, entries in work.items()}
        if not page.work:
            self._page = None
        return [AskMissing(page.number, peer, tuple(e.digest for e in entries)) for peer, entries in page.work.items()]

    def _lacking(self, sequence: int, key: bytes) -> list[str]:
        """The members that this node feeds with an entry of this key, and that are not known to have it."""
        targets = [peer for peer in self._duty.targets(key) if sequence > self.positions.get(peer, 0)]
        before = self._duty_before
        if before is None or not any(sequence <= self._before.get(peer, 0) for peer in targets):
            return targets
        fed = before.targets(key)
        return [peer for peer in targets if peer not in fed or sequence > self._before.get(peer, 0)]

    def _page_of(self, event: MissingAnswered | Sent | MissingUnanswered) -> _Page | None:
        """The page that an answer is about, while that member has work in it; None: it came too late."""
        page = self._page
        is_open = page is not None and page.number == event.page and event.peer in page.work
        return page if is_open else None

    def _answered(self, page: _Page, answer: MissingAnswered, now: float) -> list[Effect]:
        lacking = dict.fromkeys(answer.missing)
        to_send = tuple(entry.digest for entry in page.work[answer.peer] if entry.digest in lacking)
        page.claimed[answer.peer] = answer.claimed
        if to_send:
            return [Send(page.number, answer.peer, to_send)]
        self._end(page, answer.peer, (), now)
        return []

    def _end(self, page: _Page, peer: str, unsent: Sequence[bytes], now: float) -> None:
        """A member has all of its work but for `unsent` and what others claimed: for that it is asked again."""
        lacking = dict.fromkeys((*unsent, *page.claimed.get(peer, ())))
        rest = [entry.sequence for entry in page.work[peer] if entry.digest in lacking]
        self.positions[peer] = max(self.positions[peer], min(rest) - 1 if rest else page.until)
        if rest:
            self._postpone(page, peer, now)
        else:
            self._finish(page, peer)

    def _postpone(self, page: _Page, peer: str, now: float) -> None:
        self._again_at[peer] = now + AGAIN_SECONDS
        self._finish(page, peer)

    def _finish(self, page: _Page, peer: str) -> None:
        del page.work[peer]
        if not page.work:
            self._page = None
