"""Lazies: what goes along with the next commit. It counts already, and a crash may forget it."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class DeferredWrites:
    """Acknowledgements, postponements and cursors, in the order in which they came as far as that matters."""

    paid: dict[str, list[int]] = field(default_factory=dict)
    """Sequences by holder."""
    postponed: dict[tuple[str, int], tuple[int, int, str]] = field(default_factory=dict)
    """By holder and sequence: attempts since, next try, refusal."""
    cursors: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.paid or self.postponed or self.cursors)

    def pay(self, holder: str, sequence: int) -> None:
        self.paid.setdefault(holder, []).append(sequence)
        self.postponed.pop((holder, sequence), None)

    def postpone(self, holder: str, sequence: int, attempts: int, next_try_ms: int, refusal: str) -> None:
        before = self.postponed.get((holder, sequence), (0, 0, ""))[0]
        self.postponed[holder, sequence] = (before + attempts, next_try_ms, refusal)

    def add(self, later: "DeferredWrites") -> None:
        """What came after these."""
        for (holder, sequence), (attempts, next_try_ms, refusal) in later.postponed.items():
            self.postpone(holder, sequence, attempts, next_try_ms, refusal)
        for holder, sequences in later.paid.items():
            for sequence in sequences:
                self.pay(holder, sequence)
        self.cursors.update(later.cursors)
