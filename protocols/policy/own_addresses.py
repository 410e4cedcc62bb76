"""The addresses of this node: which of them others are told, and which addresses lead back to this node.

A node that listens on all interfaces has an address on each, and these come and go. All are told, for peers try all of
them, but for those that an operator excluded and those that lead everyone to itself (loopback). Behind a translator of
addresses the machine does not have the address that others see; when several peers say the same one, it is told too.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from protocols.policy.address_scope import Scope, endpoint_of, ip_of, scope_of

OBSERVERS_MIN = 2
"""Peers that must see this node at an address that it does not have before others are told that address."""
OBSERVERS_MAX = 256
"""Peers whose observation is kept; the oldest is dropped."""
OBSERVED_MAX = 2
"""Observed addresses that are told."""


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What an operator says of the addresses to tell: addresses and networks of IP, and multiaddrs as they are."""

    only: tuple[str, ...] = ()
    """Empty: all. Else only own addresses in these networks are told, and these multiaddrs, which may be of another
    machine that hands connections on."""
    excluded: tuple[str, ...] = ()

    def literal(self) -> tuple[str, ...]:
        return tuple(entry for entry in self.only if entry.startswith("/"))

    def lets_through(self, address: str) -> bool:
        """Whether an own or observed address may be told."""
        return not _is_among(address, self.excluded) and (not self.only or _is_among(address, self.only))


class OwnAddresses:
    """`own` is this node's peer id. All addresses are multiaddrs that end in it."""

    def __init__(self, own: str, rules: AddressRules) -> None:
        self._suffix = f"/p2p/{own}"
        self._rules = rules
        self._listening: tuple[str, ...] = ()
        self._observed: dict[str, tuple[str, ...]] = {}
        """By peer, the endpoints at which this node may be reached from its place."""

    def listen(self, addresses: Sequence[str]) -> None:
        """The node listens at these addresses now, and at no others."""
        self._listening = tuple(addresses)

    def advertised(self, *, on_this_machine: bool = False) -> tuple[str, ...]:
        """The addresses for others, the best ones first; with loopback ones for others on this machine."""
        advertised = [address for address in self._listening if self._rules.lets_through(address)]
        advertised = [a for a in advertised if on_this_machine or scope_of(a) is not Scope.LOOPBACK]
        literal = [endpoint_of(address) + self._suffix for address in self._rules.literal()]
        return tuple(dict.fromkeys((*literal, *advertised, *self._counted())))

    def is_own(self, address: str) -> bool:
        """Whether an address leads to this node itself, whatever peer it names."""
        endpoint = endpoint_of(address)
        return any(endpoint == endpoint_of(own) for own in self._listening)

    def is_this_machine(self, address: str) -> bool:
        """Whether an address, like that at the other end of a connection, is one of this machine."""
        if scope_of(address) is Scope.LOOPBACK:
            return True
        ip = ip_of(address)
        return ip is not None and any(ip == ip_of(own) for own in self._listening)

    def observe(self, peer: str, address: str, *, dialled: bool) -> None:
        """A peer says at which address it sees this node. `dialled`: this node dialled the peer, so that the port is
        one that nobody listens at; else it is the address that the peer dialled."""
        self._observed.pop(peer, None)
        if scope_of(address) is not Scope.NETWORK or (ip_of(address) is None and dialled) or self.is_own(address):
            return
        self._observed[peer] = self._ports_at(address) if dialled else (endpoint_of(address),)
        if len(self._observed) > OBSERVERS_MAX:
            del self._observed[next(iter(self._observed))]

    def forget(self, peer: str) -> None:
        """A peer is not connected any more: what it saw may have changed."""
        self._observed.pop(peer, None)

    def _ports_at(self, address: str) -> tuple[str, ...]:
        """The ports that this node listens at, at another host."""
        _, kind, host, *_ = address.split("/")
        there = ip_of(address)
        ports = [a.split("/")[4] for a in self._listening if scope_of(a) is Scope.NETWORK and a.split("/")[1] == kind]
        if any(there == ip_of(own) for own in self._listening):
            return ()
        return tuple(f"/{kind}/{host}/tcp/{port}" for port in dict.fromkeys(ports))

    def _counted(self) -> list[str]:
        votes = Counter(endpoint for endpoints in self._observed.values() for endpoint in endpoints)
        advertised = [endpoint + self._suffix for endpoint, count in votes.most_common() if count >= OBSERVERS_MIN]
        return [address for address in advertised if self._rules.lets_through(address)][:OBSERVED_MAX]


def _is_among(address: str, entries: Sequence[str]) -> bool:
    """Whether one of the entries is this address, or a network that it is in."""
    ip = ip_of(address)
    for entry in entries:
        if entry.startswith("/"):
            if endpoint_of(entry) == endpoint_of(address):
                return True
        elif ip is not None and ip in _network(entry):
            return True
    return False


def _network(entry: str) -> IPv4Network | IPv6Network:
    return ip_network(entry, strict=False)
