"""The multiaddrs that this swarm supports: TCP on an IP address or a DNS name, with the peer's id if it is known.

/ip4/192.0.2.7/tcp/4001    /ip6/::1/tcp/4001/p2p/12D3KooW...    /dns4/seed.example.org/tcp/4001
"""

import ipaddress
from dataclasses import dataclass

from protocols.errors import InvalidPayload
from protocols.keys import public_key
from protocols.names import HOSTNAME_RULE, is_hostname, is_zone

IP = ("ip4", "ip6")
DNS = ("dns", "dns4", "dns6")
SYNTAX = "/ip4/<address>/tcp/<port>, or ip6, dns, dns4 or dns6 instead of ip4, and /p2p/<peer id> after it if known"


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpAddress:
    """`kind` is one of `IP` and `DNS`. `peer` is the id, in text, of the only peer to accept; None accepts any."""

    kind: str
    host: str
    port: int
    peer: str | None = None

    def __str__(self) -> str:
        return f"/{self.kind}/{self.host}/tcp/{self.port}" + (f"/p2p/{self.peer}" if self.peer else "")


def parse(text: str) -> TcpAddress:
    """Raises ValueError; the message says what is wrong with the address, and how one is written."""
    parts = text.removesuffix("/").split("/")
    if len(parts) not in (5, 7) or parts[0] or parts[3] != "tcp" or parts[5:6] not in ([], ["p2p"], ["ipfs"]):
        raise ValueError(f"not an address that is supported; write {SYNTAX}")
    kind, host, port, peer = parts[1], parts[2], parts[4], parts[6] if len(parts) == 7 else None
    if kind in IP:
        host = _ip(kind, host)
    elif kind not in DNS:
        raise ValueError(f"/{kind}/{host} is not supported; write {SYNTAX}")
    elif not is_hostname(host):
        raise ValueError(f"{host!r} cannot be a host: {HOSTNAME_RULE}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{port!r} is not a TCP port: a number from 0 to 65535")
    if peer is not None:
        try:
            public_key(peer)
        except InvalidPayload as error:
            raise ValueError(f"/p2p/{peer} does not name a peer: {error.message}") from error
    return TcpAddress(kind=kind, host=host, port=int(port), peer=peer)


def _ip(kind: str, host: str) -> str:
    try:
        if "%" in host and not is_zone(host.partition("%")[2]):
            raise ValueError
        return str(ipaddress.IPv4Address(host) if kind == "ip4" else ipaddress.IPv6Address(host))
    except ValueError:
        raise ValueError(f"{host!r} is not an {'IPv4' if kind == 'ip4' else 'IPv6'} address") from None
