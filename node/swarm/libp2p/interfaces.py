"""Interfaces: the addresses at which peers can reach the listening sockets, which come and go with the interfaces.

A machine may start before its network does, sleep and wake in another one, or get another address from one moment to
the next. The interfaces are read again every second: it costs a fraction of a millisecond, and works on every system.
"""

import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable, Sequence, Set

import ifaddr
import trio

from node.swarm.libp2p.address import TcpAddress

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
_INNER_INTERFACES = (
    "docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "cni", "flannel", "cali", "kube", "lxc", "lxd", "podman",
    "tun", "tap", "utun", "wg", "zt", "tailscale",
)  # fmt: skip
"""The names of bridges and tunnels begin so: their addresses come after those of the other interfaces."""


class OwnEndpoints:
    """The endpoints of these listening sockets. `on_lost` is called with IP addresses that this machine has lost."""

    def __init__(self, sockets: Sequence[socket.socket], on_lost: Callable[[Set[str]], None]) -> None:
        self._sockets = sockets
        self._on_lost = on_lost
        self._hosts = own_hosts()
        self._changed = trio.Event()
        self.now = announced(sockets, self._hosts)

    async def changed(self) -> None:
        """Wait until the machine has got or lost an address."""
        await self._changed.wait()

    async def run(self) -> None:
        """Follow the interfaces until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            try:
                hosts = await trio.to_thread.run_sync(own_hosts)
            except OSError as error:
                log.debug("the interfaces of this machine cannot be read: %s", error)
                continue
            if hosts != self._hosts:
                lost = set(self._hosts).difference(hosts)
                self._hosts, self.now = hosts, announced(self._sockets, hosts)
                if lost:
                    self._on_lost(lost)
                self._changed.set()
                self._changed = trio.Event()


def announced(sockets: Iterable[socket.socket], hosts: Sequence[str]) -> tuple[TcpAddress, ...]:
    """Concrete addresses: the real port instead of port 0, and one address for each of this machine's `hosts` instead
    of 0.0.0.0. Without link-local IPv6 ones, which need the name of an interface."""
    found: dict[TcpAddress, None] = {}
    for sock in sockets:
        bound, port = sock.getsockname()[:2]
        kind = "ip6" if sock.family == socket.AF_INET6 else "ip4"
        here = _of_kind(kind, hosts) if ipaddress.ip_address(bound).is_unspecified else [bound]
        found.update({TcpAddress(kind=kind, host=host, port=port): None for host in here})
    return tuple(found)


def own_hosts() -> tuple[str, ...]:
    """The IP addresses of this machine's interfaces now, those that others most likely reach first. Raises OSError."""
    found: list[tuple[int, str]] = []
    for adapter in ifaddr.get_adapters():
        is_inner = str(adapter.name).startswith(_INNER_INTERFACES)
        for ip in adapter.ips:
            host = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            found.append((2 if ipaddress.ip_address(host).is_loopback else int(is_inner), host))
    return tuple(dict.fromkeys(host for _, host in sorted(found, key=lambda each: each[0])))


def _of_kind(kind: str, hosts: Sequence[str]) -> list[str]:
    version = 4 if kind == "ip4" else 6
    addresses = [(host, ipaddress.ip_address(host)) for host in hosts]
    return [host for host, ip in addresses if ip.version == version and (version == 4 or not ip.is_link_local)]
