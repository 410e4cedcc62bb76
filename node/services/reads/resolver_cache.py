"""What was resolved a moment ago, answered again without asking: where that is as good, and says how old it is.

Only for consistency auto, and never for backend real, which promises that the swarm is asked. What is kept goes when
its key changes in this node's store (its own writes and those of peers alike, in the very step in which they become
visible), with each change of the flags, and with time:

- In hybrid an answer is given while it is no older than `read_freshness`, which is what any answer from this machine
  may be there. Its age runs from when the holders were asked, or from when this node, as one of them, last lacked
  nothing that the others wrote, whichever is later; the provenance says it.
- In mock an answer is a function of this machine's store, and good as long as that is the same.
- That there is nothing is kept for a second at most, and is told with its age.
- What is degraded is not kept, nor is an error.

`cache_ttl` bounds all of it. Who asks while another asks the same waits for that answer, unless the key changed since.
"""

import copy
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Final

import trio

from node.config.flags import Flags
from node.dht.base import Answer, Freshness
from node.services.reads.single_flight import SingleFlight
from node.store.base import Store
from protocols.envelope import Envelope
from protocols.errors import NotFound, Unavailable
from protocols.policy.cache import Cache, CacheCounts, CacheHit, CacheLoad
from protocols.temporal import Head

ENTRIES_MAX: Final = 4096
BYTES_MAX: Final = 16 * 1024 * 1024
NEGATIVE_SECONDS: Final = 1.0
"""How long 'there is nothing' is kept at most: whoever waits for a thing to appear asks again and again."""
ENTRY_BYTES: Final = 1000
HEAD_BYTES: Final = 1200
"""About what an entry costs, and each envelope in it beside its encoded bytes and its content."""

Kept = Answer | NotFound
LookUp = Callable[[], Awaitable[Answer]]


class ResolverCache:
    """Nothing is kept or shared unless `run` runs."""

    def __init__(
        self,
        store: Store,
        flags: Flags,
        *,
        entries_max: int = ENTRIES_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._store = store
        self._cache: Cache[Kept] = Cache(entries_max=entries_max, bytes_max=bytes_max)
        self._lookups: SingleFlight[Answer] = SingleFlight()
        self._flags = flags
        self._ttl = 0.0
        self._is_allowed = False
        self.use_flags(flags)

    @property
    def counts(self) -> CacheCounts:
        return self._cache.counts

    @property
    def is_on(self) -> bool:
        return self._is_allowed and self._lookups.is_running

    def use_flags(self, flags: Flags) -> None:
        """Go by these flags from now on. What was answered under others says nothing."""
        self._flags = flags
        self._ttl = flags.cache_ttl_ms / 1000.0
        self._is_allowed = flags.cache_enabled
        self._cache.clear()

    async def run(self) -> None:
        """Keep, share and forget until cancelled."""
        with self._store.change_listeners.subscribed(self._cache.drop):
            try:
                await self._lookups.run()
            finally:
                self._cache.clear()

    # -- answering --------------------------------------------------------------------------------------------

    async def answer(
        self, key: bytes, part: Hashable, freshness: Freshness, look_up: LookUp, *, is_shared: bool
    ) -> Answer:
        """What is kept of this part of a key, what somebody is fetching already, or what `look_up` finds.

        A look-up that is shared takes as long as its backend gives a call; one with a time of its own is not shared.
        """
        found = self._cache.peek(
            key, part, now=trio.current_time(), since=freshness.since, age_max=freshness.age_max_seconds
        )
        if found is not None:
            return _cached(found, freshness)
        under_way = self._lookups.get((key, part)) if is_shared else None
        if under_way is not None:
            self._cache.coalesced += 1
            answer = await under_way.wait()
            return _waited_for(answer, trio.current_time() - under_way.started)
        self._cache.missed(key, part)
        reading = self._cache.begin(key)
        looking = partial(self._look_up, reading, part, look_up, freshness)
        return await (self._lookups.begin((key, part), reading, looking).wait() if is_shared else looking())

    async def _look_up(self, reading: CacheLoad, part: Hashable, look_up: LookUp, freshness: Freshness) -> Answer:
        started, flags = trio.current_time(), self._flags
        try:
            answer = await look_up()
            where = answer.provenance
            if where.is_degraded or where.age_ms is None:
                return answer
            since = started if where.source == "swarm" else min(started, trio.current_time() - where.age_ms / 1000.0)
            if reading.is_stale and isinstance(part, Head) and flags is self._flags:
                self._cache.give_up(reading)
                reading = self._cache.begin(reading.key)
                if not await self._is_head(reading.key, answer):
                    return answer
            self._cache.keep(
                reading, part, answer, since=since, until=started + self._ttl, size_bytes=_size_bytes(answer)
            )
            return answer
        except NotFound as absent:
            seconds = min(self._ttl, NEGATIVE_SECONDS, freshness.age_max_seconds)
            self._cache.keep(reading, part, absent, since=started, until=started + seconds, size_bytes=ENTRY_BYTES)
            raise
        finally:
            self._cache.give_up(reading)

    async def _is_head(self, key: bytes, answer: Answer) -> bool:
        """Whether what was answered is what is here now.

        A key that changed while its head was looked up most often did because the holders told something new.
        """
        try:
            heads = await self._store.heads(key)
        except Unavailable:
            return False
        return [head.digest for head in heads] == [head.digest for head in answer.heads]


def _cached(found: CacheHit[Kept], freshness: Freshness) -> Answer:
    """What is kept, from where it came then, with the age that it has now."""
    kept = found.value
    if isinstance(kept, NotFound):
        absent = copy.copy(kept)
        absent.details = {**kept.details, "age_ms": round(found.age_seconds * 1000.0, 1)}
        raise absent
    if freshness.is_final:
        return kept
    return kept._replace(provenance=kept.provenance._replace(age_ms=found.age_seconds * 1000.0))


def _waited_for(answer: Answer, seconds: float) -> Answer:
    """An answer whose asking began so long ago, for another."""
    where = answer.provenance
    if where.source != "swarm" or where.age_ms is None:
        return answer
    return answer._replace(provenance=where._replace(age_ms=where.age_ms + seconds * 1000.0))


def _size_bytes(answer: Answer) -> int:
    size = ENTRY_BYTES
    for head in answer.heads:
        size += HEAD_BYTES
        if isinstance(head, Envelope):
            size += len(head.encoded) + len(head.content)
    return size
