"""The addresses of one peer: who reported each, which one worked, and at which ones another peer answered.

All of them are tried at the same time, so the order matters only where there is no room: then those that worked stay,
and those of the sources that are nearest to the peer. What the peer itself says in a hello replaces what it said
before, and what others said of it, so that an address that it has left is not dialled for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from protocols.policy.sighting import Source

ADDRESSES_MAX = 16
"""Addresses kept of one peer, beside the configured ones."""
DISTRUST_SECONDS = 3600.0
"""How long an address at which another peer answered is not tried again for this one."""
DISTRUSTED_MAX = 64

_RANK = {source: rank for rank, source in enumerate(Source)}
_REPLACED_BY_HELLO = frozenset({Source.HELLO, Source.STORE, Source.DHT, Source.EXCHANGE})


@dataclass(slots=True)
class KnownAddress:
    """One address. Times in seconds."""

    text: str
    sources: dict[Source, float] = field(default_factory=dict)
    """When each source reported it last."""
    worked_at: float = -inf
    """When a dial of it led to the peer last."""

    @property
    def rank(self) -> int:
        return min((_RANK[source] for source in self.sources), default=len(_RANK))

    @property
    def is_configured(self) -> bool:
        return Source.CONFIGURATION in self.sources

    @property
    def seen_at(self) -> float:
        return max((*self.sources.values(), self.worked_at))


class PeerAddresses:
    """The addresses of one peer by their text."""

    def __init__(self) -> None:
        self._known: dict[str, KnownAddress] = {}
        self._distrusted: dict[str, float] = {}
        """When another peer answered there."""

    def __bool__(self) -> bool:
        return bool(self._known)

    def all(self) -> tuple[KnownAddress, ...]:
        """The best ones first: those that worked, then those of the sources nearest to the peer."""
        return tuple(sorted(self._known.values(), key=lambda address: (-address.worked_at, address.rank)))

    def texts(self) -> tuple[str, ...]:
        return tuple(address.text for address in self.all())

    def configured(self) -> list[str]:
        return [address.text for address in self._known.values() if address.is_configured]

    def learn(self, addresses: Sequence[str], source: Source, now: float) -> tuple[str, ...]:
        """Take the addresses that a source reports. Returns those that are new."""
        is_configured = source is Source.CONFIGURATION
        usable = [text for text in dict.fromkeys(addresses) if is_configured or not self._is_distrusted(text, now)]
        if not is_configured:
            usable = usable[:ADDRESSES_MAX]
        new = tuple(text for text in usable if text not in self._known)
        for text in usable:
            self._known.setdefault(text, KnownAddress(text)).sources[source] = now
        self._bound()
        return new

    def replace(self, said: Sequence[str]) -> None:
        """The peer said in a hello which addresses it has. Others stay where its own word does not reach: configured
        ones, those seen on the local network, and the one that worked last though others alone named it (behind a
        translator of addresses)."""
        last = max((address.worked_at for address in self._known.values()), default=-inf)
        for address in list(self._known.values()):
            if address.text in said:
                continue
            is_in_use = -inf < last == address.worked_at and Source.HELLO not in address.sources
            address.sources = {s: at for s, at in address.sources.items() if is_in_use or s not in _REPLACED_BY_HELLO}
            if not address.sources:
                del self._known[address.text]

    def take(self, others: "PeerAddresses") -> None:
        """Take all addresses of a target that proved to be this peer."""
        for address in others.all():
            for source, at in address.sources.items():
                self.learn((address.text,), source, at)

    def withdraw(self, source: Source, *, but: Sequence[str] = ()) -> None:
        """A source does not report its addresses any more, but for these."""
        for address in list(self._known.values()):
            if address.text in but or address.sources.pop(source, None) is None:
                continue
            if not address.sources:
                del self._known[address.text]

    def worked(self, text: str, now: float) -> None:
        """A dial of this address led to the peer."""
        if address := self._known.get(text):
            address.worked_at = now

    def distrust(self, text: str, now: float) -> None:
        """Another peer answered there. A configured address stays, because an operator named it."""
        address = self._known.get(text)
        if address is None or not address.is_configured:
            self._known.pop(text, None)
            self._distrusted.pop(text, None)
            self._distrusted[text] = now
            if len(self._distrusted) > DISTRUSTED_MAX:
                del self._distrusted[next(iter(self._distrusted))]

    def drop(self, text: str) -> None:
        self._known.pop(text, None)

    def drop_all_but_configured(self) -> None:
        for address in list(self._known.values()):
            if address.is_configured:
                address.sources = {Source.CONFIGURATION: address.sources[Source.CONFIGURATION]}
            else:
                del self._known[address.text]

    def _is_distrusted(self, text: str, now: float) -> bool:
        return now < self._distrusted.get(text, -inf) + DISTRUST_SECONDS

    def _bound(self) -> None:
        others = [address for address in self._known.values() if not address.is_configured]
        if (excess := len(others) - ADDRESSES_MAX) > 0:
            others.sort(key=lambda address: (address.worked_at, -address.rank, address.seen_at))
            for address in others[:excess]:
                del self._known[address.text]
