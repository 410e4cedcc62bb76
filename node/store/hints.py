"""The hints of a store: one row for each holder that does not have a local write yet.

Hinted handoff delivers them, see `node/services/writes/hinted_handoff.py`. A hint is due, postponed until a moment, or
in quarantine (its holder refused the write for good).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Standing(NamedTuple):
    """How durable a local write is: a receipt is built from it."""

    sequence: int
    digest: bytes
    acknowledged: tuple[str, ...]
    wanted: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """One holder that does not have one local write yet."""

    holder: str
    sequence: int
    digest: bytes
    key: bytes
    address: str
    attempts: int
    next_try_ms: int
    """0: at once."""
    refusal: str
    """The holder's last refusal in words, or ''."""
    is_refused: bool
    """True: in quarantine. The holder refused it for good; it is kept and shown, and not tried again by itself."""
    at_ms: int
    """When the write was merged."""


class OwedWrite(NamedTuple):
    """A local write, and the holders with a hint for it, in quarantine or not."""

    sequence: int
    key: bytes
    address: str
    at_ms: int
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pending:
    """How many hints wait to be delivered, and how many are in quarantine."""

    count: int
    oldest_at_ms: int | None
    refused: int


class Hints(Protocol):
    """The hints for holders (peer ids), and what is known of the replication of local writes."""

    async def due_hints(self, holder: str, *, after: int = 0, limit: int = 64, now_ms: int) -> list[Hint]:
        """The hints for a holder that are due, by ascending sequence, after that sequence."""
        ...

    def next_hint_due(self, holder: str) -> int | None:
        """When the next hint for a holder is due (0: now), in Unix milliseconds; None when there is none."""
        ...

    def hint_counts(self) -> dict[str, int]:
        """The number of hints to deliver, by holder; hints in quarantine are not counted."""
        ...

    def hint_totals(self) -> dict[str, int]:
        """The number of hints by holder, those in quarantine as well."""
        ...

    def acknowledge(self, holder: str, sequences: Iterable[int]) -> None:
        """The holder has these writes. Counts at once; durable with the next commit, at the latest within a second.

        A crash before that costs one more delivery of the hint, which is idempotent.
        """
        ...

    def postpone_hint(self, holder: str, sequence: int, *, next_try_ms: int, refusal: str) -> None:
        """Count an attempt, and postpone this hint until then. Durable like `acknowledge`."""
        ...

    async def quarantine_hint(self, holder: str, sequence: int, *, refusal: str) -> None:
        """Put a hint in quarantine: refused for good, shown, kept."""
        ...

    async def retry_quarantined(self) -> int:
        """Take every hint out of quarantine and make it due; return how many."""
        ...

    async def add_hints(self, hints: Iterable[tuple[int, str]]) -> int:
        """Add hints (sequence of a local write, holder); those that exist or are acknowledged already are skipped.

        Returns how many are new. Raises the write's `wanted` for each.
        """
        ...

    async def drop_holder(self, holder: str) -> list[int]:
        """A holder was forgotten: delete its hints, which lowers `wanted`.

        Returns their sequences, so that other holders get hints for them.
        """
        ...

    async def forget_acknowledged(self, holder: str) -> int:
        """The holder lost what it had acknowledged: forget these acknowledgements, which lowers `wanted`; return how
        many there were. Hints are added again by `add_hints`."""
        ...

    def pending(self) -> Pending: ...

    async def hints(self, *, is_refused: bool | None = None, limit: int = 1000) -> list[Hint]:
        """The hints for a person to read, oldest first."""
        ...

    async def owed_writes(self, *, after: int, limit: int = 1000) -> list[OwedWrite]:
        """The local writes that some holder has a hint for, by ascending sequence, after that one. Fewer than `limit`
        are the last ones."""
        ...

    async def standing(self, *, digest: bytes | None = None, sequence: int | None = None) -> Standing | None:
        """How durable a local write is, by digest or by sequence; None when it is no local write of this log."""
        ...

    async def replicated(self, digest: bytes, count: int) -> Standing:
        """Wait until `count` holders have acknowledged a local write. Raises `NotFound` when it is no local write."""
        ...
