"""The ledger of the demonstration: every write that a node acknowledged."""

from dataclasses import dataclass

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
        """The write with the digest and version of its receipt; None when it was not acknowledged."""
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
        """By address, in the order of the first writes: the newest write."""
        newest: dict[str, AcknowledgedWrite] = {}
        for write in self.writes:
            known = newest.get(write.address)
            if known is None or write.version > known.version:
                newest[write.address] = write
        return newest
