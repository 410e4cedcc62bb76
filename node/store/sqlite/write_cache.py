"""The local writes of late, in memory: what receipts are built from and what is paid first, without the disk."""

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
        """Holders whose hint has a history of its own, which is in the tables."""

    def hint(self, holder: str) -> Hint | None:
        """The hint as it was made; None when the tables know more of it."""
        if self.tried is not None and holder in self.tried:
            return None
        return Hint(
            holder=holder, sequence=self.sequence, digest=self.digest, key=self.key, address=self.address, attempts=0,
            next_try_ms=0, refusal="", is_refused=False, at_ms=self.at_ms,
        )  # fmt: skip


class WriteCache:
    """The last so many that were made here, by sequence and by digest."""

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

    def drop(self, sequence: int) -> None:
        write = self._writes.pop(sequence, None)
        if write is not None:
            del self._sequences[write.digest]


class _Waiting:
    """Who waits for one write: how many, and for how many acknowledgements at least."""

    __slots__ = ("bell", "count", "least")

    def __init__(self, least: int) -> None:
        self.bell = Signal()
        self.count = 0
        self.least = least


class AcknowledgementSignals:
    """A bell for each write that somebody waits for, until so many have acknowledged it."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def ring(self, sequence: int, acknowledged: int | None = None) -> None:
        """Wake who waits for that write, unless what is known of it now (None: anything) is too little for all."""
        waiting = self._waiting.get(sequence)
        if waiting is not None and (acknowledged is None or acknowledged >= waiting.least):
            del self._waiting[sequence]
            waiting.bell.ring()

    async def listen(self, sequence: int, count: int) -> None:
        """Wait until `count` acknowledgements are known of, or until something else makes it worth looking again."""
        waiting = self._waiting.get(sequence)
        if waiting is None:
            waiting = self._waiting[sequence] = _Waiting(count)
        waiting.least = min(waiting.least, count)
        waiting.count += 1
        try:
            await waiting.bell.listen()
        finally:
            waiting.count -= 1
            if not waiting.count and self._waiting.get(sequence) is waiting:
                del self._waiting[sequence]
