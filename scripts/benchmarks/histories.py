"""Long histories, many heads, many parents and many addresses: what they cost in the SQLite store.

One call after the other, so nothing waits for another call. The notices are not signed: no store checks that.
"""

import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgpack
import trio

from benchmarks.envelopes import KEY
from benchmarks.figures import Figure
from node.services.reads import temporal_walk
from node.store.log import Incoming, Origin
from node.store.sqlite.store import SqliteStore
from protocols.clock import version
from protocols.envelope import Notice, notice_of
from protocols.header import EMPTY_DIGEST, FORMAT
from protocols.temporal import AsOf, Back, First, Forward

LONG = 200_000
HEADS = 10_000
ADDRESSES = 100_000
PARENTS = 256
BATCH = 500
TRIES = 7


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bzzz-bench-") as folder:
        return trio.run(_measure, Path(folder))


async def _measure(folder: Path) -> list[Figure]:
    figures: list[Figure] = []
    for part in (_long, _heads, _parents, _addresses):
        async with _opened(folder / f"{part.__name__}.sqlite") as store:
            figures += [
                Figure(bench="histories", what=what, value=seconds * 1000.0, unit="ms")
                for what, seconds in (await part(store)).items()
            ]
    return figures


async def _long(store: SqliteStore) -> dict[str, float]:
    line = [_notice("long", 0)]
    for number in range(1, LONG):
        line.append(_notice("long", number, (line[-1].digest,)))
    found = {f"a version added to a history of {LONG:,}, in batches": await _put(store, line)}
    key, middle = line[0].key, LONG // 2
    for name, part in (
        ("~~1", Back(1)), (f"~~{middle}", Back(middle)), (f"^^{middle}", Forward(middle)), ("*~", First()),
        ("an instant in the middle", AsOf(1_000 + middle)),
    ):  # fmt: skip
        found[f"{name} of {LONG:,} versions"] = await _best(partial(temporal_walk.find, store, key, part))
    for after in (0, middle, LONG - 1_000):
        found[f"1,000 versions from the {after:,}th on"] = await _best(partial(store.versions, key, after=after))
    return found


async def _heads(store: SqliteStore) -> dict[str, float]:
    heads = [_notice("heads", number) for number in range(HEADS)]
    await _put(store, heads)
    key = heads[0].key

    async def read() -> None:
        store._heads.drop(key)  # private: as after a start
        await store.heads(key)

    found = {f"{HEADS:,} heads, from the disk": await _best(read)}
    merge = _notice("heads", HEADS, tuple(sorted(head.digest for head in heads[:PARENTS])))
    await store.heads(key)
    found[f"a version that ends {PARENTS} of them"] = await _put(store, [merge])
    return found


async def _parents(store: SqliteStore) -> dict[str, float]:
    parents = [_notice("parents", number) for number in range(PARENTS)]
    await _put(store, parents)
    digests = tuple(sorted(parent.digest for parent in parents))
    many = [_notice("parents", PARENTS + number, digests) for number in range(100)]
    unknown = tuple(sorted(number.to_bytes(32, "big") for number in range(PARENTS)))
    strange = [_notice("strange", number, unknown) for number in range(100)]
    return {
        f"a version with {PARENTS} known parents": await _put(store, many),
        f"a version with {PARENTS} unknown parents": await _put(store, strange),
    }


async def _addresses(store: SqliteStore) -> dict[str, float]:
    firsts = [_notice(f"address/{number}", 0) for number in range(ADDRESSES)]
    found = {f"the first version of an address, beside {ADDRESSES:,}": await _put(store, firsts)}
    picked = iter(firsts[:: ADDRESSES // TRIES])
    found[f"the heads of one of {ADDRESSES:,} addresses"] = await _best(lambda: store.heads(next(picked).key))
    return found


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[SqliteStore]:
    async with trio.open_nursery() as nursery:
        store = SqliteStore.open(path, random_id="0" * 16)
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


def _notice(path: str, number: int, parents: tuple[bytes, ...] = ()) -> Notice:
    header = msgpack.packb([
        FORMAT, f"ucxl://bench:writer@bzzz:histories/*^/{path}", EMPTY_DIGEST, 0, "text/plain", version(1_000 + number),
        parents, KEY.peer_id, {}, False,
    ])  # fmt: skip
    return notice_of(header, bytes(64))


async def _put(store: SqliteStore, notices: Sequence[Notice]) -> float:
    """Merge them; return the seconds for each."""
    batches = [notices[start : start + BATCH] for start in range(0, len(notices), BATCH)]
    started = time.perf_counter()
    for batch in batches:
        await store.merge([Incoming(notice, Origin.PEER) for notice in batch], now_ms=1)
    return (time.perf_counter() - started) / len(notices)


async def _best(call: Callable[[], Awaitable[object]]) -> float:
    """The quickest of a few calls, in seconds."""
    seconds = []
    for _ in range(TRIES):
        started = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
