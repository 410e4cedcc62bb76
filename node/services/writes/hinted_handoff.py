"""Pays hints: brings this node's own writes to the holders that are owed them (hinted handoff).

Source: DeCandia et al., "Dynamo" (2007), section 4.6. There is no second path for recovery: a swarm that was gone is
hints not yet paid. In order for one address (the courier sees to it), side by side across addresses and peers, in a
bounded window a peer. A holder that takes nothing now (its disk is full, it is busy) is left in peace for a while; a
hint that alone is refused for a while is parked alone; one that is refused for good goes to quarantine, where a person
can see it. What the flags hold back is owed and not paid, until they let it through. Who is owed what is
`hint_assignment.py`'s.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from math import inf

import trio

from node import trace as tracing
from node.dht.handoff import HandoffResult
from node.services.writes.send_window import WINDOW, WINDOW_IN_TURN, WINDOW_SECONDS, SendWindow
from node.store.base import Store
from node.store.batch_get import by_digests
from node.store.hints import Hint
from node.swarm.delivery import Delivery
from node.swarm.limit_counters import LimitCounters
from node.swarm.members import Members
from node.swarm.rpc import CallAbandoned, Silent, Unreachable
from protocols.clock import AHEAD_MS_MAX, ahead_ms
from protocols.envelope import Envelope
from protocols.errors import BzzzError, ClockAhead, Malformed, StorageFull, TooManyRequests
from protocols.policy.backoff import backoff

log = logging.getLogger(__name__)

READ_AT_ONCE = 16
"""Envelopes read from the store side by side."""
LITTLE_BYTES = 32 << 10
"""What is under way before a write and does not hold it up for long, whatever the link."""
RESCAN_SECONDS = 1.0
"""How often parked hints are looked for while others are under way."""
GROWN_SECONDS = 0.02
"""How often it is looked at most whether the log has grown: under load it does with every commit."""
PAUSE_SECONDS = 0.1
"""How long a peer that did not answer is left in peace at first."""
RETRY_BASE_SECONDS = 1.0
RETRY_CAP_SECONDS = 30.0
"""How long one parked hint waits at the most, if the clock says nothing else."""
HOLD_OFF_CAP_SECONDS = 10.0
"""How long a whole peer is left in peace at the most."""
FAILURES_TOGETHER_MAX = 3
"""A peer that fails more often in a row may be failing at one of its hints: then each waits for itself."""
HELD_RESCAN_SECONDS = 30.0
"""How often all of a peer's hints are looked through while some are held back."""
OFFERED_MAX = 4096
"""Writes of calls that may still wait for them: they go out, though the flags hold their keys back since."""
BACK_MS = 1000
"""A wall clock that is behind where it should be by more was put back."""
ANY_TIME_MS = 1 << 62


