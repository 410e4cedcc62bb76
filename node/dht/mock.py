"""The mock backend: this machine's store alone; it asks no peer.

A write that is made while members are known has hints for them, as any other write; these are delivered when the node
speaks with the swarm again.
"""

from collections.abc import Callable
from math import inf

import trio

from node.dht.base import (
    Answer,
    Backend,
    Consistency,
    Extent,
    Freshness,
    Provenance,
    Provider,
    Receipt,
    VersionHistory,
)
from node.dht.call_metrics import CallMetrics, outcome_of_error
from node.dht.commit import merge_in_time
from node.dht.readable_heads import ReadableHeads
from node.store.base import Store
from node.store.hints import Standing
from node.store.log import Incoming, Origin
from node.swarm.kademlia.provider_book import ProviderBook
from protocols.envelope import Envelope
from protocols.kademlia.contact import Contact

_ALWAYS_FRESH = Freshness(-inf, inf)
_LOCAL = Provenance(Backend.MOCK, "local", 0.0, 1, 0, False)
_ABSENT = Answer((), Provenance(Backend.MOCK, "local", 0.0, 0, 0, False))


class MockDHT:
    """`wanted` names the known holders of a key, `providers` who provides one; `now_ms` is the wall clock; a put fails
    when the disk takes longer than `deadline_seconds`. Gets and puts take microseconds, so this class counts them in
    `call_metrics` itself."""

    backend = Backend.MOCK
    asks_swarm = False
    commits_first = True
    self_counted = frozenset({"get", "put"})
    write_quorum = 0

    def __init__(
        self,
        store: Store,
        *,
        own: str,
        providers: ProviderBook | None = None,
        now_ms: Callable[[], int],
        readable: ReadableHeads | None = None,
        wanted: Callable[[bytes], tuple[str, ...]] = lambda _: (),
        deadline_seconds: float = 5.0,
        call_metrics: CallMetrics | None = None,
    ) -> None:
        self._store = store
        self._own = Contact(own)
        self._providers = providers or ProviderBook()
        self._now_ms = now_ms
        self._readable = readable or ReadableHeads(store)
        self._wanted = wanted
        self.deadline_seconds = self.store_deadline_seconds = deadline_seconds
        self._call_metrics = call_metrics or CallMetrics()
        self._gets = self._call_metrics.sampled_calls(Backend.MOCK, "get")
        self._puts = self._call_metrics.sampled_calls(Backend.MOCK, "put")

    async def put(
        self,
        envelope: Envelope,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        on_merged: Callable[[], None] | None = None,
    ) -> Receipt:
        puts = self._puts
        puts.until_sample -= 1
        is_sample = not puts.until_sample
        if is_sample:
            await puts.begin_sample()
        started = trio.current_time()
        wanted = self._wanted(envelope.key)
        incoming = Incoming(envelope, Origin.LOCAL, wanted, (), idempotency_key)
        now_ms = self._now_ms()
        try:
            merged = self._store.merge_without_waiting((incoming,), now_ms=now_ms)
            if merged is None:
                merged = [await merge_in_time(self._store, incoming, seconds=self.deadline_seconds, now_ms=now_ms)]
        except BaseException as error:
            puts.counted_elsewhere += 1
            self._call_metrics.count(Backend.MOCK, "put", outcome_of_error(error), trio.current_time() - started)
            raise
        sequence = merged[0].sequence
        if on_merged is not None:
            on_merged()
        seconds = trio.current_time() - started
        if is_sample:
            puts.latency.observe(seconds)
        standing = Standing(sequence, envelope.digest, (), len(wanted), now_ms)
        return Receipt.of(
            envelope, standing, log_id=self._store.log_of(standing.sequence), quorum=0, elapsed_seconds=seconds
        )

    async def get(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        gets = self._gets
        gets.until_sample -= 1
        sample_started = None if gets.until_sample else await gets.begin_sample()
        try:
            heads = await self._store.heads(key)
        except BaseException as error:
            gets.counted_elsewhere += 1
            self._call_metrics.count(Backend.MOCK, "get", outcome_of_error(error))
            raise
        if sample_started is not None:
            gets.end_sample(sample_started)
        if not heads:
            return _ABSENT
        if len(heads) == 1 and isinstance(heads[0], Envelope):
            return Answer(heads, _LOCAL)
        view = await self._readable.view(key, heads)
        return view.answer(_LOCAL if view.heads else _ABSENT.provenance)

    def freshness(self, key: bytes) -> Freshness:
        return _ALWAYS_FRESH

    async def get_here(self, key: bytes) -> Answer | None:
        return await self.get(key)

    async def get_version(
        self, key: bytes, digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        found = await self._store.by_digest(digest)
        return Answer((found,), _LOCAL) if found is not None and found.key == key else _ABSENT

    async def history(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, after: int = 0, limit: int = 1000,
        extent: Extent | None = None, timeout: float | None = None,
    ) -> VersionHistory:  # fmt: skip
        versions = await self._store.versions(key, after=after, limit=limit)
        return VersionHistory(tuple(versions), await self._store.count_versions(key), True, _LOCAL)

    async def get_content(
        self, content_digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        found = await self._store.by_content(content_digest)
        return Answer((found,), _LOCAL) if found is not None else _ABSENT

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        self._providers.add(key, self._own)
        return 0

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> tuple[Provider, ...]:
        known = self._providers.providers(key)
        return tuple(Provider(peer=provider.peer, addresses=provider.addresses) for provider in known)
