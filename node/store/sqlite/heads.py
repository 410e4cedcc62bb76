"""The heads of the SQLite store: from memory for the keys that were used last, else from the disk."""

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from node.store.change_listeners import ChangeListeners
from node.store.sqlite import heads_cache, queries
from node.store.sqlite.heads_cache import FoundHeads, HeadLoads, Heads, HeadsCache
from node.store.sqlite.history import Ask
from node.store.sqlite.merge import MergeOutcome
from node.store.sqlite.prefix_index import PrefixIndexes
from protocols.envelope import Envelope, Notice

TRIES: Final = 3
"""After so many reads during which the heads changed, the changes are applied to what was read."""


class SqliteHeads:
    """`publish` and `drop` are called on the trio thread after a commit; `change_listeners` learn of it there."""

    def __init__(self, cache_bytes: int) -> None:
        self.cache = HeadsCache(cache_bytes)
        self.change_listeners = ChangeListeners()
        self._loads = HeadLoads()

    def publish(self, item: Envelope | Notice, outcome: MergeOutcome) -> None:
        """A version came."""
        self._loads.mark_changed(item, is_head=outcome.is_head, superseded=outcome.superseded)
        if outcome.is_first:
            self.cache.put_first(item)
        else:
            self.cache.add(item, is_head=outcome.is_head, superseded=outcome.superseded)
        self.change_listeners.notify(item.key)

    def drop(self, key: bytes) -> None:
        """The heads of a key, or their content, are to be read again."""
        self._loads.mark_stale(key)
        self.cache.drop(key)
        self.change_listeners.notify(key)

    async def load(self, key: bytes, read: Callable[[], Awaitable[FoundHeads]]) -> Heads:
        """Read the heads of a key that are not in memory, until they did not change meanwhile.

        Thousands of them may change faster than they are read. Then what changed meanwhile is made good in memory.
        """
        tries = 0
        while True:
            load = self._loads.begin(key)
            try:
                found = await read()
            finally:
                self._loads.end(key, load)
            tries += 1
            if not load.is_stale:
                return self.cache.put(key, found)
            if (cached := self.cache.get(key)) is not None:
                return cached
            if tries >= TRIES and load.changes is not None:
                now = self.cache.put_changed(key, found, load.changes)
                if now is not None:
                    return now


async def read_heads(ask: Ask, prefixes: PrefixIndexes, key: bytes) -> FoundHeads:
    """The latest heads of a key, read from the disk; many of them in short queries, so that other reads get their
    turn."""
    heads = await ask(lambda db: queries.heads(db, prefixes, key))
    return FoundHeads(heads, is_cut=False) if heads is not None else await _read_many(ask, prefixes, key)


async def _read_many(ask: Ask, prefixes: PrefixIndexes, key: bytes) -> FoundHeads:
    rows: list[queries.HeadRow] = []
    after, is_cut, limit = 0, False, queries.HEAD_ROWS_AT_ONCE
    while True:  # until a page is not full: there may be new ones for as long as it is read
        page = await ask(partial(_rows_after, prefixes=prefixes, key=key, after=after, limit=limit))
        rows = sorted(rows + page, reverse=True)
        is_cut = is_cut or len(rows) > heads_cache.KEPT_MAX
        rows = rows[: heads_cache.KEPT_MAX]
        if len(page) < limit:
            break
        after = page[-1].sequence
    found: list[Envelope | Notice] = []
    for number, sequences in enumerate(queries.by_content_read(rows)):
        for start in range(0, len(sequences), queries.HEADS_AT_ONCE):
            part = sequences[start : start + queries.HEADS_AT_ONCE]
            with_content, without = ([], part) if number else (part, [])
            found += await ask(partial(queries.head_items, with_content=with_content, without=without))
    return FoundHeads(tuple(found), is_cut)


def _rows_after(
    db: sqlite3.Connection, *, prefixes: PrefixIndexes, key: bytes, after: int, limit: int
) -> list[queries.HeadRow]:
    return queries.head_rows(db, prefixes, key, after, limit)
