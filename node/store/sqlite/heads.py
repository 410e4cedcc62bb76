"""The heads of the SQLite store: from memory for the keys that were used last, else from the disk."""

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from node.store.change_listeners import ChangeListeners
from node.store.sqlite import queries
from node.store.sqlite.heads_cache import HeadLoads, Heads, HeadsCache
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
            self.cache.put(item.key, (item,))
        else:
            self.cache.add(item, is_head=outcome.is_head, superseded=outcome.superseded)
        self.change_listeners.notify(item.key)

    def drop(self, key: bytes) -> None:
        """The heads of a key, or their content, are to be read again."""
        self._loads.mark_stale(key)
        self.cache.drop(key)
        self.change_listeners.notify(key)

    async def load(self, key: bytes, read: Callable[[], Awaitable[Heads]]) -> Heads:
        """Read the heads of a key that are not in memory, until they did not change meanwhile.

        Thousands of them may change faster than they are read. Then what changed meanwhile is made good in memory.
        """
        tries = 0
        while True:
            load = self._loads.begin(key)
            try:
                heads = await read()
            finally:
                self._loads.end(key, load)
            tries += 1
            if not load.is_stale:
                self.cache.put(key, heads)
                return heads
            if (cached := self.cache.get(key)) is not None:
                return cached
            if tries >= TRIES and load.changes is not None:
                return self.cache.put_changed(key, heads, load.changes)


async def read_heads(ask: Ask, prefixes: PrefixIndexes, key: bytes) -> Heads:
    """The heads of a key, read from the disk; many of them in short queries, so that other reads get their turn."""
    heads = await ask(lambda db: queries.heads(db, prefixes, key))
    return heads if heads is not None else await _read_many(ask, prefixes, key)


async def _read_many(ask: Ask, prefixes: PrefixIndexes, key: bytes) -> Heads:
    rows: list[queries.HeadRow] = []

    def next_rows(db: sqlite3.Connection) -> list[queries.HeadRow]:
        after = rows[-1].sequence if rows else 0
        return queries.head_rows(db, prefixes, key, after, queries.HEAD_ROWS_AT_ONCE)

    while True:  # until a page is not full: there may be new ones for as long as it is read
        page = await ask(next_rows)
        rows += page
        if len(page) < queries.HEAD_ROWS_AT_ONCE:
            break
    found: list[Envelope | Notice] = []
    for number, sequences in enumerate(queries.by_content_read(rows)):
        for start in range(0, len(sequences), queries.HEADS_AT_ONCE):
            part = sequences[start : start + queries.HEADS_AT_ONCE]
            with_content, without = ([], part) if number else (part, [])
            found += await ask(partial(queries.head_items, with_content=with_content, without=without))
    return tuple(found)
