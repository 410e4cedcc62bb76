"""The hints and acknowledgements of a memory store's local writes."""

from collections.abc import Iterable

from node.store.hint_index import HintIndex
from node.store.signal import Signal

_UNTRIED = (0, 0, "")


class _Write:
    """A local write with hints or acknowledgements."""

    __slots__ = ("acknowledged", "changed", "tries")

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.tries: dict[str, tuple[int, int, str]] = {}
        """By holder: attempts, next try, last refusal."""
        self.changed = Signal()

    def __deepcopy__(self, memo: dict[int, object]) -> "_Write":
        """Without the tasks that wait for it."""
        write = _Write()
        write.acknowledged, write.tries = list(self.acknowledged), dict(self.tries)
        return write


class HintTable:
    """By sequence of the write. `index` says which hints there are."""

    def __init__(self) -> None:
        self.index = HintIndex()
        self._writes: dict[int, _Write] = {}

    def add_write(self, sequence: int, holders: Iterable[str], acknowledged: Iterable[str]) -> None:
        """Add hints for `holders`, unless they have acknowledged the write."""
        write = self._write(sequence)
        for peer in acknowledged:
            self.index.remove(peer, sequence)
            write.tries.pop(peer, None)
            if peer not in write.acknowledged:
                write.acknowledged.append(peer)
        for holder in holders:
            if holder not in write.acknowledged:
                self.index.add(holder, sequence)
        write.changed.notify()

    def add(self, sequence: int, holder: str) -> bool:
        """Add one hint; False when it exists or the holder has acknowledged the write."""
        return holder not in self._write(sequence).acknowledged and self.index.add(holder, sequence)

    def acknowledge(self, holder: str, sequences: Iterable[int]) -> None:
        for sequence in sequences:
            if self.index.remove(holder, sequence):
                write = self._writes[sequence]
                write.acknowledged.append(holder)
                write.tries.pop(holder, None)
                write.changed.notify()

    def postpone(self, holder: str, sequence: int, next_try_ms: int, refusal: str) -> None:
        if self.index.postpone(holder, sequence, next_try_ms):
            self._count_attempt(holder, sequence, next_try_ms, refusal)

    def quarantine(self, holder: str, sequence: int, refusal: str) -> None:
        if self.index.quarantine(holder, sequence):
            self._count_attempt(holder, sequence, 0, refusal)

    def drop_holder(self, holder: str) -> list[int]:
        """Remove the hints for a holder; return their sequences."""
        dropped = self.index.drop_holder(holder)
        for sequence in dropped:
            self._writes[sequence].tries.pop(holder, None)
        return dropped

    def forget_acknowledged(self, holder: str) -> int:
        """Forget what a holder acknowledged; return how many writes that were."""
        writes = [write for write in self._writes.values() if holder in write.acknowledged]
        for write in writes:
            write.acknowledged.remove(holder)
        return len(writes)

    def drop_write(self, sequence: int) -> None:
        """Remove the hints for a write that was reissued, and wake the tasks that wait for it."""
        self.index.remove_write(sequence)
        if sequence in self._writes:
            self._writes[sequence].changed.notify()

    def tries(self, holder: str, sequence: int) -> tuple[int, int, str]:
        """Attempts, next try and last refusal of a hint."""
        return self._writes[sequence].tries.get(holder, _UNTRIED)

    def acknowledged(self, sequence: int) -> tuple[str, ...]:
        write = self._writes.get(sequence)
        return tuple(write.acknowledged) if write is not None else ()

    async def wait_for_change(self, sequence: int) -> None:
        """Wait until the write's acknowledgements change, or it is reissued."""
        await self._write(sequence).changed.wait()

    def _write(self, sequence: int) -> _Write:
        write = self._writes.get(sequence)
        if write is None:
            write = self._writes[sequence] = _Write()
        return write

    def _count_attempt(self, holder: str, sequence: int, next_try_ms: int, refusal: str) -> None:
        tries = self._writes[sequence].tries
        tries[holder] = (tries.get(holder, _UNTRIED)[0] + 1, next_try_ms, refusal)
