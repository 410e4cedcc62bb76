"""Cache of the latest local writes, for receipts and for the hints that are delivered first, without the disk."""

from node.store.hints import Hint
from node.store.signal import Signal


class CachedWrite:
    """A local write. `acknowledged` grows at once; the tables follow."""

    __slots__ = ("acknowledged", "address", "at_ms", "digest", "key", "sequence", "tried")

    def __init__(
        self, sequence: int, digest: bytes, key: bytes, address: str, at_ms: int, acknowledged: list[str]
    ) -> None:  # fmt: skip
        self.sequence = sequence
        self.digest = digest
        self.key = key
        self.address = address
        self.at_ms = at_ms
        self.acknowledged = acknowledged
        self.tried: set[str] | None = None
        """Holders whose hint was tried: its attempts and its refusal are in the tables."""

    def hint(self, holder: str) -> Hint | None:
        """The hint as it was made; None when the tables know more of it."""
        if self.tried is not None and holder in self.tried:
            return None
        return Hint(
            holder=holder, sequence=self.sequence, digest=self.digest, key=self.key, address=self.address, attempts=0,
            next_try_ms=0, refusal="", is_refused=False, at_ms=self.at_ms,
        )  # fmt: skip


class WriteCache:
    """The last `count_max` local writes, by sequence and by digest."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._writes: dict[int, CachedWrite] = {}
        self._sequences: dict[bytes, int] = {}
        self._order: list[int] = []
        self._first = 0

    def add(self, write: CachedWrite) -> None:
        if write.sequence not in self._writes:
            self._order.append(write.sequence)
        self._writes[write.sequence] = write
        self._sequences[write.digest] = write.sequence
        while len(self._writes) > self._count_max:
            self.drop(self._order[self._first])
            self._first += 1
            if self._first > self._count_max:
                del self._order[: self._first]
                self._first = 0

    def get(self, sequence: int) -> CachedWrite | None:
        return self._writes.get(sequence)

    def by_digest(self, digest: bytes) -> CachedWrite | None:
        sequence = self._sequences.get(digest)
        return self._writes[sequence] if sequence is not None else None

    def forget_acknowledged(self, holder: str) -> None:
        for write in self._writes.values():
            if holder in write.acknowledged:
                write.acknowledged.remove(holder)

    def drop(self, sequence: int) -> None:
        write = self._writes.pop(sequence, None)
        if write is not None:
            del self._sequences[write.digest]


class _Waiters:
    """The tasks that wait for one write: their number, and the lowest count that one of them waits for."""

    __slots__ = ("count_min", "number", "signal")

    def __init__(self, count_min: int) -> None:
        self.signal = Signal()
        self.number = 0
        self.count_min = count_min


class AcknowledgementSignals:
    """A signal for each write that tasks wait for, until a number of holders have acknowledged it."""

    def __init__(self) -> None:
        self._waiters: dict[int, _Waiters] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def notify(self, sequence: int, acknowledged: int | None = None) -> None:
        """Wake the tasks that wait for this write, unless `acknowledged` is too few for all of them (None: wake)."""
        waiters = self._waiters.get(sequence)
        if waiters is not None and (acknowledged is None or acknowledged >= waiters.count_min):
            del self._waiters[sequence]
            waiters.signal.notify()

    async def wait(self, sequence: int, count: int) -> None:
        """Wait until `count` acknowledgements are known, or another reason to look at the write again."""
        waiters = self._waiters.get(sequence)
        if waiters is None:
            waiters = self._waiters[sequence] = _Waiters(count)
        waiters.count_min = min(waiters.count_min, count)
        waiters.number += 1
        try:
            await waiters.signal.wait()
        finally:
            waiters.number -= 1
            if not waiters.number and self._waiters.get(sequence) is waiters:
                del self._waiters[sequence]
