"""Provider records: which peers said that they provide a key, each until it expires.

Source: the libp2p kad-dht specification: a record lasts 48 hours, and its provider announces it again every 22 hours.
The records of a peer, of a key, of a key in one public subnet, and in all are bounded. Where there is no room, the peer
with the most loses its oldest record: a flood of one peer pushes out its own records, and a peer that announces a few
keys keeps them, however much others announce. The result depends on the order of the announcements alone.
"""

from collections import Counter
from dataclasses import dataclass

from protocols.kademlia.contact import Contact
from protocols.kademlia.k_bucket import subnets_of

EXPIRY_SECONDS = 48 * 3600.0
ADDRESSES_MAX = 8
"""Addresses that are kept of a provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderLimits:
    """How many records there may be. A record takes about 400 bytes."""

    per_peer: int = 4096
    per_key: int = 64
    per_key_and_subnet: int = 8
    """Of providers with addresses in one public /24 or /48. Private networks have no such limit."""
    in_all: int = 65536


@dataclass(slots=True)
class _Peer:
    contact: Contact
    subnets: tuple[str, ...]
    keys: dict[bytes, None]
    """The keys that it provides, the one announced longest ago first."""


class ProviderRecords:
    """The records of other peers. Times are in seconds on one clock."""

    def __init__(self, *, expiry_seconds: float = EXPIRY_SECONDS, limits: ProviderLimits | None = None) -> None:
        self._expiry_seconds = expiry_seconds
        self._limits = limits or ProviderLimits()
        self._expires_at: dict[tuple[bytes, str], float] = {}
        """All records by key and peer, the one announced longest ago first."""
        self._by_key: dict[bytes, dict[str, None]] = {}
        """The peers that provide a key, in the same order."""
        self._peers: dict[str, _Peer] = {}
        self._by_count: dict[int, dict[str, None]] = {}
        """The peers with so many records each."""
        self._most = 0
        """The largest number of records that a peer has."""
        self.dropped: Counter[str] = Counter()
        """Records that are gone, by the reason: `expired`; the peer is `banned`; a `peer`, a key in one `subnet`, or a
        `key` had too many, or there were too many in `all`. Those for which there was no room are `refused`."""

    def __len__(self) -> int:
        return len(self._expires_at)

    def add(self, key: bytes, contact: Contact, now: float) -> bool:
        """A peer announces that it provides a key, for the first time or again. False when there is no room for it."""
        peer = contact.peer
        self._expire(now)
        self._drop(key, peer)
        subnets = subnets_of(contact.addresses)
        if not self._make_room(key, peer, subnets):
            self.dropped["refused"] += 1
            return False
        known = self._peers.get(peer)
        if known is None:
            known = self._peers[peer] = _Peer(contact, subnets, {})
        known.contact, known.subnets = Contact(peer, contact.addresses[:ADDRESSES_MAX]), subnets
        self._expires_at[key, peer] = now + self._expiry_seconds
        self._by_key.setdefault(key, {})[peer] = None
        known.keys[key] = None
        self._recount(peer, len(known.keys) - 1, len(known.keys))
        return True

    def providers(self, key: bytes, now: float, n: int) -> tuple[Contact, ...]:
        """At most n providers of a key. Each public subnet has its turn before one has a second; within that, those
        that announced it last come first."""
        self._expire(now)
        found = [self._peers[peer] for peer in reversed(self._by_key.get(key, {}))]
        turns: Counter[str] = Counter()
        by_turn: list[tuple[int, int]] = []
        for number, peer in enumerate(found):
            turns.update(peer.subnets)
            by_turn.append((max((turns[name] for name in peer.subnets), default=1), number))
        return tuple(found[number].contact for _, number in sorted(by_turn)[:n])

    def forget(self, peer: str) -> None:
        """Drop all records of a peer: it is banned."""
        known = self._peers.get(peer)
        for key in list(known.keys) if known else ():
            self._drop(key, peer, "banned")

    def _expire(self, now: float) -> None:
        while self._expires_at:
            (key, peer), expires_at = next(iter(self._expires_at.items()))
            if expires_at > now:
                break
            self._drop(key, peer, "expired")

    # -- room -------------------------------------------------------------------------------------------------

    def _make_room(self, key: bytes, peer: str, subnets: tuple[str, ...]) -> bool:
        """Whether there is room for one more record; another one may have to give way."""
        limits, known = self._limits, self._peers.get(peer)
        if known is not None and len(known.keys) >= limits.per_peer:
            self._drop(next(iter(known.keys)), peer, "peer")
        for subnet in subnets:
            neighbours = [each for each in self._by_key.get(key, ()) if subnet in self._peers[each].subnets]
            if len(neighbours) >= limits.per_key_and_subnet:
                self._drop(key, neighbours[0], "subnet")
        providing = self._by_key.get(key, {})
        if len(providing) >= limits.per_key:
            busiest = max(providing, key=self._count_of)
            if self._count_of(busiest) <= self._count_of(peer) + 1:
                return False
            self._drop(key, busiest, "key")
        if len(self) >= limits.in_all:
            busiest = next(iter(self._by_count[self._most]))
            if self._most <= self._count_of(peer) + 1:
                busiest = peer
            if not self._count_of(busiest):
                return False
            self._drop(next(iter(self._peers[busiest].keys)), busiest, "all")
        return True

    def _count_of(self, peer: str) -> int:
        known = self._peers.get(peer)
        return len(known.keys) if known else 0

    def _drop(self, key: bytes, peer: str, why: str = "") -> None:
        if self._expires_at.pop((key, peer), None) is None:
            return
        if why:
            self.dropped[why] += 1
        del self._by_key[key][peer]
        if not self._by_key[key]:
            del self._by_key[key]
        known = self._peers[peer]
        del known.keys[key]
        self._recount(peer, len(known.keys) + 1, len(known.keys))
        if not known.keys:
            del self._peers[peer]

    def _recount(self, peer: str, before: int, after: int) -> None:
        """A peer has one record more, or one less."""
        if before:
            del self._by_count[before][peer]
            if not self._by_count[before]:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, {})[peer] = None
        self._most = max(self._most, after) if self._most != before or before in self._by_count else after
