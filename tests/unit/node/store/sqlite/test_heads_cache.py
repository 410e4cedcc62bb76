"""The heads of a key in memory: many of them, and large ones."""

import random
import time
from hashlib import sha256
from pathlib import Path

from node.store.log import Incoming, Origin
from node.store.sqlite import queries
from node.store.sqlite.heads_cache import HeadsCache
from protocols.envelope import Envelope, Notice, order_key
from tests.unit.node.store.sqlite.files import ALICE, envelope, opened
from tests.until import until


def test_it_has_the_heads_in_order_and_its_size_is_that_of_its_heads() -> None:
    rng = random.Random(1)
    items = [envelope(version, content=bytes(rng.randrange(200))) for version in range(1, 80)]
    rng.shuffle(items)
    cache = HeadsCache(1 << 30)
    key = items[0].key
    cache.put(key, (items[0],))
    heads = {items[0].digest: items[0]}
    for item in items[1:]:
        ended = tuple(rng.sample(sorted(heads), k=min(len(heads), rng.choice((0, 0, 1, 2)))))
        is_head = rng.random() < 0.9
        cache.add(item, is_head=is_head, superseded=ended)
        for digest in ended:
            del heads[digest]
        if is_head:
            heads[item.digest] = item
        assert cache.get(key) == tuple(sorted(heads.values(), key=order_key, reverse=True))
        fresh = HeadsCache(1 << 30)
        fresh.put(key, tuple(heads.values()))
        assert cache.size_bytes == fresh.size_bytes
        assert all((cache.by_digest(each.digest) is not None) == (each.digest in heads) for each in items)
    cache.drop(key)
    assert (cache.size_bytes, len(cache), cache.by_digest(items[0].digest)) == (0, 0, None)


async def test_of_many_large_heads_only_the_latest_have_their_content_in_memory(path: Path) -> None:
    large = [envelope(version, content=bytes([version]) * 500_000) for version in range(1, 13)]
    async with opened(path) as store:
        await store.merge([Incoming(item, Origin.PEER) for item in large], now_ms=1)
    async with opened(path) as store:
        heads = await store.heads(large[0].key)
        assert [head.digest for head in heads] == [item.digest for item in reversed(large)]
        assert isinstance(heads[0], Envelope)
        assert sum(len(head.encoded) for head in heads if isinstance(head, Envelope)) <= queries.HEADS_BYTES
        assert isinstance(heads[-1], Notice)
        for item in large:
            assert await store.by_digest(item.digest) == item, "the content that is held is there for all"
    huge = envelope(20, content=bytes(1_000_000))
    async with opened(path) as store:
        await store.merge([Incoming(huge, Origin.PEER)], now_ms=1)
        queries_bytes, queries.HEADS_BYTES = queries.HEADS_BYTES, 10  # type: ignore[misc]
        try:
            store._heads_cache.drop(huge.key)
            heads = await store.heads(huge.key)
        finally:
            queries.HEADS_BYTES = queries_bytes  # type: ignore[misc]
        assert heads[0] == huge
        assert not any(isinstance(head, Envelope) for head in heads[1:])


async def test_versions_with_many_parents_do_not_share_a_long_commit(path: Path) -> None:
    """Each parent is looked up, and a put that comes then waits for the commit."""
    async with opened(path, before_commit=lambda: time.sleep(0.01)) as store:
        for number in range(40):
            parents = tuple(sorted(sha256(b"%d %d" % (number, parent)).digest() for parent in range(256)))
            item = envelope(2 + number, parents=parents)
            store.merge_in_background(
                [Incoming(item.notice, Origin.PEER)], now_ms=1, peer=ALICE, on_done=lambda _: None
            )
        await until(lambda: store.last_sequence == 40)
        assert 40 <= store.stats().commits <= 42
