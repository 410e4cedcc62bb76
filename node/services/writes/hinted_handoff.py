"""Hinted handoff: delivers this node's own writes to the holders that do not have them yet.

Source: DeCandia et al., "Dynamo" (2007), section 4.6. There is no second path for recovery: a swarm that was gone is
hints that are not delivered yet. Hints are delivered in order for one address (`node/swarm/delivery.py` keeps it), in
parallel across addresses and peers, in a bounded window for each peer. Hints that the flags hold back are kept until
the flags let them through. `hint_retry.py` decides what follows a failed delivery, `hint_assignment.py` which holders
have hints.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from math import inf

import trio

from node import trace as tracing
from node.dht.handoff import HandoffResult
from node.services.writes.hint_retry import HintRetry
from node.services.writes.send_window import WINDOW, WINDOW_BACKLOG, WINDOW_SECONDS, SendWindow
from node.store.base import Store
from node.store.batch_get import by_digests
from node.store.hints import Hint
from node.swarm.delivery import Delivery, is_final
from node.swarm.members import Members
from protocols.envelope import Envelope
from protocols.errors import BzzzError

log = logging.getLogger(__name__)

READ_AT_ONCE = 16
"""Envelopes read from the store side by side."""
LITTLE_BYTES = 32 << 10
"""Bytes in flight that do not delay a further write by much, on any link."""
RESCAN_SECONDS = 1.0
"""How often postponed hints are looked for while others are in flight."""
GROWN_SECONDS = 0.02
"""The least time between two checks whether the log has grown: under load it grows with every commit."""
HELD_RESCAN_SECONDS = 30.0
"""How often all hints for a peer are looked through while some are held back."""
OFFERED_MAX = 4096
"""Writes whose callers may still wait for them: these are sent even if the flags hold their keys back since."""
BACK_MS = 1000
"""A wall clock that is behind the expected time by more was set back."""
DAMAGED_MS = 10_000
"""How long a hint waits for content that was damaged here and is fetched from a holder."""
ANY_TIME_MS = 1 << 62


class HintedHandoff:
    """One for each node. Its `offer` is the `Handoff` of the hybrid backend."""

    def __init__(
        self,
        store: Store,
        delivery: Delivery,
        members: Members,
        *,
        retry: HintRetry,
        now_ms: Callable[[], int],
        holds_back: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        """`holds_back` says whether the hints of a key are held back for now."""
        self._store = store
        self._delivery = delivery
        self._members = members
        self._retry = retry
        self._now_ms = now_ms
        self._holds_back = holds_back
        self._offered: OrderedDict[int, str] = OrderedDict()
        """Sequences of writes whose callers may still wait for them, and the traces of these calls."""
        self._windows: dict[str, SendWindow] = {}
        self._started_at_ms: float | None = None
        """The wall clock's time, by its present reading, at which trio's clock began."""
        self._woken = trio.Event()
        self._must_scan = True
        """There is something new: every holder is looked at in the next round."""
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._wake_when_log_grows)
                nursery.start_soon(self._wake_when_members_change)
                await self._deliver_forever(nursery)
            finally:
                self._nursery = None  # before it closes: a refusal that comes now must not start a task in it

    async def _deliver_forever(self, nursery: trio.Nursery) -> None:
        """Start a task for each holder that has hints to send: no holder waits for another one."""
        while True:
            self._woken = trio.Event()
            await self._rewind_if_clock_went_back()
            must_scan, self._must_scan = self._must_scan, False
            next_at = trio.current_time() + RESCAN_SECONDS
            for peer, hint_count in self._store.hint_counts().items():
                if self._members.is_reachable(peer):
                    next_at = min(next_at, self._start_if_due(peer, hint_count, must_scan, nursery))
                else:
                    self._reset_failures(peer)
            with trio.move_on_at(next_at):  # also without hints: an operator may take some out of quarantine
                await self._woken.wait()

    def _start_if_due(self, peer: str, hint_count: int, must_scan: bool, nursery: trio.Nursery) -> float:
        """Start sending to a holder, if it is time and there is something to send; return when to look again."""
        window = self._windows.setdefault(peer, SendWindow())
        now = trio.current_time()
        if window.is_sending:
            window.is_woken = window.is_woken or must_scan
            return inf
        if now < window.paused_until:
            window.scan_at = window.paused_until
            return window.scan_at
        if must_scan or now >= window.scan_at:
            is_all_sent = window.is_at_end and hint_count <= len(window.in_flight) + len(window.held_back)
            if is_all_sent and (not window.held_back or now - window.rewound_at < HELD_RESCAN_SECONDS):
                window.scan_at = now + RESCAN_SECONDS
            else:
                window.is_sending = True
                nursery.start_soon(self._deliver_to, peer, window)
                return inf
        return window.scan_at

    async def _deliver_to(self, peer: str, window: SendWindow) -> None:
        try:
            window.scan_at = await self._deliver_due(peer, window)
        except BzzzError as error:
            log.warning("the hints for %s cannot be read now: %s", peer, error.message)
            window.scan_at = trio.current_time() + RESCAN_SECONDS
        finally:
            window.is_sending = False
        is_woken, window.is_woken = window.is_woken, False
        if is_woken:
            self._wake()
        else:
            self._woken.set()

    def _wake(self) -> None:
        """There may be something to send."""
        self._must_scan = True
        self._woken.set()

    def offer(
        self, sequence: int, envelope: Envelope | None, holders: tuple[str, ...], *, is_first: bool = False
    ) -> HandoffResult:
        """A write was merged just now: send it at once where no hint waits before it, or none of its address does
        because the write `is_first` there.

        Without the envelope it was merged before, and its remaining hints are looked up.
        """
        is_next = False
        on_its_way = []
        self._offered[sequence] = tracing.to_send()
        if len(self._offered) > OFFERED_MAX:
            self._offered.popitem(last=False)
        for peer in holders:
            window = self._windows.setdefault(peer, SendWindow())
            is_reachable = self._members.is_reachable(peer)
            is_free = (window.is_at_end or is_first) and window.has_room_unread and is_reachable
            has_little = window.bytes_in_flight <= LITTLE_BYTES
            if envelope is not None and window.has_read(sequence):
                pass  # the hint was in the store before this call, and was read from there
            elif envelope is not None and is_free and self._send(peer, window, sequence, envelope, 0):
                window.sent_unread.add(sequence)
                is_next = is_next or (has_little and self._members.is_answering(peer))
            else:
                window.rewind(sequence - 1)
                self._wake()
            if is_reachable and not window.paused_until:
                on_its_way.append(peer)
        return HandoffResult(tuple(on_its_way), is_next)

    def hints_added(self, peer: str) -> None:
        """A holder has more hints than before."""
        self._windows.setdefault(peer, SendWindow()).rewind()
        self._wake()

    def rescan(self) -> None:
        """Other keys may be held back than before."""
        for window in self._windows.values():
            window.rewind()
        self._wake()

    def forget(self, peer: str) -> None:
        """A holder is no member any more."""
        self._windows.pop(peer, None)

    # -- sending ----------------------------------------------------------------------------------------------

    async def _deliver_due(self, peer: str, window: SendWindow) -> float:
        """Send the due hints for a holder, as far as its window allows; return when to look again."""
        now = trio.current_time()
        window.paused_until = 0.0
        window.backlog_max = self._backlog_max(peer)
        is_rescan = not window.in_flight or now - window.rewound_at >= RESCAN_SECONDS
        if window.is_at_end and is_rescan:
            rest = self._store.hint_counts().get(peer, 0) - len(window.in_flight)
            if rest > len(window.held_back) or (rest and now - window.rewound_at >= HELD_RESCAN_SECONDS):
                window.rewind()
        if not window.cursor:
            window.rewound_at = now
        await self._send_due(peer, window)
        if window.paused_until:
            return window.paused_until
        due_ms = self._store.next_hint_due(peer)
        wait = RESCAN_SECONDS
        if due_ms is not None and not window.in_flight and not window.held_back:  # held back hints are always due
            wait = (due_ms - self._now_ms()) / 1000.0
        return trio.current_time() + min(RESCAN_SECONDS, max(wait, 0.01))

    def _backlog_max(self, peer: str) -> int:
        """How many hints of the backlog may be in flight. As many as fit into one window are no backlog."""
        if self._store.hint_counts().get(peer, 0) <= WINDOW:
            return WINDOW
        return min(WINDOW, WINDOW_BACKLOG * (1 + int(self._delivery.round_trip_seconds(peer) / WINDOW_SECONDS)))

    async def _send_due(self, peer: str, window: SendWindow) -> None:
        while window.has_room and self._delivery.room(peer) > 0 and self._members.is_reachable(peer):
            restarts, additions = window.restarts, window.additions
            ahead = sum(sequence > window.cursor for sequence in window.in_flight)
            if not window.read_ahead:
                limit = WINDOW + ahead
                hints = await self._store.due_hints(peer, after=window.cursor, limit=limit, now_ms=self._now_ms())
                if window.restarts != restarts:
                    continue
                if not hints:
                    window.is_at_end = window.additions == additions
                    return
                window.read_ahead = hints if window.additions == additions else hints[: max(1, window.room)]
            while window.read_ahead and window.has_room:
                size = max(1, min(READ_AT_ONCE, window.room))
                is_sent = await self._send_hints(peer, window, window.read_ahead[:size], restarts)
                if window.restarts == restarts:
                    window.read_ahead = [hint for hint in window.read_ahead if hint.sequence > window.cursor]
                if not is_sent:
                    return

    async def _send_hints(self, peer: str, window: SendWindow, hints: list[Hint], restarts: int) -> bool:
        """Send the hints that are not in flight. False: stop, because there is no room or reading went back."""
        wanted = [h.digest for h in hints if h.sequence not in window.in_flight and not self._is_held_back(h)]
        envelopes = await by_digests(self._store, wanted)
        for hint in hints:
            if window.restarts != restarts:
                return False
            if hint.sequence not in window.in_flight and self._is_held_back(hint):
                window.held_back.append(hint.sequence)
            elif hint.sequence not in window.in_flight and hint.digest in envelopes:  # else it was delivered meanwhile
                envelope = envelopes[hint.digest]
                if not isinstance(envelope, Envelope) and hint.digest in self._store.damage.set_aside:
                    self._store.postpone_hint(
                        peer, hint.sequence, next_try_ms=self._now_ms() + DAMAGED_MS,
                        refusal="it was damaged on this node's disk, and no holder has answered it yet",
                    )  # fmt: skip
                elif not isinstance(envelope, Envelope):
                    await self._store.quarantine_hint(
                        peer, hint.sequence, refusal="its content is not held here any more"
                    )
                elif not window.has_room or not self._send(peer, window, hint.sequence, envelope, hint.attempts):
                    return False
            window.cursor = max(window.cursor, hint.sequence)
        return True

    def _is_held_back(self, hint: Hint) -> bool:
        return self._holds_back(hint.key) and hint.sequence not in self._offered

    def _send(self, peer: str, window: SendWindow, sequence: int, envelope: Envelope, attempts: int) -> bool:
        """Hand a hint to the delivery, unless it is in flight. False: too much waits for that peer."""

        def on_done(error: BzzzError | None) -> None:
            self._on_done(peer, window, sequence, envelope, attempts + 1, error)

        if sequence in window.in_flight:
            return True
        window.in_flight[sequence] = size = envelope.encoded_size
        window.bytes_in_flight += size
        if self._delivery.deliver(peer, envelope, on_done, self._offered.get(sequence, "")):
            return True
        window.remove(sequence)
        return False

    def _on_done(
        self, peer: str, window: SendWindow, sequence: int, envelope: Envelope, attempts: int, error: BzzzError | None
    ) -> None:
        """A delivery ended: with an acknowledgement if there is no error."""
        if error is not None or not window.is_at_end:  # otherwise nothing waits for the room in the window
            self._wake()
        if error is None:
            window.remove(sequence)
            window.failures = 0
            self._store.acknowledge(peer, (sequence,))
        elif is_final(error):
            self._retry.count_refusal(peer, envelope, error)
            window.failures = 0
            if self._nursery is not None:
                self._nursery.start_soon(self._quarantine, peer, window, sequence, error.message)
        else:
            window.remove(sequence)
            self._retry.delivery_failed(peer, window, sequence, envelope, attempts, error)

    async def _quarantine(self, peer: str, window: SendWindow, sequence: int, refusal: str) -> None:
        """The hint counts as in flight until it is in quarantine: otherwise it would be sent again meanwhile."""
        try:
            await self._retry.quarantine(peer, sequence, refusal)
        finally:
            window.remove(sequence)
            self._wake()

    def _reset_failures(self, peer: str) -> None:
        """A holder that is disconnected starts without failures when it comes back."""
        presence = self._members.get(peer)
        window = self._windows.get(peer)
        if window is not None and (presence is None or not presence.is_connected):
            window.failures = 0
            window.paused_until = 0.0

    # -- waking -----------------------------------------------------------------------------------------------

    async def _rewind_if_clock_went_back(self) -> None:
        """Make postponed hints due when the wall clock was set back: otherwise they would wait until it has caught up.

        The same at the start of a run: it is not known which clock postponed them.
        """
        now, is_at = trio.current_time(), self._now_ms()
        started_at, self._started_at_ms = self._started_at_ms, is_at - now * 1000.0
        if started_at is not None and self._started_at_ms >= started_at - BACK_MS:
            return
        for peer in self._store.hint_counts():
            try:
                await self._store.due_hints(peer, limit=1, now_ms=ANY_TIME_MS)
            except BzzzError as error:
                log.warning("the hints for %s cannot be read now: %s", peer, error.message)
            self._windows.setdefault(peer, SendWindow()).rewind()
            self._must_scan = True

    async def _wake_when_log_grows(self) -> None:
        """For writes that were not offered here; an offered write does not wait for this."""
        sequence = self._store.last_sequence
        while True:
            sequence = await self._store.wait_until_grown(sequence)
            if self._store.hint_counts():  # otherwise the new entries came from peers
                self._wake()
            await trio.sleep(GROWN_SECONDS)

    async def _wake_when_members_change(self) -> None:
        while True:
            await self._members.changed()
            self._wake()
