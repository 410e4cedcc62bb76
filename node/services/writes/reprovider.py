"""Reprovider: announces in the DHT which contents this node holds, and again before that is forgotten.

A DHT of up to k + 1 nodes needs none of it: each lookup asks all of them, and a node names itself for what it holds. In
a larger one each content is announced by the node that wrote it and by the live members nearest to its address, at a
bounded rate: what came last at first, and all of it again in rounds that take an interval each, from the latest to the
first. What is announced follows from the store: no list is kept, and positions in the log say how far a round has come.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from node.store.base import Store
from node.store.versions import HeldContent
from node.swarm.kademlia.kademlia import Kademlia
from node.swarm.members import Members
from protocols.cid import multihash
from protocols.errors import BzzzError
from protocols.kademlia.messages import CONTACTS_MAX
from protocols.placement import nearest

log = logging.getLogger(__name__)

ANNOUNCERS = 2
"""Holders of an address that announce a content, beside the node that wrote it."""
CONTENT_SECONDS = 1.0
"""At most one content in so long, on average: 86,400 a day, each of which takes about 21 messages."""
PAGE = 64
"""Contents that are announced together."""
RECENT_MAX = 1024
"""Of new contents so many are announced at once; older ones when their turn comes."""
LOOK_SECONDS = 60.0
"""How often it is looked whether there is something to announce, and to whom."""
BATCH_SECONDS = 60.0
"""How long the announcement of a page may take."""
_NEW, _AGAIN, _SINCE = "provided/new", "provided/again", "provided/since"
"""Up to where in the log new contents were announced, down to where all were in this round, and when (Unix
milliseconds) the round began."""


class Reprovider:
    """`is_on` says whether this node uses the swarm now. A DHT with more than `peers_min` other peers has contents
    announced."""

    def __init__(
        self,
        store: Store,
        members: Members,
        kademlia: Kademlia,
        *,
        interval_seconds: float,
        now_ms: Callable[[], int],
        is_on: Callable[[], bool] = lambda: True,
        peers_min: int = CONTACTS_MAX,
    ) -> None:
        self._store = store
        self._members = members
        self._kademlia = kademlia
        self._interval_seconds = interval_seconds
        self._now_ms = now_ms
        self._is_on = is_on
        self._peers_min = peers_min
        self._turn = trio.Lock()
        """Held while a page is announced, and as long after that as the rate asks for."""

    async def run(self) -> None:
        """Announce until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._repeat, self._announce_new)
            nursery.start_soon(self._repeat, self._announce_again)

    async def _repeat(self, task: Callable[[], Awaitable[float]]) -> None:
        """Run a task again and again, each time after as many seconds as it returns."""
        while True:
            seconds = LOOK_SECONDS
            if self._is_on() and len(self._kademlia.routing.table) > self._peers_min:
                try:
                    seconds = await task()
                except BzzzError as error:
                    log.debug("contents cannot be announced now: %s", error.message)
            await trio.sleep(seconds)

    async def _announce_new(self) -> float:
        """Announce what came since the last time, the latest first. The first time a round begins with it."""
        store, since = self._store, await self._store.cursor(_SINCE)
        after, until = await store.cursor(_NEW), store.last_sequence
        before = until + 1
        for _ in range(RECENT_MAX // PAGE):
            page = await store.contents(before=before, limit=PAGE)
            new = [content for content in page if content.sequence > after]
            if not await self._announce(new):
                return LOOK_SECONDS
            before = new[-1].sequence if new else before
            if len(new) < PAGE:
                break
        await store.set_cursor(_NEW, until)
        if not since:
            await store.set_cursor(_AGAIN, before)
            await store.set_cursor(_SINCE, self._now_ms())
        return LOOK_SECONDS

    async def _announce_again(self) -> float:
        """Announce the next page of the round, when its time in the interval has come."""
        store, now_ms = self._store, self._now_ms()
        since = min(await store.cursor(_SINCE), now_ms)  # the clock may have been set back
        if not since:
            return LOOK_SECONDS
        before, last = await store.cursor(_AGAIN), store.last_sequence
        passed = 1.0 - min(1.0, before / (last + 1))
        wait = (since - now_ms) / 1000.0 + self._interval_seconds * passed
        if wait > 0.0:
            return min(wait, LOOK_SECONDS)
        if page := await store.contents(before=before, limit=PAGE):
            if not await self._announce(page):
                return LOOK_SECONDS
            await store.set_cursor(_AGAIN, page[-1].sequence)
        elif now_ms < since + self._interval_seconds * 1000.0:
            return LOOK_SECONDS
        else:
            await store.set_cursor(_AGAIN, last + 1)
            interval_ms = int(self._interval_seconds * 1000.0)  # after a long absence all is due, at the bounded rate
            await store.set_cursor(_SINCE, max(since + interval_ms, now_ms - interval_ms))
        return 0.0

    async def _announce(self, contents: Sequence[HeldContent]) -> bool:
        """Announce those of these contents that are this node's to announce. False when no peer was told of any."""
        keys = [multihash(content.digest) for content in contents if self._is_own_to_announce(content)]
        if not keys:
            return True
        async with self._turn:
            ends_at = trio.current_time() + CONTENT_SECONDS * len(keys)
            taken = await self._kademlia.announcer.announce(keys, timeout=BATCH_SECONDS)
            await trio.sleep_until(ends_at)
        return taken > 0

    def _is_own_to_announce(self, content: HeldContent) -> bool:
        own = self._members.own
        return content.is_local or own in nearest(content.key, (own, *self._members.reachable()), ANNOUNCERS)
