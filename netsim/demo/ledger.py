"""What the demonstration was promised: every write that a node acknowledged, and what a list of durations says."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from netsim.processes.client import NodeReply


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgedWrite:
    """One acknowledged write."""

    address: str
    content: bytes
    author: str
    """The name of the node that acknowledged it."""
    digest: str
    version: int
    is_replicated: bool

    @classmethod
    def of(cls, address: str, content: bytes, author: str, reply: NodeReply) -> "AcknowledgedWrite | None":
        """The write as the receipt tells it; None when it was not acknowledged."""
        if reply.status not in (201, 202):
            return None
        receipt = reply.data
        return cls(
            address=address, content=content, author=author, digest=receipt["digest"], version=int(receipt["version"]),
            is_replicated=reply.status == 201,
        )  # fmt: skip


class WriteLedger:
    """The acknowledged writes, in the order in which they were acknowledged."""

    def __init__(self) -> None:
        self.writes: list[AcknowledgedWrite] = []

    def add(self, write: AcknowledgedWrite) -> None:
        self.writes.append(write)

    def newest(self) -> dict[str, AcknowledgedWrite]:
        """For each address, in the order of their first writes, the newest write of it."""
        found: dict[str, AcknowledgedWrite] = {}
        for write in self.writes:
            known = found.get(write.address)
            if known is None or write.version > known.version:
                found[write.address] = write
        return found


class Spread(NamedTuple):
    """Durations in milliseconds: how many, their median, the 99th percentile (both by nearest rank), the longest."""

    calls: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, durations: Sequence[float]) -> "Spread":
        if not durations:
            return cls(0, 0.0, 0.0, 0.0)
        ordered = sorted(durations)

        def rank(share: float) -> float:
            return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 2)

        return cls(len(ordered), rank(0.50), rank(0.99), round(ordered[-1], 2))

    def __str__(self) -> str:
        return f"p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, longest {self.max_ms:.1f} ms"
