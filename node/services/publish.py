"""Pays hints: brings this node's own writes to the holders that are owed them (hinted handoff).

Source: DeCandia et al., "Dynamo" (2007), section 4.6. There is no second path for recovery: a swarm that was gone is
hints not yet paid. In order for one address (the courier sees to it), side by side across addresses and peers, in a
bounded window a peer. A hint that is refused for a while is parked alone; one that is refused for good goes to
quarantine, where a person can see it. Whoever becomes a member is owed what this node wrote before.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from node.store.base import Hint, Store
from node.swarm.calls import Abandoned, Silent, Unreachable
from node.swarm.courier import Courier
from node.swarm.members import Members
from protocols.clock import AHEAD_MS_MAX
from protocols.codes import BzzzError, ClockAhead, Malformed
from protocols.envelope import Envelope
from protocols.retry import backoff

log = logging.getLogger(__name__)

WINDOW = 256
"""Hints of one peer under way at once."""
RESCAN_SECONDS = 1.0
"""How often parked hints are looked for while others are under way."""
PAUSE_SECONDS = 0.1
"""A peer whose window is full, or a process that was late, gets this much air."""
RETRY_BASE_SECONDS = 1.0
RETRY_CAP_SECONDS = 30.0
SWEEP_PAGE = 500
SWEEP_AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class _Account:
    """One holder's: where its hints are read from, and which are under way."""

    cursor: int = 0
    under_way: set[int] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    is_at_end: bool = False
    scanned_at: float = 0.0
    paused_until: float = 0.0

    def again(self) -> None:
        """Read its hints from the start."""
        self.cursor = 0
        self.is_at_end = False


@dataclass(slots=True)
class _Sweep:
    """When a member was swept, since it was first seen."""

    first_seen_ms: int
    at: list[float] = field(default_factory=list)

    def is_over(self, now: float) -> bool:
        return bool(self.at) and (
            now - self.at[0] < SWEEP_AGAIN_SECONDS or self.at[-1] - self.at[0] >= SWEEP_AGAIN_SECONDS
        )


