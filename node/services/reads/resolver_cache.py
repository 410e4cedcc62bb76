"""Resolver cache: recent answers of the resolver, used while they are as good as a new one.

Only reads with consistency auto use it, and never those of backend real, which promises that the swarm is asked. An
entry is dropped when its key changes in this store (by a write of this node or of a peer, in the step that makes the
change visible), at each change of the flags, and after a time:

- In hybrid an answer is used while it is no older than `read_freshness`, as any answer from this machine. Its age is
  counted from when the holders were asked, or from when this node, as a holder, last had everything that the others
  wrote, whichever is later; the provenance gives the age.
- In mock an answer depends on this machine's store alone, and is good until that changes.
- That there is nothing is cached for a second at most, and returned with its age.
- Degraded answers and errors are not cached.

`cache_ttl` bounds all of these. Concurrent reads of the same thing share one look-up, unless the key changed meanwhile.
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
"""How long 'there is nothing' is cached at most: a client that waits for something to appear asks again and again."""
ENTRY_BYTES: Final = 1000
"""About the memory that an entry takes."""
HEAD_BYTES: Final = 1200
"""About the memory that each envelope in it takes, beside its encoded bytes and its content."""

CachedAnswer = Answer | NotFound
LookUp = Callable[[], Awaitable[Answer]]


class ResolverCache:
    """Nothing is cached or shared unless `run` runs."""

    def __init__(
        self,
        store: Store,
        flags: Flags,
        *,
        entries_max: int = ENTRIES_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._store = store
        self._cache: Cache[CachedAnswer] = Cache(entries_max=entries_max, bytes_max=bytes_max)
        self._flights: SingleFlight[Answer] = SingleFlight()
        self._flags = flags
        self._ttl = 0.0
        self._is_allowed = False
        self.use_flags(flags)

    @property
    def counts(self) -> CacheCounts:
        return self._cache.counts

    @property
    def is_on(self) -> bool:
        return self._is_allowed and self._flights.is_running

    def use_flags(self, flags: Flags) -> None:
        """Follow these flags from now on, and drop the answers from before."""
        self._flags = flags
        self._ttl = flags.cache_ttl_ms / 1000.0
        self._is_allowed = flags.cache_enabled
        self._cache.clear()

    async def run(self) -> None:
        """Cache and share answers until cancelled."""
        with self._store.change_listeners.subscribed(self._cache.drop):
            try:
                await self._flights.run()
            finally:
                self._cache.clear()

    async def get(
        self, key: bytes, part: Hashable, freshness: Freshness, look_up: LookUp, *, is_shared: bool
    ) -> Answer:
        """The answer for this part of a key: from the cache, from a look-up under way, or from a new `look_up`.

        A shared look-up has the deadline of its backend; a look-up with a timeout of its own is not shared.
        """
        found = self._cache.peek(
            key, part, now=trio.current_time(), since=freshness.since, age_max=freshness.age_max_seconds
        )
        if found is not None:
            return _cached(found, freshness)
        under_way = self._flights.get((key, part)) if is_shared else None
        if under_way is not None:
            self._cache.coalesced += 1
            answer = await under_way.wait()
            return _shared(answer, trio.current_time() - under_way.started)
        self._cache.missed(key, part)
        load = self._cache.begin(key)
        run = partial(self._look_up, load, part, look_up, freshness)
        return await (self._flights.begin((key, part), load, run).wait() if is_shared else run())

    async def _look_up(self, load: CacheLoad, part: Hashable, look_up: LookUp, freshness: Freshness) -> Answer:
        started, flags = trio.current_time(), self._flags
        try:
            answer = await look_up()
            provenance = answer.provenance
            if provenance.is_degraded or provenance.age_ms is None:
                return answer
            since = started
            if provenance.source != "swarm":
                since = min(started, trio.current_time() - provenance.age_ms / 1000.0)
            if load.is_stale and isinstance(part, Head) and flags is self._flags:
                self._cache.give_up(load)
                load = self._cache.begin(load.key)
                if not await self._is_head(load.key, answer):
                    return answer
            self._cache.keep(load, part, answer, since=since, until=started + self._ttl, size_bytes=_size_bytes(answer))
            return answer
        except NotFound as absent:
            seconds = min(self._ttl, NEGATIVE_SECONDS, freshness.age_max_seconds)
            self._cache.keep(load, part, absent, since=started, until=started + seconds, size_bytes=ENTRY_BYTES)
            raise
        finally:
            self._cache.give_up(load)

    async def _is_head(self, key: bytes, answer: Answer) -> bool:
        """Whether the answer has the heads that are here now.

        When a key changes during a look-up of its head, the cause is most often a new version from the holders.
        """
        try:
            heads = await self._store.heads(key)
        except Unavailable:
            return False
        return [head.digest for head in heads] == [head.digest for head in answer.heads]


def _cached(found: CacheHit[CachedAnswer], freshness: Freshness) -> Answer:
    """The cached answer, with the age that it has now."""
    cached = found.value
    if isinstance(cached, NotFound):
        absent = copy.copy(cached)
        absent.details = {**cached.details, "age_ms": round(found.age_seconds * 1000.0, 1)}
        raise absent
    if freshness.is_final:
        return cached
    return cached._replace(provenance=cached.provenance._replace(age_ms=found.age_seconds * 1000.0))


def _shared(answer: Answer, seconds: float) -> Answer:
    """The answer of a shared look-up that began so many seconds ago."""
    provenance = answer.provenance
    if provenance.source != "swarm" or provenance.age_ms is None:
        return answer
    return answer._replace(provenance=provenance._replace(age_ms=provenance.age_ms + seconds * 1000.0))


def _size_bytes(answer: Answer) -> int:
    size = ENTRY_BYTES
    for head in answer.heads:
        size += HEAD_BYTES + (head.encoded_size if isinstance(head, Envelope) else len(head.header))
    return size
