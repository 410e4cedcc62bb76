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
from node.store.sqlite.queries import BEGIN, Place
from node.store.sqlite.rows import SIGN
from node.store.versions import Version, VersionRef

STEP: Final = 10_000
"""Entries of the index in one query."""
ROWS: Final = 100
"""Rows of the table in one query: each may have 256 parents."""
REFS: Final = 500
"""Rows of the table in one query that reads no parents."""

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
        place = await self._after(key_id, after) if key_id is not None else None
        found: list[Version] = []
        while key_id is not None and place is not None and len(found) < limit:
            page = await self._page(key_id, place, min(ROWS, limit - len(found)))
            if not page:
                break
            found += page
            place = _place(page[-1])
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
        place = _place(beyond) if beyond is not None else None
        found: list[VersionRef] = []
        while key_id is not None and len(found) < limit:
            page = await self._walked(key_id, place, is_backwards, min(REFS, limit - len(found)))
            if not page:
                break
            found += [walked.ref for walked in page if not walked.is_reissued]
            place = _place(page[-1].ref)
        return found

    async def missing_parents(self, key: bytes, limit: int) -> list[bytes]:
        key_id = await self._key_id(key)
        if key_id is None:
            return []
        return await self._ask(lambda db: queries.missing_parents(db, key_id, limit))

    async def unknown(self, digests: Sequence[bytes]) -> list[bytes]:
        found: list[bytes] = []
        for start in range(0, len(digests), REFS):
            page = digests[start : start + REFS]
            found += await self._ask(partial(queries.unknown, prefixes=self._prefixes, digests=page))
        return found

    async def _key_id(self, key: bytes) -> int | None:
        return await self._ask(lambda db: queries.key_id(db, self._prefixes, key))

    async def _after(self, key_id: int, count: int) -> Place | None:
        """The place of the last of the first so many versions; None when there are fewer."""
        place: Place | None = BEGIN
        while count and place is not None:
            step = min(STEP, count)
            place = await self._skip(key_id, place, step)
            count -= step
        return place

    async def _skip(self, key_id: int, begin: Place, count: int) -> Place | None:
        return await self._ask(lambda db: queries.skip(db, key_id, begin, count))

    async def _page(self, key_id: int, beyond: Place, limit: int) -> list[Version]:
        return await self._ask(lambda db: queries.versions(db, key_id, beyond, limit))

    async def _walked(
        self, key_id: int, beyond: Place | None, is_backwards: bool, limit: int
    ) -> list[queries.WalkedVersion]:
        return await self._ask(lambda db: queries.walk(db, key_id, beyond, is_backwards, limit))


def _place(version: Version | VersionRef) -> Place:
    return min(version.version, 2 * SIGN - 1) - SIGN, version.author, version.digest
