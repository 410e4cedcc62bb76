"""Cache with invalidation: bounded, with a time to live, and never with a value from before the last change of its key.

An entry is one part of a key (its head, a temporal part, a version) with the time `since` when its value is known to be
right. A caller that loads a value calls `begin` first and `keep` last. When the key was dropped in between, the value
is not kept, so a slow load never restores a value that a change has invalidated. So no entry is older than the last
`drop` of its key.

The least recently used entry is evicted first. Times are seconds on one clock that never goes back.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from math import inf
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCounts:
    """Outcomes of lookups, each counted once, and the fate of entries."""

    hits: int = 0
    misses: int = 0
    expired: int = 0
    """Lookups that found an entry that was too old."""
    coalesced: int = 0
    """Lookups without an entry that joined a load already under way."""
    invalidated: int = 0
    """Entries that were dropped because their key, or a rule, changed."""
    evicted: int = 0
    """Entries that were removed to make room."""
    entries: int = 0
    size_bytes: int = 0


class CacheHit(NamedTuple, Generic[V]):
    value: V
    age_seconds: float


class CacheLoad:
    """One load under way. Stale: its key was dropped since the load began."""

    __slots__ = ("is_stale", "key")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.is_stale = False


class _Entry(NamedTuple, Generic[V]):
    value: V
    since: float
    until: float
    size_bytes: int


class Cache(Generic[V]):
    """At most `entries_max` entries, of at most `bytes_max` bytes in all; `keep` states the size of each."""

    def __init__(self, *, entries_max: int, bytes_max: int) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._entries: OrderedDict[tuple[bytes, Hashable], _Entry[V]] = OrderedDict()
        self._parts: dict[bytes, dict[Hashable, None]] = {}
        """The parts of each key that have an entry."""
        self._loads: dict[bytes, list[CacheLoad]] = {}
        self._hits = self._misses = self._expired = self._invalidated = self._evicted = 0
        self.coalesced = 0
        """Counted by the code that lets callers share a load."""
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def counts(self) -> CacheCounts:
        return CacheCounts(
            hits=self._hits, misses=self._misses, expired=self._expired, coalesced=self.coalesced,
            invalidated=self._invalidated, evicted=self._evicted, entries=len(self), size_bytes=self.size_bytes,
        )  # fmt: skip

    # -- lookups ----------------------------------------------------------------------------------------------

    def peek(
        self, key: bytes, part: Hashable, *, now: float, since: float = -inf, age_max: float = inf
    ) -> CacheHit[V] | None:
        """The value of an entry that is not over and not older than `age_max` seconds. Only a hit is counted.

        `since`: a time at which the caller knows that every entry of this key was right; the later of it and the time
        in the entry counts.
        """
        entry = self._entries.get((key, part))
        if entry is None:
            return None
        age = max(0.0, now - max(entry.since, since))
        if now >= entry.until or age > age_max:
            return None
        self._entries.move_to_end((key, part))
        self._hits += 1
        return CacheHit(entry.value, age)

    def missed(self, key: bytes, part: Hashable) -> None:
        """Count a lookup for which `peek` had nothing, and remove an entry that was too old."""
        if (key, part) in self._entries:
            self._remove(key, part)
            self._expired += 1
        else:
            self._misses += 1

    # -- loads ------------------------------------------------------------------------------------------------

    def begin(self, key: bytes) -> CacheLoad:
        """A load begins. `keep` or `give_up` must follow, whatever its outcome."""
        load = CacheLoad(key)
        self._loads.setdefault(key, []).append(load)
        return load

    def keep(self, load: CacheLoad, part: Hashable, value: V, *, since: float, until: float, size_bytes: int) -> bool:
        """The load is over: keep its value, which was right at `since`, until `until`.

        False when it is not kept: the key was dropped meanwhile, or the value is too large.
        """
        self.give_up(load)
        if load.is_stale or size_bytes > self._bytes_max or self._entries_max < 1:
            return False
        key = load.key
        if (key, part) in self._entries:
            self._remove(key, part)
        self._entries[key, part] = _Entry(value, since, until, size_bytes)
        self._parts.setdefault(key, {})[part] = None
        self.size_bytes += size_bytes
        while self.size_bytes > self._bytes_max or len(self._entries) > self._entries_max:
            self._remove(*next(iter(self._entries)))
            self._evicted += 1
        return True

    def give_up(self, load: CacheLoad) -> None:
        """The load is over, and there is no value to keep."""
        loads = self._loads.get(load.key, [])
        if load in loads:
            loads.remove(load)
            if not loads:
                del self._loads[load.key]

    # -- invalidation -----------------------------------------------------------------------------------------

    def drop(self, key: bytes) -> None:
        """The key changed: remove its entries, and let loads under way keep nothing. Fast for a key without entries."""
        if key in self._loads:
            for load in self._loads[key]:
                load.is_stale = True
        if key in self._parts:
            for part in tuple(self._parts[key]):
                self._remove(key, part)
                self._invalidated += 1

    def clear(self) -> None:
        """Drop every key."""
        for key in [*self._loads, *self._parts]:
            self.drop(key)

    def _remove(self, key: bytes, part: Hashable) -> None:
        self.size_bytes -= self._entries.pop((key, part)).size_bytes
        parts = self._parts[key]
        del parts[part]
        if not parts:
            del self._parts[key]
