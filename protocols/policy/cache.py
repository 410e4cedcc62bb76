"""A cache that never outlives what it was made from: bounded, with a time to live, and emptied key by key.

An entry is one part of a key (its head, a temporal part, a version), and `since` when it is known to be right. Whoever
looks something up says so first (`begin`) and hands in what it found last (`keep`): when the key was dropped in
between, nothing is kept, so a slow look-up never puts back what a change has just taken away. With that, what is here
is never older than the last `drop` of its key.

Least recently used goes first. Times are seconds on any one clock that never goes back; they are arguments.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from math import inf
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCounts:
    """What became of the calls that were looked for in a cache, each counted once; and of its entries."""

    hits: int = 0
    misses: int = 0
    expired: int = 0
    """There was an answer, and it was too old."""
    coalesced: int = 0
    """There was none, and somebody else was fetching it already."""
    invalidated: int = 0
    """Entries that were dropped because their key, or the rules, changed."""
    evicted: int = 0
    """Entries that had to make room."""
    entries: int = 0
    size_bytes: int = 0


class CacheHit(NamedTuple, Generic[V]):
    value: V
    age_seconds: float


class CacheLoad:
    """One look-up that is under way. Stale: its key was dropped since it began."""

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
    """At most `entries_max` entries of at most `bytes_max` bytes in all, as whoever puts them in says."""

    def __init__(self, *, entries_max: int, bytes_max: int) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._entries: OrderedDict[tuple[bytes, Hashable], _Entry[V]] = OrderedDict()
        self._parts: dict[bytes, dict[Hashable, None]] = {}
        """Which parts of a key are here."""
        self._readings: dict[bytes, list[CacheLoad]] = {}
        self._hits = self._misses = self._expired = self._invalidated = self._evicted = 0
        self.coalesced = 0
        """Counted by whoever lets callers share a look-up."""
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def counts(self) -> CacheCounts:
        return CacheCounts(
            hits=self._hits, misses=self._misses, expired=self._expired, coalesced=self.coalesced,
            invalidated=self._invalidated, evicted=self._evicted, entries=len(self), size_bytes=self.size_bytes,
        )  # fmt: skip

    # -- looking ----------------------------------------------------------------------------------------------

    def peek(
        self, key: bytes, part: Hashable, *, now: float, since: float = -inf, age_max: float = inf
    ) -> CacheHit[V] | None:
        """What is here, unless its time is over or it is older than `age_max` seconds; nothing is counted but a hit.

        `since`: the caller knows that whatever is here of this key was right at that time, if that is later than what
        the entry says.
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
        """Count a call for which `peek` had nothing, and which is looked up now. What was too old goes."""
        if (key, part) in self._entries:
            self._remove(key, part)
            self._expired += 1
        else:
            self._misses += 1

    # -- keeping ----------------------------------------------------------------------------------------------

    def begin(self, key: bytes) -> CacheLoad:
        """A look-up begins. `keep` or `give_up` must follow, whatever comes of it."""
        reading = CacheLoad(key)
        self._readings.setdefault(key, []).append(reading)
        return reading

    def keep(
        self, reading: CacheLoad, part: Hashable, value: V, *, since: float, until: float, size_bytes: int
    ) -> bool:
        """The look-up is over, and this is what it found, right at `since` and to be kept until `until`.

        False when it is not kept: the key was dropped meanwhile, or it would never fit.
        """
        self.give_up(reading)
        if reading.is_stale or size_bytes > self._bytes_max or self._entries_max < 1:
            return False
        key = reading.key
        if (key, part) in self._entries:
            self._remove(key, part)
        self._entries[key, part] = _Entry(value, since, until, size_bytes)
        self._parts.setdefault(key, {})[part] = None
        self.size_bytes += size_bytes
        while self.size_bytes > self._bytes_max or len(self._entries) > self._entries_max:
            self._remove(*next(iter(self._entries)))
            self._evicted += 1
        return True

    def give_up(self, reading: CacheLoad) -> None:
        """The look-up is over, and nothing is to be kept of it."""
        readings = self._readings.get(reading.key, [])
        if reading in readings:
            readings.remove(reading)
            if not readings:
                del self._readings[reading.key]

    # -- dropping ---------------------------------------------------------------------------------------------

    def drop(self, key: bytes) -> None:
        """The key changed: its entries go, and look-ups that are under way keep nothing. Quick when it is not here."""
        if key in self._readings:
            for reading in self._readings[key]:
                reading.is_stale = True
        if key in self._parts:
            for part in tuple(self._parts[key]):
                self._remove(key, part)
                self._invalidated += 1

    def clear(self) -> None:
        """Drop every key."""
        for key in [*self._readings, *self._parts]:
            self.drop(key)

    def _remove(self, key: bytes, part: Hashable) -> None:
        self.size_bytes -= self._entries.pop((key, part)).size_bytes
        parts = self._parts[key]
        del parts[part]
        if not parts:
            del self._parts[key]
