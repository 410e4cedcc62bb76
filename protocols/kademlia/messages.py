"""The messages of the DHT: what a node asks another one, and what that answers.

They are those of the libp2p kad-dht specification, so that nodes of other implementations take part. Keys are bytes of
any kind: the key of an address (`protocols/ucxl.py`), the multihash of a content, or the bytes of a peer id. The codec
(`message_codec.py`) keeps the bounds.
"""

from typing import NamedTuple

from protocols.kademlia.contact import Contact

PROTOCOL = "/bzzz/kad/1.0.0"
CONTACTS_MAX = 20
"""Contacts in one list of a message, which is the k of Kademlia; further ones are left out."""
ADDRESSES_MAX = 16
"""Addresses of one contact; further ones are left out."""
ADDRESS_BYTES_MAX = 256
"""A longer address is left out."""
KEY_BYTES_MAX = 256
MESSAGE_BYTES_MAX = 1024 * 1024 + 64 * 1024
"""The largest encoded envelope, and all that may be around it."""


class Record(NamedTuple):
    """A value of the DHT. A value under the key of an address is an encoded envelope: nothing else of a record is
    trusted."""

    key: bytes
    value: bytes
    received: str = ""
    """When its sender got it, as RFC 3339 writes times. Other implementations refuse a record without."""


class FindNode(NamedTuple):
    """Ask for the peers nearest to a key."""

    key: bytes


class GetValue(NamedTuple):
    """Ask for the value of a key, and for the peers nearest to it."""

    key: bytes


class PutValue(NamedTuple):
    """Ask a peer to keep a value. It answers with the value that it has then."""

    record: Record

    @property
    def key(self) -> bytes:
        return self.record.key


class AddProvider(NamedTuple):
    """Say that the sender has the content of a key. There is no answer to it."""

    key: bytes
    providers: tuple[Contact, ...]


class GetProviders(NamedTuple):
    """Ask who has the content of a key, and for the peers nearest to it."""

    key: bytes


class KadPing(NamedTuple):
    """Ask for a sign of life."""

    key: bytes = b""


KadRequest = FindNode | GetValue | PutValue | AddProvider | GetProviders | KadPing


class KadAnswer(NamedTuple):
    """The answer to a request of any kind; what a kind has no use for is empty."""

    record: Record | None = None
    closer: tuple[Contact, ...] = ()
    """Peers near to the key, the nearest first."""
    providers: tuple[Contact, ...] = ()
    left_out: int = 0
    """Contacts of a decoded answer that were left out: beyond the most, named twice, or without a valid peer id."""
