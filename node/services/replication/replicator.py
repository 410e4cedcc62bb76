"""Replicator: sees that the holders of a key have what others wrote, also when the writer and some holders are gone.

The shell of `protocols/replication/feeding.py`: it reads the log, asks members which versions they lack, and sends
these as any other envelopes, slowly and few at once, so that the writes of callers go first. It asks members that are
connected, and idle ones, which are dialled for it. Its positions in the log are saved under the members that are live,
from time to time: after a restart with the same members it goes on, and otherwise it asks again, which costs 32 bytes a
version.
"""

import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from hashlib import sha256
from math import inf

import trio

from node.driver import Driver
from node.store.base import Store
from node.store.log import Origin
from node.swarm.delivery import Delivery, is_final
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.clock import AHEAD_MS_MAX, ms_of
from protocols.envelope import Envelope
from protocols.errors import BzzzError, ClockAhead
from protocols.messages import GetMissing, MissingReply
from protocols.policy.token_bucket import TokenBucket
from protocols.replication import feeding_events
from protocols.replication.feeding import Feeding
from protocols.replication.feeding_events import (
    Advanced,
    AskMissing,
    Entry,
    Grown,
    LiveChanged,
    LiveMember,
    MissingAnswered,
    MissingUnanswered,
    PageFailed,
    PageRead,
    Reached,
    ReadPage,
    Send,
    Sent,
)

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often it is looked which members can be asked, and whether the log has grown."""
ASK_SECONDS = 5.0
"""How long a member has to look up what it lacks."""
SEND_AT_ONCE, SEND_BYTES = 16, 256 << 10
"""Envelopes, and about how many bytes, on their way to one member: what a write of a caller may have to wait for."""
SAVE_SECONDS = 30.0
_CURSORS = "replicas/"
"""Before the names of the saved positions."""


class Replicator:
    """Of one node. `is_on` says whether anything is sent at all."""

    def __init__(
        self,
        store: Store,
        members: Members,
        *,
        rpc: Rpc,
        delivery: Delivery,
        now_ms: Callable[[], int],
        bytes_per_second: float,
        is_on: Callable[[], bool],
    ) -> None:
        self._store = store
        self._members = members
        self._rpc = rpc
        self._delivery = delivery
        self._is_on = is_on
        self._now_ms = now_ms
        self._bucket = TokenBucket(rate=bytes_per_second, burst=bytes_per_second, now=trio.current_time())
        self.feeding = Feeding(members.own, replication=members.replication)
        self._driver = Driver[feeding_events.Event, feeding_events.Effect](self.feeding, self._carry_out)
        self._live: tuple[LiveMember, ...] = ()
        self._reached: frozenset[str] = frozenset()
        self._unsaved: dict[str, int] = {}
        self._saved_at = -inf
        self._nursery: trio.Nursery | None = None
        self.versions_sent = 0
        self.bytes_sent = 0
        self.versions_asked = 0

    def is_behind(self, peer: str) -> bool:
        """Whether a member was not asked yet for all that it may lack since it came."""
        return self.feeding.is_behind(peer)

    def unfed(self, last_sequence: int) -> dict[str, int]:
        """How many entries of the log, up to this one, are yet to be looked at for each live member; {} while nothing
        is sent at all."""
        positions = self.feeding.positions if self._is_on() else {}
        return {peer: last_sequence - at for peer, at in positions.items() if at < last_sequence}

    async def run(self) -> None:
        """Feed other holders until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._driver.run)
                while True:
                    try:
                        await self._look()
                    except BzzzError as error:
                        log.warning("how far other holders were fed cannot be read or saved now: %s", error.message)
                    with trio.move_on_after(LOOK_SECONDS):
                        await self._members.changed()
            finally:
                self._nursery = None  # before it closes: an answer that comes now must not start a task in it

    async def _look(self) -> None:
        """Tell the machine what changed: the live members, those that can be asked, the end of the log."""
        reached = frozenset(self._members.reachable()) if self._is_on() else frozenset[str]()
        if reached != self._reached:
            self._reached = reached
            self._driver.handle(Reached(reached))
        live = tuple(
            LiveMember(presence.member.peer, presence.member.first_seen_ms)
            for presence in self._members.all()
            if presence.member.peer not in self._members.replaced
        )
        if live != self._live:
            saved = {target.peer: await self._store.cursor(name) for target, name in _cursors(live).items()}
            self._live, self._unsaved = live, {}  # positions are those of one set of members, and of no other
            self._driver.handle(LiveChanged(live, self._store.last_sequence, saved))
        else:
            self._driver.handle(Grown(self._store.last_sequence))
        if self._unsaved and trio.current_time() >= self._saved_at + SAVE_SECONDS:
            await self._save()

    async def _save(self) -> None:
        positions, self._unsaved, self._saved_at = self._unsaved, {}, trio.current_time()
        names = _cursors(self._live)
        for target, name in names.items():
            if target.peer in positions:
                await self._store.set_cursor(name, positions[target.peer])
        kept = set(names.values())
        for name in self._store.cursor_names(_CURSORS):
            if name not in kept:
                await self._store.drop_cursor(name)

    # -- effects ----------------------------------------------------------------------------------------------

    def _carry_out(self, effect: feeding_events.Effect) -> None:
        match effect:
            case ReadPage():
                self._start(partial(self._read, effect))
            case AskMissing():
                self._start(partial(self._ask, effect))
            case Send():
                self._start(partial(self._send, effect))
            case Advanced(positions):
                self._unsaved = positions

    def _start(self, task: Callable[[], Coroutine[None, None, None]]) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(task)

    async def _read(self, page: ReadPage) -> None:
        """Read a page of the log: the versions in it that others wrote, and whose content is here.

        A node that asks for others would claim what it cannot send; so would one that asks for those that are ahead of
        its clock, which the author issues again.
        """
        latest_ms = self._now_ms() + AHEAD_MS_MAX
        try:
            changes = await self._store.log(after=page.after, limit=page.limit)
            others = [c for c in changes if c.origin is not Origin.LOCAL and ms_of(c.version) <= latest_ms]
            notices = dict.fromkeys(await self._store.without_content([change.digest for change in others]))
        except BzzzError as error:
            log.warning("the log cannot be read now, to see what other holders lack: %s", error.message)
            self._driver.handle(PageFailed(page.page))
            return
        entries = [
            Entry(c.sequence, c.digest, c.key) for c in others if c.sequence <= page.until and c.digest not in notices
        ]
        until = min(page.until, changes[-1].sequence) if changes else page.until
        self._driver.handle(PageRead(page.page, tuple(entries), until))

    async def _ask(self, ask: AskMissing) -> None:
        self.versions_asked += len(ask.digests)
        try:
            reply = await self._rpc.call(ask.peer, GetMissing(ask.digests), timeout=ASK_SECONDS)
        except BzzzError as error:
            log.debug("%s could not be asked what it lacks: %s", self._members.name_of(ask.peer), error.message)
            reply = None
        if isinstance(reply, MissingReply):
            self._driver.handle(MissingAnswered(ask.page, ask.peer, reply.missing, reply.claimed))
        else:
            self._driver.handle(MissingUnanswered(ask.page, ask.peer))

    async def _send(self, send: Send) -> None:
        """Send versions in their order, a few at once, as fast as the rate allows. The first failure ends it."""
        rest, failed = list(send.digests), list[bytes]()
        try:
            while rest and not failed:
                envelopes = await self._next(rest)
                await trio.sleep(self._bucket.take(sum(e.encoded_size for e in envelopes), trio.current_time()))
                failed = await self._deliver(send.peer, envelopes)
        except BzzzError as error:
            log.warning("what another holder lacks cannot be read now: %s", error.message)
        self._driver.handle(Sent(send.page, send.peer, (*failed, *rest)))

    async def _next(self, rest: list[bytes]) -> list[Envelope]:
        """Take the next envelopes to send from `rest`. A version that is known here by its notice alone is left out."""
        envelopes: list[Envelope] = []
        size = 0
        while rest and len(envelopes) < SEND_AT_ONCE and size < SEND_BYTES:
            found = await self._store.by_digest(rest[0])
            del rest[0]
            if isinstance(found, Envelope):
                envelopes.append(found)
                size += found.encoded_size
        return envelopes

    async def _deliver(self, peer: str, envelopes: Sequence[Envelope]) -> list[bytes]:
        """Send these, and wait for the outcome of each; return the digests of those that the member may lack still."""
        failed: list[bytes] = []
        open_count = len(envelopes)
        all_done = trio.Event()

        def on_done(envelope: Envelope, error: BzzzError | None) -> None:
            nonlocal open_count
            if error is None:
                self.versions_sent += 1
                self.bytes_sent += envelope.encoded_size
            elif not is_final(error) and not isinstance(error, ClockAhead):  # that one is issued again by its author
                failed.append(envelope.digest)
            open_count -= 1
            if not open_count:
                all_done.set()

        for envelope in envelopes:
            if not self._delivery.deliver(peer, envelope, partial(on_done, envelope)):
                failed.append(envelope.digest)
                open_count -= 1
        if open_count:
            await all_done.wait()
        return failed


def _cursors(live: Sequence[LiveMember]) -> dict[LiveMember, str]:
    """The names of the saved positions, under these live members and no others."""
    members = sha256(" ".join(sorted(target.peer for target in live)).encode()).hexdigest()[:16]
    return {target: f"{_CURSORS}{target.peer}/{target.epoch}/{members}" for target in live}