class HintedHandoff:
    """`on_own_clock_ahead` is called with a version of ours that a peer refused and that our own clock calls ahead."""

    def __init__(
        self,
        store: Store,
        delivery: Delivery,
        members: Members,
        *,
        now_ms: Callable[[], int],
        chance: Callable[[], float],
        on_own_clock_ahead: Callable[[Envelope], None],
        holds_back: Callable[[bytes], bool] = lambda _: False,
        limit_counters: LimitCounters | None = None,
    ) -> None:
        """`holds_back` says whether what is owed of a key is kept for now, `limit_counters` hears what is refused for
        good.
        """
        self._store = store
        self._delivery = delivery
        self._members = members
        self._now_ms = now_ms
        self._chance = chance
        self._on_own_clock_ahead = on_own_clock_ahead
        self._holds_back = holds_back
        self._limit_counters = limit_counters or LimitCounters()
        self._offered: OrderedDict[int, str] = OrderedDict()
        """Sequences of writes whose calls may still wait for them, and the traces of these calls."""
        self._accounts: dict[str, SendWindow] = {}
        self._started_at_ms: float | None = None
        """What the wall clock showed, as it goes now, when trio's clock began."""
        self._woken = trio.Event()
        self._is_news = True
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._wake_when_grown)
                nursery.start_soon(self._wake_when_members_change)
                await self._pay_for_ever(nursery)
        finally:
            self._nursery = None

    async def _pay_for_ever(self, nursery: trio.Nursery) -> None:
        """See that each holder is paid, by a task of its own while there is something to pay: none waits for others."""
        while True:
            self._woken = trio.Event()
            await self._wake_parked_if_clock_went_back()
            is_news, self._is_news = self._is_news, False
            next_at = trio.current_time() + RESCAN_SECONDS
            for peer, owed in self._store.hint_counts().items():
                if self._members.is_reachable(peer):
                    next_at = min(next_at, self._see_to(peer, owed, is_news, nursery))
                else:
                    self._forgive(peer)
            with trio.move_on_at(next_at):  # also when nothing is owed: a person may take hints out of quarantine
                await self._woken.wait()

    def _see_to(self, peer: str, owed: int, is_news: bool, nursery: trio.Nursery) -> float:
        """Begin to pay a holder, if it is time and there is something to send; answer when to look again."""
        account = self._accounts.setdefault(peer, SendWindow())
        now = trio.current_time()
        if account.is_paying:
            account.is_asked_again = account.is_asked_again or is_news
            return inf
        if now < account.paused_until:
            account.look_at = account.paused_until
            return account.look_at
        if is_news or now >= account.look_at:
            is_all_sent = account.is_at_end and owed <= len(account.under_way) + len(account.held)
            if is_all_sent and (not account.held or now - account.rewound_at < HELD_RESCAN_SECONDS):
                account.look_at = now + RESCAN_SECONDS
            else:
                account.is_paying = True
                nursery.start_soon(self._pay_in_turn, peer, account)
                return inf
        return account.look_at

    async def _pay_in_turn(self, peer: str, account: SendWindow) -> None:
        try:
            account.look_at = await self._pay(peer, account)
        except BzzzError as error:
            log.warning("what is owed to %s cannot be read now: %s", peer, error.message)
            account.look_at = trio.current_time() + RESCAN_SECONDS
        finally:
            account.is_paying = False
        is_asked_again, account.is_asked_again = account.is_asked_again, False
        if is_asked_again:
            self._wake()
        else:
            self._woken.set()

    def _wake(self) -> None:
        """Something may have to be sent."""
        self._is_news = True
        self._woken.set()

    def offer(
        self, sequence: int, envelope: Envelope | None, holders: tuple[str, ...], *, is_first: bool = False
    ) -> HandoffResult:
        """A write was merged just now: send it at once where nothing waits before it, or nothing of its address does
        because it `is_first` there.

        Without the envelope it was merged before, and whoever is still owed it is looked up.
        """
        is_next = False
        under_way = []
        self._offered[sequence] = tracing.to_send()
        if len(self._offered) > OFFERED_MAX:
            self._offered.popitem(last=False)
        for peer in holders:
            account = self._accounts.setdefault(peer, SendWindow())
            is_reachable = self._members.is_reachable(peer)
            is_free = (account.is_at_end or is_first) and account.has_room_unread and is_reachable
            has_little = account.bytes_under_way <= LITTLE_BYTES
            if envelope is not None and account.has_read(sequence):
                pass  # what is new was in the store before we were told, and has had its turn
            elif envelope is not None and is_free and self._send(peer, account, sequence, envelope, 0):
                account.unread.add(sequence)
                is_next = is_next or has_little
            else:
                account.rewind(sequence - 1)
                self._wake()
            if is_reachable and not account.paused_until:
                under_way.append(peer)
        return HandoffResult(tuple(under_way), is_next)

    def look_again(self, peer: str) -> None:
        """A holder is owed more than it was."""
        self._accounts.setdefault(peer, SendWindow()).rewind()
        self._wake()

    def look_through(self) -> None:
        """What is held back may be another now."""
        for account in self._accounts.values():
            account.rewind()
        self._wake()

    def forget(self, peer: str) -> None:
        """A holder is no member any more."""
        self._accounts.pop(peer, None)

    # -- paying -----------------------------------------------------------------------------------------------

    async def _pay(self, peer: str, account: SendWindow) -> float:
        """Send what is due to a holder, as far as its window allows; answer when to look again."""
        now = trio.current_time()
        account.paused_until = 0.0
        account.window = self._window(peer)
        is_rescan = not account.under_way or now - account.rewound_at >= RESCAN_SECONDS
        if account.is_at_end and is_rescan:
            rest = self._store.hint_counts().get(peer, 0) - len(account.under_way)
            if rest > len(account.held) or (rest and now - account.rewound_at >= HELD_RESCAN_SECONDS):
                account.rewind()
        if not account.cursor:
            account.rewound_at = now
        await self._send_due(peer, account)
        if account.paused_until:
            return account.paused_until
        due_ms = self._store.next_hint_due(peer)
        wait = RESCAN_SECONDS
        if due_ms is not None and not account.under_way and not account.held:  # what is held is due all the time
            wait = (due_ms - self._now_ms()) / 1000.0
        return trio.current_time() + min(RESCAN_SECONDS, max(wait, 0.01))

    def _window(self, peer: str) -> int:
        """How many of those whose turn it is may be under way. What goes out in one window is no backlog."""
        if self._store.hint_counts().get(peer, 0) <= WINDOW:
            return WINDOW
        return min(WINDOW, WINDOW_IN_TURN * (1 + int(self._delivery.round_trip_seconds(peer) / WINDOW_SECONDS)))

    async def _send_due(self, peer: str, account: SendWindow) -> None:
        while account.has_room and self._delivery.room(peer) > 0 and self._members.is_reachable(peer):
            turn, news = account.turn, account.news
            ahead = sum(sequence > account.cursor for sequence in account.under_way)
            if not account.read:
                limit = WINDOW + ahead
                hints = await self._store.due_hints(peer, after=account.cursor, limit=limit, now_ms=self._now_ms())
                if account.turn != turn:
                    continue
                if not hints:
                    account.is_at_end = account.news == news
                    return
                account.read = hints if account.news == news else hints[: max(1, account.room)]
            while account.read and account.has_room:
                size = max(1, min(READ_AT_ONCE, account.room))
                is_sent = await self._send_hints(peer, account, account.read[:size], turn)
                if account.turn == turn:
                    account.read = [hint for hint in account.read if hint.sequence > account.cursor]
                if not is_sent:
                    return

    async def _send_hints(self, peer: str, account: SendWindow, hints: list[Hint], turn: int) -> bool:
        """Send those that are not under way. False: stop here, for there is no room, or reading begins anew."""
        wanted = [h.digest for h in hints if h.sequence not in account.under_way and not self._is_held(h)]
        envelopes = await by_digests(self._store, wanted)
        for hint in hints:
            if account.turn != turn:
                return False
            if hint.sequence not in account.under_way and self._is_held(hint):
                account.held.append(hint.sequence)
            elif hint.sequence not in account.under_way and hint.digest in envelopes:  # else it was settled meanwhile
                envelope = envelopes[hint.digest]
                if not isinstance(envelope, Envelope):
                    await self._store.quarantine_hint(
                        peer, hint.sequence, refusal="its content is not held here any more"
                    )
                elif not account.has_room or not self._send(peer, account, hint.sequence, envelope, hint.attempts):
                    return False
            account.cursor = max(account.cursor, hint.sequence)
        return True

    def _is_held(self, hint: Hint) -> bool:
        return self._holds_back(hint.key) and hint.sequence not in self._offered

    def _send(self, peer: str, account: SendWindow, sequence: int, envelope: Envelope, attempts: int) -> bool:
        """Hand it to the courier, once at a time. False: too much waits for that peer."""

        def done(error: BzzzError | None) -> None:
            self._settled(peer, account, sequence, envelope, attempts + 1, error)

        if sequence in account.under_way:
            return True
        account.under_way[sequence] = len(envelope.encoded)
        account.bytes_under_way += len(envelope.encoded)
        if self._delivery.deliver(peer, envelope, done, self._offered.get(sequence, "")):
            return True
        account.settle(sequence)
        return False

    def _settled(
        self, peer: str, account: SendWindow, sequence: int, envelope: Envelope, attempts: int, error: BzzzError | None
    ) -> None:
        if error is not None or not account.is_at_end:  # else nothing waits for the room that this gives back
            self._wake()
        if error is not None and not error.retryable and type(error) is not Malformed:
            why = f"refused {envelope.address} for good: {error.message}; `bzzz pending --refused` shows all that was"
            self._limit_counters.hit("hints_refused", peer, why)
            account.failures = 0
            if self._nursery is not None:  # under way until it is put aside, or it would be sent again meanwhile
                self._nursery.start_soon(self._refuse, peer, account, sequence, error.message)
            return
        account.settle(sequence)
        match error:
            case None:
                account.failures = 0
                self._store.acknowledge(peer, (sequence,))
            case Silent() | CallAbandoned() | Unreachable() | Malformed():  # nothing is known of it
                account.pause(PAUSE_SECONDS, HOLD_OFF_CAP_SECONDS, self._chance(), trio.current_time())
                account.rewind()
            case ClockAhead():
                account.failures = 0
                self._park_ahead(peer, sequence, envelope, attempts, error)
            case _:
                self._hold_off(peer, account, sequence, attempts, error)

    def _park_ahead(self, peer: str, sequence: int, envelope: Envelope, attempts: int, error: ClockAhead) -> None:
        """One of the two clocks is wrong, or its moment has not come: this hint waits, and no other."""
        seconds = backoff(attempts, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS, chance=self._chance())
        ahead = error.details.get("ahead_ms", 0)
        too_far = (ahead - AHEAD_MS_MAX) / 1000.0 if isinstance(ahead, int | float) else 0.0
        self._park(peer, sequence, min(max(seconds, too_far), RETRY_CAP_SECONDS), error)
        is_ours = envelope.author == self._members.own
        if is_ours and ahead_ms(envelope.version, self._now_ms()) > AHEAD_MS_MAX:
            self._on_own_clock_ahead(envelope)

    def _hold_off(self, peer: str, account: SendWindow, sequence: int, attempts: int, error: BzzzError) -> None:
        """The peer takes nothing now. All that was under way is due again at the same moment: order is kept."""
        is_for_all = account.failures < FAILURES_TOGETHER_MAX or isinstance(error, StorageFull | TooManyRequests)
        if not is_for_all and account.paused_until <= trio.current_time():
            seconds = backoff(attempts, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS, chance=self._chance())
            self._park(peer, sequence, seconds, error)
            return
        seconds = account.pause(RETRY_BASE_SECONDS, HOLD_OFF_CAP_SECONDS, self._chance(), trio.current_time())
        self._park(peer, sequence, seconds, error)
        account.rewind()

    def _park(self, peer: str, sequence: int, seconds: float, error: BzzzError) -> None:
        next_try_ms = self._now_ms() + int(seconds * 1000)
        self._store.postpone_hint(peer, sequence, next_try_ms=next_try_ms, refusal=error.message)

    async def _refuse(self, peer: str, account: SendWindow, sequence: int, refusal: str) -> None:
        try:
            await self._store.quarantine_hint(peer, sequence, refusal=refusal)
        except BzzzError as error:
            log.warning("a refused hint could not be put aside: %s", error.message)
            self._park(peer, sequence, RETRY_BASE_SECONDS, error)
        finally:
            account.settle(sequence)
            self._wake()

    def _forgive(self, peer: str) -> None:
        """Who was away and is here again is a new beginning."""
        presence = self._members.get(peer)
        account = self._accounts.get(peer)
        if account is not None and (presence is None or not presence.is_connected):
            account.failures = 0
            account.paused_until = 0.0

    async def _wake_parked_if_clock_went_back(self) -> None:
        """What was parked by a clock that ran ahead would wait until that moment comes again: it is due now.

        So is what was parked before this run: nobody knows by which clock.
        """
        now, is_at = trio.current_time(), self._now_ms()
        started_at, self._started_at_ms = self._started_at_ms, is_at - now * 1000.0
        if started_at is not None and self._started_at_ms >= started_at - BACK_MS:
            return
        for peer in self._store.hint_counts():
            try:
                await self._store.due_hints(peer, limit=1, now_ms=ANY_TIME_MS)
            except BzzzError as error:
                log.warning("what is owed to %s cannot be read now: %s", peer, error.message)
            self._accounts.setdefault(peer, SendWindow()).rewind()
            self._is_news = True

    # -- waking -----------------------------------------------------------------------------------------------

    async def _wake_when_grown(self) -> None:
        """For what was written and not offered here; what is offered does not wait for it."""
        sequence = self._store.last_sequence
        while True:
            sequence = await self._store.wait_until_grown(sequence)
            if self._store.hint_counts():  # else it came from peers
                self._wake()
            await trio.sleep(GROWN_SECONDS)

    async def _wake_when_members_change(self) -> None:
        while True:
            await self._members.changed()
            self._wake()
