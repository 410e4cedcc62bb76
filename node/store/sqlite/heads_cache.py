"""Cache of heads: those of the keys that were used last, as many as fit.

It holds committed heads only. The heads of another key are read from the disk; `HeadLoads` makes sure that they are
not put in here when the key has changed in the meantime.
"""

from collections import OrderedDict
from typing import Final

from protocols.envelope import Envelope, Notice, order_key

Heads = tuple[Envelope | Notice, ...]

KEY_BYTES: Final = 400
"""Estimated cost of a key, without its envelopes."""
HEAD_BYTES: Final = 1200
"""Estimated cost of an envelope, without its encoded bytes and its content, which is held twice."""


class HeadsCache:
    """Heads by key, the latest first. `bytes_max` limits its estimated size in memory."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._heads: OrderedDict[bytes, Heads] = OrderedDict()
        self._keys: dict[bytes, bytes] = {}
        """By the digest of a head."""
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._heads)

    def get(self, key: bytes) -> Heads | None:
        heads = self._heads.get(key)
        if heads is not None:
            self._heads.move_to_end(key)
        return heads

    def by_digest(self, digest: bytes) -> Envelope | Notice | None:
        """A head by its digest."""
        key = self._keys.get(digest)
        heads = self._heads.get(key, ()) if key is not None else ()
        return next((head for head in heads if head.digest == digest), None)

    def put(self, key: bytes, heads: Heads) -> None:
        if key in self._heads:
            self.drop(key)
        self._heads[key] = heads
        for head in heads:
            self._keys[head.digest] = key
        self.size_bytes += _cost(heads)
        while self.size_bytes > self._bytes_max:
            self._uncount(*self._heads.popitem(last=False))

    def add(self, item: Envelope | Notice, *, is_head: bool, superseded: tuple[bytes, ...]) -> None:
        """A version came; the heads of its key change, if they are here."""
        heads = self._heads.get(item.key)
        if heads is None:
            return
        left = [head for head in heads if head.digest not in superseded and head.digest != item.digest]
        if is_head:
            left.append(item)
            left.sort(key=order_key, reverse=True)
        self.put(item.key, tuple(left))

    def drop(self, key: bytes) -> None:
        heads = self._heads.pop(key, None)
        if heads is not None:
            self._uncount(key, heads)

    def _uncount(self, key: bytes, heads: Heads) -> None:
        self.size_bytes -= _cost(heads)
        for head in heads:
            if self._keys.get(head.digest) == key:
                del self._keys[head.digest]


def _cost(heads: Heads) -> int:
    cost = KEY_BYTES
    for head in heads:
        cost += HEAD_BYTES
        if isinstance(head, Envelope):
            cost += len(head.encoded) + len(head.content)
    return cost


class HeadLoad:
    """One read of a key's heads from the disk."""

    __slots__ = ("is_stale",)

    def __init__(self) -> None:
        self.is_stale = False
        """The key has changed since the read began."""


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

    def mark_stale(self, key: bytes) -> None:
        """The heads of a key changed."""
        for load in self._loads.get(key, ()):
            load.is_stale = True
