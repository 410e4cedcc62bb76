"""How far the address of a peer reaches: this machine, one link, a network, or nowhere.

Only the text of a multiaddr is judged. Whether a network is the right one shows when the address is dialled: machines
have bridges and tunnels whose addresses look like all others.
"""

import ipaddress
from enum import Enum, auto


class Scope(Enum):
    LOOPBACK = auto()
    """It leads each machine to itself."""
    LINK = auto()
    """An IPv6 address that needs the name of an interface, which differs from machine to machine."""
    NETWORK = auto()
    """A private or public address, a name, or an address of another kind of network."""
    NOWHERE = auto()
    """Port 0, an unspecified address, a multicast or a reserved one."""


def host_of(address: str) -> str:
    """The host of a multiaddr, without the zone; '' for an address without one."""
    parts = address.split("/")
    return parts[2].partition("%")[0] if len(parts) > 2 else ""


def endpoint_of(address: str) -> str:
    """A multiaddr without the peer id at its end."""
    return address.partition("/p2p/")[0]


def ip_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address in a multiaddr, an IPv4 one where IPv6 only carries it; None for a name."""
    return _ip(host_of(address))


def subnet(host: str) -> str | None:
    """The public /24 or /48 of an IP address. None for private and loopback addresses, and for names."""
    ip = _ip(host)
    if ip is None or not ip.is_global:
        return None
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False))


def scope_of(address: str) -> Scope:
    parts = address.split("/")
    if len(parts) < 5:
        return Scope.NETWORK
    ip = ip_of(address)
    if parts[4].isdigit() and int(parts[4]) == 0:
        return Scope.NOWHERE
    if ip is None:
        return Scope.LOOPBACK if f".{parts[2].lower().rstrip('.')}".endswith(".localhost") else Scope.NETWORK
    if ip.is_loopback:
        return Scope.LOOPBACK
    if ip.is_unspecified or ip.is_multicast or (ip.version == 4 and ip.is_reserved):
        return Scope.NOWHERE
    return Scope.LINK if ip.version == 6 and ip.is_link_local else Scope.NETWORK


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
