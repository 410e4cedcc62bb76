"""Provider records: which peers said that they provide a key, each until it expires.

Source: the libp2p kad-dht specification: a record lasts 48 hours, and its provider announces it again every 22 hours.
The records of a peer, of a key, and in all are bounded. Where there is no room, the peer with the most records loses
one, and a newcomer that has as many is refused: a peer that announces a few keys keeps them, however much others
announce. The result depends on the order of the announcements alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from protocols.kademlia.contact import Contact

EXPIRY_SECONDS = 48 * 3600.0
ANNOUNCE_SECONDS = 22 * 3600.0
"""How often a provider announces its keys again."""
ADDRESSES_MAX = 8
"""Addresses that are kept of a provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderLimits:
    """How many records there may be."""

    per_peer: int = 1024
    per_key: int = 64
    in_all: int = 65536


@dataclass(slots=True)
class _Record:
    contact: Contact
    expires_at: float


class ProviderRecords:
    """The records that this node holds for others. Times in seconds on one clock."""

    def __init__(self, *, expiry_seconds: float = EXPIRY_SECONDS, limits: ProviderLimits | None = None) -> None:
        self._expiry_seconds = expiry_seconds
        self._limits = limits or ProviderLimits()
        self._by_key: dict[bytes, dict[str, _Record]] = {}
        """Records by peer, the oldest first."""
        self._by_peer: dict[str, dict[bytes, None]] = {}
        """Keys, the one announced longest ago first."""
        self._count = 0

    def __len__(self) -> int:
        """The number of records, those that have expired since the last announcement among them."""
        return self._count

    def add(self, key: bytes, contact: Contact, now: float) -> bool:
        """A peer announces that it provides a key, for the first time or again. False when there is no room for it."""
        peer = contact.peer
        self._drop(key, peer)
        if not self._make_room(key, peer, now):
            return False
        record = _Record(Contact(peer, contact.addresses[:ADDRESSES_MAX]), now + self._expiry_seconds)
        self._by_key.setdefault(key, {})[peer] = record
        self._by_peer.setdefault(peer, {})[key] = None
        self._count += 1
        return True

    def providers(self, key: bytes, now: float, n: int) -> tuple[Contact, ...]:
        """At most n providers of a key, those that announced it last first."""
        current = [record.contact for record in self._by_key.get(key, {}).values() if record.expires_at > now]
        return tuple(reversed(current))[:n]

    def forget(self, peer: str) -> None:
        """Drop all records of a peer: it is banned."""
        for key in list(self._by_peer.get(peer, ())):
            self._drop(key, peer)

    def expire(self, now: float) -> None:
        """Drop what has expired: once in a while, so that it holds no memory."""
        for key, peer in list(self._expired(now)):
            self._drop(key, peer)

    def _expired(self, now: float) -> Iterator[tuple[bytes, str]]:
        for key, records in self._by_key.items():
            for peer, record in records.items():
                if record.expires_at > now:
                    break
                yield key, peer

    def _make_room(self, key: bytes, peer: str, now: float) -> bool:
        """Whether there is room for one more record; another one may have to give way."""
        limits, records = self._limits, self._by_key.get(key, {})
        if len(self._by_peer.get(peer, ())) >= limits.per_peer:
            self._drop(next(iter(self._by_peer[peer])), peer)
        if len(records) >= limits.per_key:
            oldest = next(iter(records))
            if records[oldest].expires_at > now:
                oldest = max(records, key=self._records_of)
                if self._records_of(oldest) <= self._records_of(peer) + 1:
                    return False
            self._drop(key, oldest)
        if self._count >= limits.in_all:
            self.expire(now)
        if self._count >= limits.in_all:
            most = max(self._by_peer, key=self._records_of)
            if self._records_of(most) <= self._records_of(peer) + 1:
                return False
            self._drop(next(iter(self._by_peer[most])), most)
        return True

    def _records_of(self, peer: str) -> int:
        return len(self._by_peer.get(peer, ()))

    def _drop(self, key: bytes, peer: str) -> None:
        if self._by_key.get(key, {}).pop(peer, None) is None:
            return
        self._count -= 1
        if not self._by_key[key]:
            del self._by_key[key]
        del self._by_peer[peer][key]
        if not self._by_peer[peer]:
            del self._by_peer[peer]
