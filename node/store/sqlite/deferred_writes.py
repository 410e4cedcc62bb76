"""Deferred writes: facts that count at once and are written with the next commit. A crash may lose them."""

from dataclasses import dataclass, field

from protocols.log_lineage import LogPosition


@dataclass(slots=True)
class DeferredWrites:
    """Acknowledgements, postponements, cursors and positions in the logs of members, in the order in which they came
    where the order matters."""

    acknowledged: dict[str, list[int]] = field(default_factory=dict)
    """Sequences by holder."""
    postponed: dict[tuple[str, int], tuple[int, int, str]] = field(default_factory=dict)
    """By holder and sequence: further attempts, next try, refusal."""
    cursors: dict[str, int | None] = field(default_factory=dict)
    """By name: the position; None: it is deleted."""
    member_logs: dict[str, LogPosition] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.acknowledged or self.postponed or self.cursors or self.member_logs)

    def acknowledge(self, holder: str, sequence: int) -> None:
        self.acknowledged.setdefault(holder, []).append(sequence)
        self.postponed.pop((holder, sequence), None)

    def postpone(self, holder: str, sequence: int, attempts: int, next_try_ms: int, refusal: str) -> None:
        before = self.postponed.get((holder, sequence), (0, 0, ""))[0]
        self.postponed[holder, sequence] = (before + attempts, next_try_ms, refusal)

    def extend(self, later: "DeferredWrites") -> None:
        """Append the writes of `later`, which came after these."""
        for (holder, sequence), (attempts, next_try_ms, refusal) in later.postponed.items():
            self.postpone(holder, sequence, attempts, next_try_ms, refusal)
        for holder, sequences in later.acknowledged.items():
            for sequence in sequences:
                self.acknowledge(holder, sequence)
        self.cursors.update(later.cursors)
        self.member_logs.update(later.member_logs)