class Publisher:
    """`on_own_clock_ahead` is called when a peer refused a version that is ahead of our own clock, too."""

    def __init__(
        self,
        store: Store,
        courier: Courier,
        members: Members,
        *,
        now_ms: Callable[[], int],
        chance: Callable[[], float],
        on_own_clock_ahead: Callable[[], None],
    ) -> None:
        self._store = store
        self._courier = courier
        self._members = members
        self._now_ms = now_ms
        self._chance = chance
        self._on_own_clock_ahead = on_own_clock_ahead
        self._accounts: dict[str, _Account] = {}
        self._swept: dict[str, _Sweep] = {}
        self._woken = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._wake_when_grown)
            nursery.start_soon(self._wake_when_members_change)
            nursery.start_soon(self._sweep_for_ever)
            while True:
                self._woken = trio.Event()
                next_at = trio.current_time() + RESCAN_SECONDS
                for peer in [peer for peer in self._store.owing() if self._members.is_reachable(peer)]:
                    next_at = min(next_at, await self._pay(peer))
                with trio.move_on_at(next_at if self._store.owing() else float("inf")):
                    await self._woken.wait()

    def offer(self, sequence: int, envelope: Envelope, holders: tuple[str, ...]) -> None:
        """A write was merged just now: send it at once where nothing waits before it."""
        for peer in holders:
            account = self._accounts.setdefault(peer, _Account())
            is_free = account.is_at_end and len(account.under_way) < WINDOW and not account.paused_until
            if is_free and sequence > account.cursor and self._members.is_reachable(peer):
                account.cursor = sequence
                self._send(peer, account, sequence, envelope, 0)

    # -- paying -----------------------------------------------------------------------------------------------

    async def _pay(self, peer: str) -> float:
        """Send what is due to a holder, as far as its window allows; answer when to look again."""
        account = self._accounts.setdefault(peer, _Account())
        now = trio.current_time()
        if now < account.paused_until:
            return account.paused_until
        account.paused_until = 0.0
        is_rescan = account.is_at_end and (not account.under_way or now - account.scanned_at >= RESCAN_SECONDS)
        if is_rescan and self._store.owing().get(peer, 0) > len(account.under_way):
            account.again()
        while (room := min(WINDOW - len(account.under_way), self._courier.room(peer))) > 0:
            hints = await self._store.owed(
                peer, after=account.cursor, limit=room + len(account.under_way), now_ms=self._now_ms()
            )
            account.scanned_at = trio.current_time()
            account.is_at_end = len(hints) < room + len(account.under_way)
            await self._send_hints(peer, account, hints)
            if account.is_at_end or not self._members.is_reachable(peer):
                break
        due_ms = self._store.next_due(peer)
        wait = RESCAN_SECONDS if account.under_way or due_ms is None else max(0.0, (due_ms - self._now_ms()) / 1000.0)
        return trio.current_time() + min(RESCAN_SECONDS, max(wait, 0.01))

    async def _send_hints(self, peer: str, account: _Account, hints: list[Hint]) -> None:
        for hint in hints:
            account.cursor = max(account.cursor, hint.sequence)
            if hint.sequence in account.under_way:
                continue
            envelope = await self._store.by_digest(hint.digest)
            if not isinstance(envelope, Envelope):
                await self._store.refuse(peer, hint.sequence, refusal="its content is not held here any more")
                continue
            self._send(peer, account, hint.sequence, envelope, hint.attempts)

    def _send(self, peer: str, account: _Account, sequence: int, envelope: Envelope, attempts: int) -> None:
        def done(error: BzzzError | None) -> None:
            account.under_way.discard(sequence)
            self._settled(peer, account, sequence, envelope, attempts + 1, error)

        if sequence in account.under_way:
            return
        account.under_way.add(sequence)
        if not self._courier.deliver(peer, envelope, done):
            account.under_way.discard(sequence)
            account.cursor = min(account.cursor, sequence - 1)
            account.is_at_end = False

    def _settled(
        self, peer: str, account: _Account, sequence: int, envelope: Envelope, attempts: int, error: BzzzError | None
    ) -> None:
        if error is None:
            self._store.acknowledge(peer, (sequence,))
        elif isinstance(error, Silent | Abandoned | Unreachable | Malformed):
            account.again()
            account.paused_until = trio.current_time() + PAUSE_SECONDS
        elif error.retryable:
            self._park(peer, sequence, envelope, attempts, error)
        else:
            log.warning("%s refused %s for good: %s", peer, envelope.address, error.message)
            if self._nursery is not None:
                self._nursery.start_soon(self._refuse, peer, sequence, error.message)
        self._woken.set()

    def _park(self, peer: str, sequence: int, envelope: Envelope, attempts: int, error: BzzzError) -> None:
        seconds = backoff(attempts, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS, chance=self._chance())
        if isinstance(error, ClockAhead):
            ahead = error.details.get("ahead_ms", 0)
            too_far = (ahead - AHEAD_MS_MAX) / 1000.0 if isinstance(ahead, int | float) else 0.0
            seconds = min(max(seconds, too_far), RETRY_CAP_SECONDS)
            self._on_own_clock_ahead()
        next_try_ms = self._now_ms() + int(seconds * 1000)
        self._store.postpone(peer, sequence, next_try_ms=next_try_ms, refusal=error.message)

    async def _refuse(self, peer: str, sequence: int, refusal: str) -> None:
        try:
            await self._store.refuse(peer, sequence, refusal=refusal)
        except BzzzError as error:  # it stays owed, and is refused again
            log.warning("a refused hint could not be put aside: %s", error.message)

    # -- waking -----------------------------------------------------------------------------------------------

    async def _wake_when_grown(self) -> None:
        sequence = self._store.last_sequence
        while True:
            sequence = await self._store.grown(sequence)
            self._woken.set()
            await trio.lowlevel.checkpoint()

    async def _wake_when_members_change(self) -> None:
        while True:
            await self._members.changed()
            self._woken.set()

    # -- what new members are owed ----------------------------------------------------------------------------

    async def _sweep_for_ever(self) -> None:
        """Whoever is a member is owed every own write that it should hold; also what was written before we met.

        A write that was being merged while the member came may have missed both its own list and the first sweep: so
        every new member is swept again a while later, when any such write is long committed.
        """
        while True:
            for peer in [peer for peer in self._store.owing() if self._members.get(peer) is None]:
                await self._guarded(self.release, peer)
            for presence in self._members.all():
                swept = self._swept.setdefault(presence.member.peer, _Sweep(presence.member.first_seen_ms))
                if swept.first_seen_ms != presence.member.first_seen_ms:
                    swept = self._swept[presence.member.peer] = _Sweep(presence.member.first_seen_ms)
                if not swept.is_over(trio.current_time()) and await self._guarded(self._sweep, presence.member.peer):
                    swept.at.append(trio.current_time())
            with trio.move_on_after(SWEEP_AGAIN_SECONDS):
                await self._members.changed()

    async def _guarded(self, task: Callable[[str], Awaitable[None]], peer: str) -> bool:
        try:
            await task(peer)
        except BzzzError as error:
            log.warning("what %s is owed could not be written down yet: %s", peer, error.message)
            return False
        return True

    async def _sweep(self, peer: str) -> None:
        name = f"owed/{peer}"
        after = await self._store.cursor(name)
        while changes := await self._store.own_writes(after=after, limit=SWEEP_PAGE):
            debts = [(c.sequence, peer) for c in changes if peer in self._members.wanted(c.key)]
            if debts and await self._store.owe(debts):
                self._accounts.setdefault(peer, _Account()).again()
                self._woken.set()
            after = changes[-1].sequence
            await self._store.set_cursor(name, after)

    async def release(self, peer: str) -> None:
        """A member was forgotten: others are owed in its place."""
        self._accounts.pop(peer, None)
        self._swept.pop(peer, None)
        await self._store.set_cursor(f"owed/{peer}", 0)
        released = await self._store.release(peer)
        for sequence in released:
            standing = await self._store.standing(sequence=sequence)
            written = await self._store.by_digest(standing.digest) if standing else None
            if standing and written:
                holders = self._members.wanted(written.key)
                await self._store.owe((sequence, holder) for holder in holders)
        self._woken.set()
