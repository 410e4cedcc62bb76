"""Who provides a key, as peers said to this node, and what this node provides itself.

It is in memory: 19 other peers were told the same, and each provider says so again within a day.
"""

import trio

from protocols.kademlia.contact import Contact
from protocols.kademlia.messages import CONTACTS_MAX
from protocols.kademlia.provider_records import EXPIRY_SECONDS, ProviderRecords


class ProviderBook:
    """The provider records of one node, on trio's clock."""

    def __init__(self, *, expiry_seconds: float = EXPIRY_SECONDS) -> None:
        self.records = ProviderRecords(expiry_seconds=expiry_seconds)

    def add(self, key: bytes, provider: Contact) -> None:
        """A peer, or this node, provides a key; the addresses are those that the peer proved or named itself."""
        self.records.add(key, provider, trio.current_time())

    def providers(self, key: bytes) -> tuple[Contact, ...]:
        """Those that provide a key now, as many as one message names."""
        return self.records.providers(key, trio.current_time(), CONTACTS_MAX)
