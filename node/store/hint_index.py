"""Debts: which holder is owed which local writes, exactly, in memory, at about a bit each.

Both stores keep one, so both count alike. It knows holders and sequences only; what a hint says beyond that (digest,
attempts, last refusal) is the store's. A debt is due, parked until a moment, or refused (in quarantine). A swarm that
is gone for days leaves millions of debts: due ones are bits in chunks, so a million of them take some hundred
kilobytes; a parked one takes about 200 bytes, which is why parking is for refusals and not for silence.
"""

from collections.abc import Iterator
from heapq import heappop, heappush

CHUNK_BITS = 4096


class SequenceSet:
    """A set of sequences, read in ascending order."""

    __slots__ = ("_chunks", "_count")

    def __init__(self) -> None:
        self._chunks: dict[int, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, sequence: int) -> bool:
        return bool(self._chunks.get(sequence // CHUNK_BITS, 0) >> sequence % CHUNK_BITS & 1)

    def add(self, sequence: int) -> bool:
        """Put it in; False when it was there."""
        chunk, bit = sequence // CHUNK_BITS, 1 << sequence % CHUNK_BITS
        bits = self._chunks.get(chunk, 0)
        if bits & bit:
            return False
        self._chunks[chunk] = bits | bit
        self._count += 1
        return True

    def discard(self, sequence: int) -> bool:
        """Take it out; False when it was not there."""
        chunk, bit = sequence // CHUNK_BITS, 1 << sequence % CHUNK_BITS
        bits = self._chunks.get(chunk, 0)
        if not bits & bit:
            return False
        if bits == bit:
            del self._chunks[chunk]
        else:
            self._chunks[chunk] = bits ^ bit
        self._count -= 1
        return True

    def first(self) -> int | None:
        """The lowest one."""
        if not self._chunks:
            return None
        chunk = min(self._chunks)
        return chunk * CHUNK_BITS + _lowest_bit(self._chunks[chunk])

    def after(self, sequence: int) -> Iterator[int]:
        """Those above that one, ascending. Take what is needed before anything is changed."""
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
        """Unite them with those there, chunk by chunk."""
        for chunk, bits in self._chunks.items():
            bits_by_chunk[chunk] = bits_by_chunk.get(chunk, 0) | bits


class HolderHints:
    """What one holder is owed."""

    __slots__ = ("_due_at", "_queue", "due", "parked", "refused")

    def __init__(self) -> None:
        self.due = SequenceSet()
        self.parked = SequenceSet()
        self.refused = SequenceSet()
        self._due_at: dict[int, int] = {}
        self._queue: list[tuple[int, int]] = []
        """When each parked one is due, the earliest first; an entry that `_due_at` contradicts is passed over."""

    def __len__(self) -> int:
        """How many are to be paid, now or later."""
        return len(self.due) + len(self.parked)

    def __contains__(self, sequence: int) -> bool:
        return (
            sequence in self.due
            or (len(self.parked) > 0 and sequence in self.parked)
            or (len(self.refused) > 0 and sequence in self.refused)
        )

    def remove(self, sequence: int) -> bool:
        if self.parked.discard(sequence):
            del self._due_at[sequence]
            return True
        return self.due.discard(sequence) or self.refused.discard(sequence)

    def park(self, sequence: int, next_try_ms: int) -> None:
        self.parked.add(sequence)
        self._due_at[sequence] = next_try_ms
        heappush(self._queue, (next_try_ms, sequence))

    def next_due(self) -> int | None:
        if self.due:
            return 0
        queue = self._queue
        while queue and self._due_at.get(queue[0][1]) != queue[0][0]:
            heappop(queue)
        return queue[0][0] if queue else None

    def wake(self, now_ms: int) -> None:
        """What was parked until now or earlier is due."""
        queue = self._queue
        while queue and queue[0][0] <= now_ms:
            next_try_ms, sequence = heappop(queue)
            if self._due_at.get(sequence) == next_try_ms:
                self.remove(sequence)
                self.due.add(sequence)

    def first(self) -> int | None:
        """The lowest that is to be paid."""
        return min((first for first in (self.due.first(), self.parked.first()) if first is not None), default=None)


class HintIndex:
    """All of them. Holders are peer ids."""

    def __init__(self) -> None:
        self._debts: dict[str, HolderHints] = {}
        self.refused = 0
        """How many are in quarantine."""

    def add(self, holder: str, sequence: int, *, next_try_ms: int = 0, is_refused: bool = False) -> bool:
        """A holder is owed a write; False when it is already."""
        debt = self._debts.get(holder)
        if debt is None:
            debt = self._debts[holder] = HolderHints()
        elif sequence in debt:
            return False
        if not is_refused and not next_try_ms:
            debt.due.add(sequence)
        elif is_refused:
            debt.refused.add(sequence)
            self.refused += 1
        else:
            debt.park(sequence, next_try_ms)
        return True

    def owes(self, holder: str, sequence: int) -> bool:
        """Whether it is owed, in quarantine or not."""
        debt = self._debts.get(holder)
        return debt is not None and sequence in debt

    def is_payable(self, holder: str, sequence: int) -> bool:
        """Whether it is owed and not in quarantine."""
        debt = self._debts.get(holder)
        return debt is not None and (sequence in debt.due or sequence in debt.parked)

    def is_due(self, holder: str, sequence: int) -> bool:
        """Whether it is to be paid and not parked (as far as `pick` has been told how late it is)."""
        debt = self._debts.get(holder)
        return debt is not None and sequence in debt.due

    def is_refused(self, holder: str, sequence: int) -> bool:
        debt = self._debts.get(holder)
        return debt is not None and sequence in debt.refused

    def remove(self, holder: str, sequence: int) -> bool:
        """It is owed no longer; False when it was not."""
        debt = self._debts.get(holder)
        if debt is None:
            return False
        refused = len(debt.refused)
        was_there = debt.remove(sequence)
        self.refused -= refused - len(debt.refused)
        self._tidy(holder, debt)
        return was_there

    def remove_all(self, sequence: int) -> list[str]:
        """Nobody is owed this write any longer; answers who was."""
        return [holder for holder in sorted(self._debts) if self.remove(holder, sequence)]

    def park(self, holder: str, sequence: int, next_try_ms: int) -> bool:
        """It is due then; False when it is not to be paid at all."""
        if not self.is_payable(holder, sequence):
            return False
        debt = self._debts[holder]
        debt.remove(sequence)
        debt.park(sequence, next_try_ms)
        return True

    def refuse(self, holder: str, sequence: int) -> bool:
        """Into quarantine; False when it is not to be paid at all."""
        if not self.is_payable(holder, sequence):
            return False
        debt = self._debts[holder]
        debt.remove(sequence)
        debt.refused.add(sequence)
        self.refused += 1
        return True

    def retry_quarantined(self) -> list[tuple[str, int]]:
        """Everything in quarantine is due; answers what was."""
        found = self.quarantined()
        for holder, sequence in found:
            debt = self._debts[holder]
            debt.refused.discard(sequence)
            debt.due.add(sequence)
        self.refused = 0
        return found

    def quarantined(self) -> list[tuple[str, int]]:
        return [(holder, each) for holder in sorted(self._debts) for each in self._debts[holder].refused.after(0)]

    def release(self, holder: str) -> list[int]:
        """A holder is owed nothing any longer; answers what it was, ascending."""
        debt = self._debts.pop(holder, None)
        if debt is None:
            return []
        self.refused -= len(debt.refused)
        return sorted([*debt.due.after(0), *debt.parked.after(0), *debt.refused.after(0)])

    # -- questions --------------------------------------------------------------------------------------------

    def holders_of(self, sequence: int) -> list[str]:
        """Who is owed this write, those included that refused it for good."""
        return [holder for holder, debt in self._debts.items() if sequence in debt]

    def pick(self, holder: str, *, after: int, limit: int, now_ms: int) -> list[int]:
        """What is due to a holder, ascending, above that sequence."""
        debt = self._debts.get(holder)
        if debt is None:
            return []
        debt.wake(now_ms)
        picked: list[int] = []
        for sequence in debt.due.after(after):
            if len(picked) >= limit:
                break
            picked.append(sequence)
        return picked

    def next_due(self, holder: str) -> int | None:
        debt = self._debts.get(holder)
        return debt.next_due() if debt is not None else None

    def hint_counts(self) -> dict[str, int]:
        """How many each holder is to be paid, by holder."""
        return {holder: count for holder in sorted(self._debts) if (count := len(self._debts[holder]))}

    def count(self) -> int:
        """How many are to be paid."""
        return sum(map(len, self._debts.values()))

    def writes(self) -> int:
        """How many writes are to be paid to at least one holder. A million of them take a millisecond."""
        bits_by_chunk: dict[int, int] = {}
        for debt in self._debts.values():
            debt.due.add_to(bits_by_chunk)
            debt.parked.add_to(bits_by_chunk)
        return sum(bits.bit_count() for bits in bits_by_chunk.values())

    def oldest(self) -> int | None:
        """The lowest sequence that is to be paid to anybody."""
        return min((first for debt in self._debts.values() if (first := debt.first()) is not None), default=None)

    def listed(self, *, is_refused: bool | None, limit: int) -> list[tuple[int, str]]:
        """The lowest (sequence, holder), to be paid, in quarantine, or both (None)."""
        found: list[tuple[int, str]] = []
        for holder, debt in self._debts.items():
            mine: list[int] = []
            if is_refused is not True:
                mine += [*_first_of(debt.due, limit), *_first_of(debt.parked, limit)]
            if is_refused is not False:
                mine += _first_of(debt.refused, limit)
            found += [(sequence, holder) for sequence in mine]
        return sorted(found)[:limit]

    def _tidy(self, holder: str, debt: HolderHints) -> None:
        if not debt.due and not debt.parked and not debt.refused:
            del self._debts[holder]


def _lowest_bit(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _first_of(sequences: SequenceSet, limit: int) -> list[int]:
    return [sequence for sequence, _ in zip(sequences.after(0), range(limit), strict=False)]
