"""Write request: a version that a caller wants written, with the conditions for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.ucxl import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRequest:
    """What `Author.write` makes a signed version of."""

    address: Address
    content: bytes = b""
    content_type: str = "application/octet-stream"
    meta: Mapping[str, str] = field(default_factory=dict)
    parents: tuple[bytes, ...] | None = None
    """The versions it is written on top of; None: the heads that this node knows."""
    if_match: tuple[bytes, ...] | None = None
    """Write only when every head is one of these, or when one of these is the tag of all heads
    (`protocols.heads.heads_tag`). The heads become the parents, unless `parents` names others."""
    any_match: bool = False
    """Write only when there is a head that is no tombstone (`If-Match: *`)."""
    must_be_absent: bool = False
    """Write only when there is no head but tombstones."""
    deleted: bool = False
    idempotency_key: str | None = None
    timeout: float | None = None
    """Seconds, in place of the backend's own deadline."""

    @property
    def is_conditional(self) -> bool:
        return self.if_match is not None or self.any_match or self.must_be_absent

    @property
    def goes_by_heads(self) -> bool:
        """Whether the heads decide about it, or become its parents."""
        return self.is_conditional or self.parents is None
