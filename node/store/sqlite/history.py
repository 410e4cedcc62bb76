"""Histories: the versions of a key, read by number or by place, a page at a time.

An address may have any number of versions, and one query over all of them would keep the reader's thread, and with it
all other reads, for seconds. So each query here takes a few milliseconds at most, and others get their turn between.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from node.store.sqlite import history_queries as queries
from node.store.sqlite.history_blocks import BEGIN, END, Place
from node.store.sqlite.prefix_index import PrefixIndexes
from node.store.sqlite.rows import SIGN
from node.store.versions import Version, VersionRef

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
        def first_page(db: sqlite3.Connection, key_id: int) -> list[Version]:
            place = queries.place_of(db, key_id, after, with_reissued=True) if after else BEGIN
            return queries.versions(db, key_id, place, min(ROWS, limit)) if place is not None else []

        key_id, found = await self._ask_of_key(key, first_page, list[Version]())
        while key_id is not None and ROWS <= len(found) < limit:
            place, rows = _place(found[-1]), min(ROWS, limit - len(found))
            page = await self._ask(partial(queries.versions, key=key_id, beyond=place, limit=rows))
            if not page:
                break
            found += page
        return found

    async def count(self, key: bytes, with_reissued: bool) -> int:
        _, count = await self._ask_of_key(key, partial(queries.count, with_reissued=with_reissued), 0)
        return count

    async def nth(self, key: bytes, number: int, is_backwards: bool) -> VersionRef | None:
        def find(db: sqlite3.Connection, key_id: int) -> Place | None:
            at = queries.count(db, key_id, with_reissued=False) - number if is_backwards else number + 1
            return queries.place_of(db, key_id, at, with_reissued=False) if at > 0 else None

        _, place = await self._ask_of_key(key, find, None)
        return _ref(place) if place is not None else None

    async def latest_held(self, key: bytes) -> VersionRef | None:
        nothing: tuple[Place | None, Place] = (None, BEGIN)
        key_id, (found, until) = await self._ask_of_key(key, partial(queries.latest_held, until=END), nothing)
        while key_id is not None and found is None and until != BEGIN:
            found, until = await self._ask(partial(queries.latest_held, key=key_id, until=until))
        return _ref(found) if found is not None else None

    async def walk(self, key: bytes, beyond: VersionRef | None, is_backwards: bool, limit: int) -> list[VersionRef]:
        def next_page(db: sqlite3.Connection, key_id: int) -> list[queries.WalkedVersion]:
            place = _place(beyond) if beyond is not None else None
            return queries.walk(db, key_id, place, is_backwards, size)

        found: list[VersionRef] = []
        size = min(REFS, limit)
        key_id, page = await self._ask_of_key(key, next_page, list[queries.WalkedVersion]())
        while key_id is not None and page:
            found += [walked.ref for walked in page if not walked.is_reissued]
            beyond, size = page[-1].ref, REFS  # where one version is reissued, many behind it may be
            page = await self._ask(partial(next_page, key_id=key_id)) if len(found) < limit else []
        return found[:limit]

    async def missing_parents(self, key: bytes, limit: int) -> list[bytes]:
        _, found = await self._ask_of_key(key, partial(queries.missing_parents, limit=limit), list[bytes]())
        return found

    async def unknown(self, digests: Sequence[bytes]) -> list[bytes]:
        return await self._by_pages(partial(queries.unknown, prefixes=self._prefixes), digests)

    async def without_content(self, digests: Sequence[bytes]) -> list[bytes]:
        return await self._by_pages(partial(queries.without_content, prefixes=self._prefixes), digests)

    async def _by_pages(self, query: Callable[..., list[bytes]], digests: Sequence[bytes]) -> list[bytes]:
        found: list[bytes] = []
        for start in range(0, len(digests), REFS):
            found += await self._ask(partial(query, digests=digests[start : start + REFS]))
        return found

    async def _ask_of_key(
        self, key: bytes, query: Callable[[sqlite3.Connection, int], T], unknown: T
    ) -> tuple[int | None, T]:
        """The number of a key and the result of a query with it; (None, `unknown`) when no version of it is known."""

        def ask(db: sqlite3.Connection) -> tuple[int | None, T]:
            key_id = queries.key_id(db, self._prefixes, key)
            return (key_id, query(db, key_id)) if key_id is not None else (None, unknown)

        return await self._ask(ask)


def _place(version: Version | VersionRef) -> Place:
    return min(version.version, 2 * SIGN - 1) - SIGN, version.author, version.digest


def _ref(place: Place) -> VersionRef:
    version, author, digest = place
    return VersionRef(version + SIGN, author, digest)
