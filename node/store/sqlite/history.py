"""Histories: the versions of a key, read by place, a page at a time.

An address may have any number of versions, and one query over all of them would keep the reader's thread, and with it
all other reads, for seconds. So each query here takes a few milliseconds at most, and others get their turn between.
Long ways are gone in the index alone, in steps.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from node.store.sqlite import queries
from node.store.sqlite.prefix_index import PrefixIndexes
from node.store.sqlite.queries import START, Place
from node.store.sqlite.rows import SIGN
from node.store.versions import Version, VersionRef

STEP: Final = 20_000
"""Entries of the index in one query."""
ROWS: Final = 200
"""Rows of the table in one query: each may have 256 parents."""
REFS: Final = 1_000
"""Rows of the table in one query that reads no parents."""
BEGIN: Final = (START.version, -1)

T = TypeVar("T")


class Ask(Protocol):
    def __call__(self, query: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]: ...


class SqliteHistories:
    """Reads through the reader's thread, by `ask`, which mends what is damaged first."""

    def __init__(self, ask: Ask, prefixes: PrefixIndexes) -> None:
        self._ask = ask
        self._prefixes = prefixes

    async def versions(self, key: bytes, after: int, limit: int) -> list[Version]:
        key_id = await self._key_id(key)
        place = await self._place(key_id, after) if key_id is not None else None
        found: list[Version] = []
        while key_id is not None and place is not None and len(found) < limit:
            page = await self._page(key_id, place, min(ROWS, limit - len(found)))
            if not page:
                break
            found += page
            place = _behind(place, page)
        return found

    async def count(self, key: bytes) -> int:
        key_id = await self._key_id(key)
        if key_id is None:
            return 0
        count, begin = 0, BEGIN
        while last := await self._skip(key_id, begin, STEP):
            count, begin = count + STEP, last
        return count + await self._ask(lambda db: queries.count_beyond(db, key_id, begin, STEP))

    async def walk(self, key: bytes, beyond: VersionRef | None, is_backwards: bool, limit: int) -> list[VersionRef]:
        key_id = await self._key_id(key)
        found: list[VersionRef] = []
        while key_id is not None and len(found) < limit:
            page = await self._refs(key_id, beyond, is_backwards, min(REFS, limit - len(found)))
            if not page:
                break
            found += page
            beyond = page[-1]
        return found

    async def missing_parents(self, key: bytes, limit: int) -> list[bytes]:
        return await self._ask(lambda db: queries.missing_parents(db, self._prefixes, key, limit))

    async def unknown(self, digests: Sequence[bytes]) -> list[bytes]:
        found: list[bytes] = []
        for start in range(0, len(digests), REFS):
            page = digests[start : start + REFS]
            found += await self._ask(partial(queries.unknown, prefixes=self._prefixes, digests=page))
        return found

    async def _key_id(self, key: bytes) -> int | None:
        return await self._ask(lambda db: queries.key_id(db, self._prefixes, key))

    async def _place(self, key_id: int, after: int) -> Place | None:
        """The place behind the first so many versions; None when there are fewer."""
        if not after:
            return START
        last: tuple[int, int] | None = BEGIN
        while after and last is not None:
            step = min(STEP, after)
            last = await self._skip(key_id, last, step)
            after -= step
        if last is None:
            return None
        end = last
        return await self._ask(lambda db: queries.place_of(db, key_id, end))

    async def _skip(self, key_id: int, begin: tuple[int, int], count: int) -> tuple[int, int] | None:
        return await self._ask(lambda db: queries.skip(db, key_id, begin, count))

    async def _page(self, key_id: int, place: Place, limit: int) -> list[Version]:
        return await self._ask(lambda db: queries.versions(db, key_id, place, limit))

    async def _refs(self, key_id: int, beyond: VersionRef | None, is_backwards: bool, limit: int) -> list[VersionRef]:
        return await self._ask(lambda db: queries.walk(db, key_id, beyond, is_backwards, limit))


def _behind(place: Place, page: list[Version]) -> Place:
    """The place behind a page that began at `place`."""
    last = page[-1].version - SIGN
    count = sum(version.version - SIGN == last for version in page)
    return Place(last, count + place.offset if last == place.version else count)
