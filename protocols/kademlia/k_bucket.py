"""A k-bucket: contacts whose places share a prefix with the place of this node, and the replacements that wait."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from protocols.kademlia.contact import Contact
from protocols.policy.address_scope import host_of, subnet


@dataclass(slots=True, eq=False)
class BucketEntry:
    """A contact in a bucket. Times in seconds."""

    contact: Contact
    distance: int
    """The XOR of its place and the place of this node."""
    subnets: tuple[str, ...]
    """The public subnets of its addresses."""
    heard_at: float
    due_at: float
    """When it is to be pinged; while a ping is under way, when that has failed."""
    is_pinged: bool = False
    failures: int = 0
    """Failures since it answered last: with one it is suspect."""


@dataclass(slots=True, eq=False)
class Bucket:
    """`entries` are contacts in no order; `spares` are replacements, the one that was heard last at the end."""

    refresh_at: float = inf
    entries: list[BucketEntry] = field(default_factory=list)
    spares: list[BucketEntry] = field(default_factory=list)

    def oldest(self) -> BucketEntry:
        """The contact that was heard least recently. There is one at least."""
        return min(self.entries, key=lambda entry: entry.heard_at)

    def farthest(self) -> BucketEntry:
        """The contact that is farthest from this node. There is one at least."""
        return max(self.entries, key=lambda entry: entry.distance)

    def spare(self, peer: str) -> BucketEntry | None:
        return next((entry for entry in self.spares if entry.contact.peer == peer), None)

    def keep_spare(self, entry: BucketEntry, most: int) -> None:
        """Let a contact wait for a place, instead of the one that was heard least recently where there are too many."""
        if before := self.spare(entry.contact.peer):
            self.spares.remove(before)
        self.spares.append(entry)
        del self.spares[: max(0, len(self.spares) - most)]

    def count_subnet(self, name: str) -> int:
        return sum(name in entry.subnets for entry in self.entries)


def subnets_of(addresses: Iterable[str]) -> tuple[str, ...]:
    """The public subnets of some multiaddrs, each once; () for private and loopback addresses, and for names."""
    found = (subnet(host_of(address)) for address in addresses)
    return tuple(dict.fromkeys(name for name in found if name is not None))
