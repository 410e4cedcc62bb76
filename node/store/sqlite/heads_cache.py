"""Cache of heads: those of the keys that were used last, as many as fit.

It holds committed heads only. The heads of another key are read from the disk; `HeadLoads` makes sure that they are
not put in here when the key has changed in the meantime.
"""

from collections import OrderedDict
from collections.abc import Sequence
from math import inf
from typing import Final, NamedTuple

from protocols.envelope import Envelope, Notice, order_key

Heads = tuple[Envelope | Notice, ...]

KEY_BYTES: Final = 400
"""Estimated cost of a key, without its envelopes."""
HEAD_BYTES: Final = 1200
"""Estimated cost of a version, without the bytes of its header and its content."""


class HeadsCache:
    """Heads by key, the latest first. `bytes_max` limits its estimated size in memory."""

    def __init__(self, bytes_max: float) -> None:
        self._bytes_max = bytes_max
        # A list is what changed since it was last asked for: there may be thousands of heads, and a tuple of them all
        # for each change would take long.
        self._heads: OrderedDict[bytes, Heads | list[Envelope | Notice]] = OrderedDict()
        self._by_digest: dict[bytes, Envelope | Notice] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._heads)

    def get(self, key: bytes) -> Heads | None:
        heads = self._heads.get(key)
        if heads is None:
            return None
        self._heads.move_to_end(key)
        if isinstance(heads, list):
            heads = self._heads[key] = tuple(heads)
        return heads

    def by_digest(self, digest: bytes) -> Envelope | Notice | None:
        """A head by its digest."""
        return self._by_digest.get(digest)

    def put(self, key: bytes, heads: Heads) -> None:
        if key in self._heads:
            self.drop(key)
        self._heads[key] = heads
        self.size_bytes += KEY_BYTES
        for head in heads:
            self._count(head)
        self._evict()

    def add(self, item: Envelope | Notice, *, is_head: bool, superseded: tuple[bytes, ...]) -> None:
        """A version came; the heads of its key change, if they are here."""
        heads = self._heads.get(item.key)
        if heads is None:
            return
        changed = heads if isinstance(heads, list) else list(heads)
        for digest in {item.digest, *superseded}:
            ended = self._by_digest.get(digest)
            place = len(changed) if ended is None else _place(changed, ended)
            if place < len(changed) and changed[place].digest == digest:
                self._uncount(changed.pop(place))
        if is_head:
            changed.insert(_place(changed, item), item)
            self._count(item)
        self._heads[item.key] = changed
        self._heads.move_to_end(item.key)
        self._evict()

    def put_changed(self, key: bytes, heads: Heads, changes: Sequence["HeadChange"]) -> Heads:
        """Put heads with what changed since they were read; return what they are now, whether they fit or not."""
        whole = HeadsCache(inf)
        whole.put(key, heads)
        for change in changes:
            whole.add(change.item, is_head=change.is_head, superseded=change.superseded)
        now = whole.get(key) or heads
        self.put(key, now)
        return now

    def drop(self, key: bytes) -> None:
        heads = self._heads.pop(key, None)
        if heads is not None:
            self._uncount_all(heads)

    def _evict(self) -> None:
        while self.size_bytes > self._bytes_max:
            _, heads = self._heads.popitem(last=False)
            self._uncount_all(heads)

    def _uncount_all(self, heads: Sequence[Envelope | Notice]) -> None:
        self.size_bytes -= KEY_BYTES
        for head in heads:
            self._uncount(head)

    def _count(self, head: Envelope | Notice) -> None:
        self.size_bytes += _cost(head)
        self._by_digest[head.digest] = head

    def _uncount(self, head: Envelope | Notice) -> None:
        self.size_bytes -= _cost(head)
        if self._by_digest.get(head.digest) is head:
            del self._by_digest[head.digest]


def _place(heads: Sequence[Envelope | Notice], item: Envelope | Notice) -> int:
    """Where an item is, or belongs, among heads of which the latest is the first."""
    low, high, order = 0, len(heads), order_key(item)
    while low < high:
        middle = (low + high) // 2
        if order_key(heads[middle]) > order:
            low = middle + 1
        else:
            high = middle
    return low


def _cost(head: Envelope | Notice) -> int:
    return HEAD_BYTES + len(head.header) + (len(head.content) if isinstance(head, Envelope) else 0)


class HeadChange(NamedTuple):
    """A version that came, whether it is a head, and the heads that it ended."""

    item: Envelope | Notice
    is_head: bool
    superseded: tuple[bytes, ...]


class HeadLoad:
    """One read of a key's heads from the disk."""

    __slots__ = ("changes", "is_stale")

    def __init__(self) -> None:
        self.is_stale = False
        """The key has changed since the read began."""
        self.changes: list[HeadChange] | None = []
        """How it changed; None when only another read can tell."""


class HeadLoads:
    """The reads that are under way, by key."""

    def __init__(self) -> None:
        self._loads: dict[bytes, list[HeadLoad]] = {}

    def begin(self, key: bytes) -> HeadLoad:
        load = HeadLoad()
        self._loads.setdefault(key, []).append(load)
        return load

    def end(self, key: bytes, load: HeadLoad) -> None:
        loads = self._loads[key]
        loads.remove(load)
        if not loads:
            del self._loads[key]

    def mark_changed(self, item: Envelope | Notice, *, is_head: bool, superseded: tuple[bytes, ...]) -> None:
        """A version of a key came."""
        for load in self._loads.get(item.key, ()):
            load.is_stale = True
            if load.changes is not None:
                load.changes.append(HeadChange(item, is_head, superseded))

    def mark_stale(self, key: bytes) -> None:
        """The heads of a key, or their content, changed in another way."""
        for load in self._loads.get(key, ()):
            load.is_stale, load.changes = True, None
