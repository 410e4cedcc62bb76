"""The heads of a key in memory: many of them, and large ones."""

import random
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import trio

from node.store.log import Incoming, Origin
from node.store.sqlite import heads_cache, queries
from node.store.sqlite.heads_cache import FoundHeads, HeadsCache
from protocols.envelope import Envelope, Notice, order_key
from tests.unit.node.store.sqlite.files import ALICE, envelope, opened, put
from tests.until import until


def test_it_has_the_heads_in_order_and_its_size_is_that_of_its_heads() -> None:
    rng = random.Random(1)
    items = [envelope(version, content=bytes(rng.randrange(200))) for version in range(1, 80)]
    rng.shuffle(items)
    cache = HeadsCache(1 << 30)
    key = items[0].key
    cache.put_first(items[0])
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
        fresh.put(key, FoundHeads(tuple(heads.values()), is_cut=False))
        assert cache.size_bytes == fresh.size_bytes
        assert all((cache.by_digest(each.digest) is not None) == (each.digest in heads) for each in items)
    cache.drop(key)
    assert (cache.size_bytes, len(cache), cache.by_digest(items[0].digest)) == (0, 0, None)


async def test_of_more_heads_than_are_answered_the_latest_are_whatever_changes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads_cache, "HEADS_MAX", 4)
    monkeypatch.setattr(heads_cache, "KEPT_MAX", 7)
    monkeypatch.setattr(queries, "HEADS_AT_ONCE", 3)
    rng = random.Random(1)
    heads: dict[bytes, Envelope] = {}
    most = 0
    async with opened(path) as store:
        for number in range(250):
            parents = rng.sample(
                sorted(heads), k=min(len(heads), rng.choice((0, 0, 0, 2) if number < 120 else (0, 3, 3, 5)))
            )
            version = rng.randrange(1_000, 2_000) if not parents else 3_000 + number
            item = envelope(version, content=b"%d" % number, parents=sorted(parents))
            await put(store, item)
            heads[item.digest] = item
            for parent in parents:
                if heads[parent].version < version:
                    del heads[parent]
            most = max(most, len(heads))
            expected = sorted(heads.values(), key=order_key, reverse=True)[:4]
            assert list(await store.heads(item.key)) == expected
            assert len(store._heads_cache._by_digest) <= 7  # private: it bounds the memory
            assert await store.heads(item.key) is await store.heads(item.key)
    assert most > 20
    assert len(heads) < 4


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
            store._heads_cache.drop(huge.key)  # private: nothing but other keys would drive it out
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


async def test_many_heads_are_read_in_parts_that_stay_short(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [envelope(1 + number, content=b"%d" % number) for number in range(30)]
    for name, count in (("HEADS_AT_ONCE", 4), ("HEAD_ROWS_AT_ONCE", 7), ("HEADS_BYTES", 20)):
        monkeypatch.setattr(queries, name, count)
    async with opened(path, cache_bytes=0) as store:
        await put(store, *items)
        heads = await store.heads(items[0].key)
        assert [head.digest for head in heads] == [item.digest for item in reversed(items)]
        kinds = [isinstance(head, Envelope) for head in heads]
        assert kinds == sorted(kinds, reverse=True), "the latest have their content"
        assert 1 <= sum(kinds) < len(items)


async def test_many_heads_are_answered_while_they_change_without_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member may write faster than thousands of heads are read."""
    items = [envelope(1 + number) for number in range(12)]
    monkeypatch.setattr(queries, "HEADS_AT_ONCE", 4)
    head_rows, written = queries.head_rows, list[Envelope]()
    async with opened(path, cache_bytes=0) as store:
        await put(store, *items)

        async def write() -> None:
            number = 100 + len(written)
            written.append(envelope(number, parents=[written[-1].digest] if written else []))
            await put(store, written[-1])

        def rows_after_a_change(*asked: Any) -> Any:
            found = head_rows(*asked)
            trio.from_thread.run(write, trio_token=token)
            return found

        token = trio.lowlevel.current_trio_token()
        monkeypatch.setattr(queries, "head_rows", rows_after_a_change)
        heads = await store.heads(items[0].key)
        assert [head.digest for head in heads] == [written[-1].digest, *(item.digest for item in reversed(items))]
