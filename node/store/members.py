"""What a store remembers of peers: the members of the swarm."""

from dataclasses import dataclass, field
from typing import Protocol

from protocols.log_lineage import LogPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node of this swarm that this node has shaken hands with, now or before a restart."""

    peer: str
    name: str
    addresses: tuple[str, ...]
    first_seen_ms: int
    last_seen_ms: int
    labels: dict[str, str] = field(default_factory=dict)


class MemberRecords(Protocol):
    """Members by peer id. Times are Unix milliseconds."""

    def members(self) -> tuple[Member, ...]:
        """All remembered members, sorted by peer id."""
        ...

    async def save_member(self, member: Member) -> None:
        """Add a member, or replace what is remembered of it."""
        ...

    async def forget_member(self, peer: str) -> None:
        """Forget a member, and what is known of its log."""
        ...

    def member_log(self, peer: str) -> LogPosition | None:
        """The last entry of a peer's log that this node knows of. All that it acknowledged to this node, and all that
        it sent of its own, is in its log up to there."""
        ...

    def set_member_log(self, peer: str, position: LogPosition) -> None:
        """Remember that. Counts at once; durable with the next commit, and together with the acknowledgements that were
        noted before it."""
        ...
