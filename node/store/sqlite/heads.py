"""The heads of the SQLite store: from memory for the keys that were used last, else from the disk."""

from collections.abc import Awaitable, Callable

from node.store.change_listeners import ChangeListeners
from node.store.sqlite.heads_cache import HeadLoads, Heads, HeadsCache
from node.store.sqlite.merge import MergeOutcome
from protocols.envelope import Envelope, Notice


class SqliteHeads:
    """`publish` and `drop` are called on the trio thread after a commit; `change_listeners` learn of it there."""

    def __init__(self, cache_bytes: int) -> None:
        self.cache = HeadsCache(cache_bytes)
        self.change_listeners = ChangeListeners()
        self._loads = HeadLoads()

    def publish(self, item: Envelope | Notice, outcome: MergeOutcome) -> None:
        """A version came."""
        self._loads.mark_stale(item.key)
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
        """Read the heads of a key that are not in memory, until they did not change meanwhile."""
        while True:
            load = self._loads.begin(key)
            try:
                heads = await read()
            finally:
                self._loads.end(key, load)
            if not load.is_stale:
                self.cache.put(key, heads)
                return heads
            if (cached := self.cache.get(key)) is not None:
                return cached
