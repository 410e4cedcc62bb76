"""What a lookup is for: the closest peers, a value, a value on which peers agree, a peer, or providers.

A purpose takes what each peer answers, judges it, and keeps what was found. The lookup itself is the same for all.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from protocols.kademlia.contact import Contact

Found_contra = TypeVar("Found_contra", contravariant=True)


class Purpose(Protocol[Found_contra]):
    @property
    def is_met(self) -> bool:
        """Whether enough is found: the lookup ends."""
        ...

    def take(self, peer: str, found: Found_contra | None) -> bool:
        """Take the answer of a peer, which comes once. False when what the peer answered breaks the rules."""
        ...


class ClosestPeers:
    """The peers nearest to the place; the result of the lookup has them."""

    is_met = False

    def take(self, peer: str, found: object) -> bool:
        return True


class FirstValue:
    """The first value that `is_valid` accepts."""

    def __init__(self, is_valid: Callable[[bytes], bool]) -> None:
        self._is_valid = is_valid
        self.value: bytes | None = None
        self.peer = ""
        """The peer that had it."""

    @property
    def is_met(self) -> bool:
        return self.value is not None

    def take(self, peer: str, found: bytes | None) -> bool:
        if found is None:
            return True
        if not self._is_valid(found):
            return False
        self.value, self.peer = found, peer
        return True


class AgreedValue:
    """A value that `quorum` peers have, each of the same bytes. `values` has what else was found, with its peers."""

    def __init__(self, quorum: int, is_valid: Callable[[bytes], bool]) -> None:
        self._quorum = quorum
        self._is_valid = is_valid
        self.values: dict[bytes, list[str]] = {}

    @property
    def value(self) -> bytes | None:
        return next((value for value, peers in self.values.items() if len(peers) >= self._quorum), None)

    @property
    def is_met(self) -> bool:
        return self.value is not None

    def take(self, peer: str, found: bytes | None) -> bool:
        if found is None:
            return True
        if not self._is_valid(found):
            return False
        self.values.setdefault(found, []).append(peer)
        return True


class PeerFound:
    """A peer answers: what others say of it is tried, because its own place is the nearest to itself."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self.is_met = False

    def take(self, peer: str, found: object) -> bool:
        self.is_met = self.is_met or peer == self._peer
        return True


class Providers:
    """`enough` providers of a key. One answer counts for a quarter of them at most, or one peer could make up all.

    `on_found` is called with each that counts, as soon as it is found.
    """

    def __init__(self, enough: int, on_found: Callable[[Contact], None] = lambda _: None) -> None:
        self._enough = enough
        self._on_found = on_found
        self._share = -(-enough // 4)
        self._counted: set[str] = set()
        """The providers that count. Others that an answer named count once another peer names them as well."""
        self.found: dict[str, Contact] = {}
        """By peer."""

    @property
    def is_met(self) -> bool:
        return len(self._counted) >= self._enough

    def take(self, peer: str, found: Sequence[Contact] | None) -> bool:
        named = {each.peer: each for each in islice(found or (), self._enough)}
        self.found = named | self.found
        for contact in [each for each in named.values() if each.peer not in self._counted][: self._share]:
            self._counted.add(contact.peer)
            self._on_found(contact)
        return True
