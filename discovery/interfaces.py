"""Network interfaces of this machine, as far as multicast needs them."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import ifaddr

INTERFACES_MAX = 16
"""Interfaces that are used; each costs two sockets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """An interface and the families of addresses by which it is used: `ip4` is '' without IPv4."""

    name: str
    index: int
    ip4: str = ""
    has_ip6: bool = False


_IP = IPv4Address | IPv6Address


def interfaces_of(hosts: Collection[str]) -> tuple[Interface, ...]:
    """The interfaces of this machine for a node that others dial at these IP addresses. Raises OSError."""
    return choose(ifaddr.get_adapters(), hosts)


def choose(adapters: Iterable[ifaddr.Adapter], hosts: Collection[str]) -> tuple[Interface, ...]:
    """Those of `adapters` that have one of these addresses (in the form of `ipaddress`), in the order of their indexes.

    A node behind a translator of addresses may tell others none of its own: then all but loopback.
    """
    every = [(adapter, _addresses(adapter)) for adapter in adapters]
    return _used(every, lambda ip: str(ip) in hosts) or _used(every, _is_of_a_network)


def _used(
    adapters: Iterable[tuple[ifaddr.Adapter, list[_IP]]], is_used: Callable[[_IP], bool]
) -> tuple[Interface, ...]:
    found = []
    for adapter, ips in adapters:
        used = [ip for ip in ips if is_used(ip)]
        if used and adapter.index is not None:
            ip4 = next((str(ip) for ip in used if ip.version == 4), "")
            has_ip6 = any(ip.version == 6 for ip in used)
            found.append(Interface(name=adapter.nice_name, index=adapter.index, ip4=ip4, has_ip6=has_ip6))
    return tuple(sorted(found, key=lambda each: each.index)[:INTERFACES_MAX])


def _addresses(adapter: ifaddr.Adapter) -> list[_IP]:
    return [ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0]) for ip in adapter.ips]


def _is_of_a_network(ip: _IP) -> bool:
    return not ip.is_loopback and not ip.is_link_local
