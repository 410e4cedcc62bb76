"""Cache of heads: those of the keys that were used last, as many as fit.

It holds committed heads only. The heads of another key are read from the disk; `HeadLoads` makes sure that they are
not put in here when the key has changed in the meantime.
"""

from collections import OrderedDict
from collections.abc import Sequence
from math import inf
from typing import Final, NamedTuple

from node.store.versions import HEADS_MAX
from protocols.envelope import Envelope, Notice, order_key

Heads = tuple[Envelope | Notice, ...]

KEY_BYTES: Final = 400
"""Estimated cost of a key, without its envelopes."""
HEAD_BYTES: Final = 1200
"""Estimated cost of a version, without the bytes of its header and its content."""


KEPT_MAX: Final = 2 * HEADS_MAX
"""Heads of a key in memory. They are read again once so many were ended that fewer than `HEADS_MAX` are left."""


class FoundHeads(NamedTuple):
    """Heads that were read, the latest first; `is_cut` says that there are earlier ones on the disk."""

    heads: Heads
    is_cut: bool


class _ManyHeads:
    """Heads that changed since they were last asked for, or that are more than are answered.

    There may be thousands, and a tuple of them all for each change would take long.
    """

    __slots__ = ("answered", "heads", "is_cut")

    def __init__(self, heads: Heads, *, is_cut: bool) -> None:
        self.heads = list(heads)
        self.is_cut = is_cut
        """There are earlier heads on the disk."""
        self.answered: Heads | None = None
        """Those that are answered, while nothing changes."""


class HeadsCache:
    """Heads by key, the latest first. `bytes_max` limits its estimated size in memory."""

    def __init__(self, bytes_max: float) -> None:
        self._bytes_max = bytes_max
        self._heads: OrderedDict[bytes, Heads | _ManyHeads] = OrderedDict()
        self._by_digest: dict[bytes, Envelope | Notice] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._heads)

    def get(self, key: bytes) -> Heads | None:
        """The latest `HEADS_MAX` heads of a key: the same tuple until they change."""
        heads = self._heads.get(key)
        if heads is None:
            return None
        self._heads.move_to_end(key)
        return self._answered(key, heads) if isinstance(heads, _ManyHeads) else heads

    def _answered(self, key: bytes, many: _ManyHeads) -> Heads:
        if many.answered is None:
            many.answered = tuple(many.heads[:HEADS_MAX])
            if len(many.heads) <= HEADS_MAX and not many.is_cut:
                self._heads[key] = many.answered
        return many.answered

    def by_digest(self, digest: bytes) -> Envelope | Notice | None:
        """A head by its digest."""
        return self._by_digest.get(digest)

    def put(self, key: bytes, found: FoundHeads) -> Heads:
        """Put what was read; return the heads to answer, whether they fit or not."""
        if key in self._heads:
            self.drop(key)
        heads, is_cut = found
        is_plain = not is_cut and len(heads) <= HEADS_MAX
        self._heads[key] = heads if is_plain else _ManyHeads(heads, is_cut=is_cut)
        self.size_bytes += KEY_BYTES
        for head in heads:
            self._count(head)
        answered = self.get(key) or heads
        self._evict()
        return answered

    def put_first(self, item: Envelope | Notice) -> None:
        """The first version of a key came."""
        self._heads[item.key] = (item,)
        self.size_bytes += KEY_BYTES
        self._count(item)
        self._evict()

    def add(self, item: Envelope | Notice, *, is_head: bool, superseded: tuple[bytes, ...]) -> None:
        """A version came; the heads of its key change, if they are here."""
        heads = self._heads.get(item.key)
        if heads is None:
            return
        many = heads if isinstance(heads, _ManyHeads) else _ManyHeads(heads, is_cut=False)
        kept, many.answered = many.heads, None
        for digest in {item.digest, *superseded}:
            ended = self._by_digest.get(digest)
            place = len(kept) if ended is None else _place(kept, ended)
            if place < len(kept) and kept[place].digest == digest:
                self._uncount(kept.pop(place))
        if is_head:
            place = _place(kept, item)
            if place < len(kept) or not many.is_cut:  # else it is earlier than all that are here
                kept.insert(place, item)
                self._count(item)
        self._heads[item.key] = many
        self._heads.move_to_end(item.key)
        if many.is_cut and len(kept) < HEADS_MAX:
            self.drop(item.key)
        self._shorten(many)
        self._evict()

    def _shorten(self, many: _ManyHeads) -> None:
        while len(many.heads) > KEPT_MAX:
            self._uncount(many.heads.pop())
            many.is_cut = True

    def put_changed(self, key: bytes, found: FoundHeads, changes: Sequence["HeadChange"]) -> Heads | None:
        """Put heads with what changed since they were read; return those to answer now, or None when so many were ended
        that the others have to be read."""
        whole = HeadsCache(inf)
        whole.put(key, found)
        for change in changes:
            whole.add(change.item, is_head=change.is_head, superseded=change.superseded)
        now = whole._heads.get(key)
        if now is None:
            return None
        if isinstance(now, _ManyHeads):
            return self.put(key, FoundHeads(tuple(now.heads), now.is_cut))
        return self.put(key, FoundHeads(now, is_cut=False))

    def drop(self, key: bytes) -> None:
        heads = self._heads.pop(key, None)
        if heads is not None:
            self._uncount_all(heads)

    def _evict(self) -> None:
        while self.size_bytes > self._bytes_max:
            _, heads = self._heads.popitem(last=False)
            self._uncount_all(heads)

    def _uncount_all(self, heads: Heads | _ManyHeads) -> None:
        self.size_bytes -= KEY_BYTES
        for head in heads.heads if isinstance(heads, _ManyHeads) else heads:
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
