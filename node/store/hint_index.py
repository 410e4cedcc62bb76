"""Index of the hints: which holders need which local writes, in memory, at about one bit per hint.

Both stores use it, so both count alike. It knows holders and sequences only; the other fields of a hint (digest,
attempts, last refusal) are the store's. A hint is due, postponed until a moment, or in quarantine; the first two are
pending. A swarm that is gone for days leaves millions of hints: due ones are bits in chunks, so a million of them take
some hundred kilobytes. A postponed one takes about 200 bytes, so a hint is postponed when its holder refuses, and not
when the holder is silent.
"""

from collections.abc import Iterator
from heapq import heappop, heappush, merge
from itertools import groupby, islice

CHUNK_BITS = 4096


class SequenceSet:
    """A set of sequences, read in ascending order."""

    __slots__ = ("_chunks", "count")

    def __init__(self) -> None:
        self._chunks: dict[int, int] = {}
        self.count = 0

    def __contains__(self, sequence: int) -> bool:
        return bool(self._chunks.get(sequence // CHUNK_BITS, 0) >> sequence % CHUNK_BITS & 1)

    def add(self, sequence: int) -> bool:
        """Add it; False when it was there."""
        chunk, bit = sequence // CHUNK_BITS, 1 << sequence % CHUNK_BITS
        bits = self._chunks.get(chunk, 0)
        if bits & bit:
            return False
        self._chunks[chunk] = bits | bit
        self.count += 1
        return True

    def discard(self, sequence: int) -> bool:
        """Remove it; False when it was not there."""
        chunk, bit = sequence // CHUNK_BITS, 1 << sequence % CHUNK_BITS
        bits = self._chunks.get(chunk, 0)
        if not bits & bit:
            return False
        if bits == bit:
            del self._chunks[chunk]
        else:
            self._chunks[chunk] = bits ^ bit
        self.count -= 1
        return True

    def first(self) -> int | None:
        """The lowest sequence."""
        if not self._chunks:
            return None
        chunk = min(self._chunks)
        return chunk * CHUNK_BITS + _lowest_bit(self._chunks[chunk])

    def after(self, sequence: int) -> Iterator[int]:
        """The sequences above that one, ascending. The set must not change before the iteration is over."""
        start = sequence + 1
        first_chunk = start // CHUNK_BITS
        for chunk in sorted(chunk for chunk in self._chunks if chunk >= first_chunk):
            bits = self._chunks[chunk]
            if chunk == first_chunk:
                bits = bits >> start % CHUNK_BITS << start % CHUNK_BITS
            while bits:
                lowest = bits & -bits
                yield chunk * CHUNK_BITS + lowest.bit_length() - 1
                bits ^= lowest

    def add_to(self, bits_by_chunk: dict[int, int]) -> None:
        """Set this set's bits in `bits_by_chunk`."""
        for chunk, bits in self._chunks.items():
            bits_by_chunk[chunk] = bits_by_chunk.get(chunk, 0) | bits


class HolderHints:
    """The hints for one holder."""

    __slots__ = ("_due_at", "_queue", "due", "postponed", "quarantined")

    def __init__(self) -> None:
        self.due = SequenceSet()
        self.postponed = SequenceSet()
        self.quarantined = SequenceSet()
        self._due_at: dict[int, int] = {}
        self._queue: list[tuple[int, int]] = []
        """(due at, sequence) of the postponed ones, the earliest first; an entry that `_due_at` contradicts is void."""

    @property
    def pending(self) -> int:
        """The number of pending hints."""
        return self.due.count + self.postponed.count

    def __contains__(self, sequence: int) -> bool:
        return sequence in self.due or self._is_later(sequence)

    def _is_later(self, sequence: int) -> bool:
        """Whether it is postponed or in quarantine, which few are."""
        return (self.postponed.count > 0 and sequence in self.postponed) or (
            self.quarantined.count > 0 and sequence in self.quarantined
        )

    def add_due(self, sequence: int) -> bool:
        """Add a hint that is due; False when there is one already."""
        return not self._is_later(sequence) and self.due.add(sequence)

    def remove(self, sequence: int) -> bool:
        if self.postponed.count and self.postponed.discard(sequence):
            del self._due_at[sequence]
            return True
        return self.due.discard(sequence) or self.quarantined.discard(sequence)

    def postpone(self, sequence: int, next_try_ms: int) -> None:
        self.postponed.add(sequence)
        self._due_at[sequence] = next_try_ms
        heappush(self._queue, (next_try_ms, sequence))

    def next_due(self) -> int | None:
        if self.due.count:
            return 0
        queue = self._queue
        while queue and self._due_at.get(queue[0][1]) != queue[0][0]:
            heappop(queue)
        return queue[0][0] if queue else None

    def make_due(self, now_ms: int) -> None:
        """The hints that were postponed until `now_ms` or earlier become due."""
        queue = self._queue
        while queue and queue[0][0] <= now_ms:
            next_try_ms, sequence = heappop(queue)
            if self._due_at.get(sequence) == next_try_ms:
                self.remove(sequence)
                self.due.add(sequence)

    def after(self, sequence: int) -> Iterator[int]:
        """The sequences of all hints above that one, ascending."""
        return merge(self.due.after(sequence), self.postponed.after(sequence), self.quarantined.after(sequence))

    def first_pending(self) -> int | None:
        """The lowest sequence of a pending hint."""
        return min((first for first in (self.due.first(), self.postponed.first()) if first is not None), default=None)


class HintIndex:
    """All hints of a store. Holders are peer ids."""

    def __init__(self) -> None:
        self._holders: dict[str, HolderHints] = {}
        self.quarantined_count = 0

    def add(self, holder: str, sequence: int, *, next_try_ms: int = 0, is_refused: bool = False) -> bool:
        """Add a hint; False when there is one already."""
        hints = self._holders.get(holder)
        if hints is None:
            hints = self._holders[holder] = HolderHints()
        if not is_refused and not next_try_ms:
            return hints.add_due(sequence)
        if sequence in hints:
            return False
        if is_refused:
            hints.quarantined.add(sequence)
            self.quarantined_count += 1
        else:
            hints.postpone(sequence, next_try_ms)
        return True

    def remove(self, holder: str, sequence: int) -> bool:
        """Remove a hint; False when there is none."""
        hints = self._holders.get(holder)
        if hints is None:
            return False
        quarantined = hints.quarantined.count
        was_there = hints.remove(sequence)
        self.quarantined_count -= quarantined - hints.quarantined.count
        if not hints.due.count and not hints.postponed.count and not hints.quarantined.count:
            del self._holders[holder]
        return was_there

    def remove_write(self, sequence: int) -> None:
        """Remove the hints for this write."""
        for holder in list(self._holders):
            self.remove(holder, sequence)

    def postpone(self, holder: str, sequence: int, next_try_ms: int) -> bool:
        """Make a pending hint due at that time; False when there is none."""
        if not self.is_pending(holder, sequence):
            return False
        hints = self._holders[holder]
        hints.remove(sequence)
        hints.postpone(sequence, next_try_ms)
        return True

    def quarantine(self, holder: str, sequence: int) -> bool:
        """Put a pending hint in quarantine; False when there is none."""
        if not self.is_pending(holder, sequence):
            return False
        hints = self._holders[holder]
        hints.remove(sequence)
        hints.quarantined.add(sequence)
        self.quarantined_count += 1
        return True

    def retry_quarantined(self) -> list[tuple[str, int]]:
        """Make every hint in quarantine due; return (holder, sequence) of each."""
        found = [
            (holder, each) for holder in sorted(self._holders) for each in self._holders[holder].quarantined.after(0)
        ]
        for holder, sequence in found:
            hints = self._holders[holder]
            hints.quarantined.discard(sequence)
            hints.due.add(sequence)
        self.quarantined_count = 0
        return found

    def drop_holder(self, holder: str) -> list[int]:
        """Remove every hint for a holder; return their sequences, ascending."""
        hints = self._holders.pop(holder, None)
        if hints is None:
            return []
        self.quarantined_count -= hints.quarantined.count
        return list(hints.after(0))

    # -- questions --------------------------------------------------------------------------------------------

    def has(self, holder: str, sequence: int) -> bool:
        """Whether there is a hint, in quarantine or not."""
        hints = self._holders.get(holder)
        return hints is not None and sequence in hints

    def is_pending(self, holder: str, sequence: int) -> bool:
        """Whether there is a hint that is due or postponed."""
        hints = self._holders.get(holder)
        return hints is not None and (sequence in hints.due or sequence in hints.postponed)

    def is_due(self, holder: str, sequence: int) -> bool:
        """Whether there is a hint that is due at the `now_ms` of the last call of `due`."""
        hints = self._holders.get(holder)
        return hints is not None and sequence in hints.due

    def is_quarantined(self, holder: str, sequence: int) -> bool:
        hints = self._holders.get(holder)
        return hints is not None and sequence in hints.quarantined

    def holders_of(self, sequence: int) -> list[str]:
        """The holders with a hint for this write, in quarantine or not."""
        return [holder for holder, hints in self._holders.items() if sequence in hints]

    def due(self, holder: str, *, after: int, limit: int, now_ms: int) -> list[int]:
        """The sequences of the due hints for a holder, ascending, above `after`."""
        hints = self._holders.get(holder)
        if hints is None:
            return []
        hints.make_due(now_ms)
        found: list[int] = []
        for sequence in hints.due.after(after):
            if len(found) >= limit:
                break
            found.append(sequence)
        return found

    def next_due(self, holder: str) -> int | None:
        """When the next hint for a holder is due, in Unix milliseconds (0: now); None when it has none."""
        hints = self._holders.get(holder)
        return hints.next_due() if hints is not None else None

    def pending_by_holder(self) -> dict[str, int]:
        """The number of pending hints, by holder."""
        return {holder: hints.pending for holder, hints in sorted(self._holders.items()) if hints.pending}

    def total_by_holder(self) -> dict[str, int]:
        """The number of hints, in quarantine or not, by holder."""
        return {holder: hints.pending + hints.quarantined.count for holder, hints in sorted(self._holders.items())}

    def pending_count(self) -> int:
        return sum([hints.pending for hints in self._holders.values()])

    def pending_writes(self) -> int:
        """The number of writes with at least one pending hint. For a million of them this takes a millisecond."""
        bits_by_chunk: dict[int, int] = {}
        for hints in self._holders.values():
            hints.due.add_to(bits_by_chunk)
            hints.postponed.add_to(bits_by_chunk)
        return sum(bits.bit_count() for bits in bits_by_chunk.values())

    def oldest_pending(self) -> int | None:
        """The lowest sequence of a pending hint."""
        firsts = (hints.first_pending() for hints in self._holders.values())
        return min((first for first in firsts if first is not None), default=None)

    def writes(self, *, after: int, limit: int) -> list[int]:
        """The sequences of writes with a hint, in quarantine or not, ascending, above `after`."""
        sequences = merge(*(hints.after(after) for hints in self._holders.values()))
        return [sequence for sequence, _ in islice(groupby(sequences), limit)]

    def oldest(self, *, is_refused: bool | None, limit: int) -> list[tuple[int, str]]:
        """The lowest (sequence, holder) of all hints (None), of the pending ones, or of those in quarantine."""
        found: list[tuple[int, str]] = []
        for holder, hints in self._holders.items():
            sequences: list[int] = []
            if is_refused is not True:
                sequences += [*_first_of(hints.due, limit), *_first_of(hints.postponed, limit)]
            if is_refused is not False:
                sequences += _first_of(hints.quarantined, limit)
            found += [(sequence, holder) for sequence in sequences]
        return sorted(found)[:limit]


def _lowest_bit(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _first_of(sequences: SequenceSet, limit: int) -> list[int]:
    return [sequence for sequence, _ in zip(sequences.after(0), range(limit), strict=False)]
