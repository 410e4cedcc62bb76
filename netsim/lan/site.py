"""A site: LANs, the hosts on them, and routers between them, on this machine and apart from its own network.

Each host, and the switch of each LAN, is a network namespace. A host's interfaces are `eth0`, `eth1`, ... in the order
in which it joined LANs; each is one end of a veth pair whose other end is a port of the LAN's bridge. The first LAN is
10.77.1.0/24 and fd77:1::/64, the second one 10.77.2.0/24 and fd77:2::/64, and so on; the first host on a LAN has .1.
"""

import os
import secrets
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from netsim.lan.namespace import PREFIX, LanUnavailable, Namespace, sweep

BRIDGE = "br0"
"""The name of the bridge in each switch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostInterface:
    """An interface of a host on a LAN."""

    name: str
    lan: "Lan"
    port: str
    """The other end, in the namespace of the switch."""
    ip4: str = ""
    ip6: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What an interface has received and sent, in bytes."""

    received: int
    sent: int


class Lan:
    """A switch with ports. Made by `Site.lan`."""

    def __init__(self, number: int, switch: Namespace, *, ip4: bool, ip6: bool) -> None:
        self.number = number
        self.switch = switch
        self.has_ip4, self.has_ip6 = ip4, ip6
        self._ports = 0
        self._carries_multicast = True

    def next_port(self) -> tuple[int, str]:
        """The number of the next host on it, and the name of its port."""
        self._ports += 1
        return self._ports, f"port{self._ports}"

    def attach(self, port: str) -> None:
        self.switch.ip("link", "set", port, "master", BRIDGE)
        self.switch.ip("link", "set", port, "up")
        self._flood(port)

    def carry_multicast(self, *, is_on: bool) -> None:
        """Whether the switch forwards multicast, as some wireless networks do not. Neighbour discovery of IPv6 is
        multicast too."""
        self._carries_multicast = is_on
        for number in range(1, self._ports + 1):
            self._flood(f"port{number}")

    def _flood(self, port: str) -> None:
        flood = "on" if self._carries_multicast else "off"
        self.switch.ip("link", "set", "dev", port, "type", "bridge_slave", "mcast_flood", flood)


@dataclass(slots=True, kw_only=True)
class LanHost:
    """A machine on one LAN or several. Made by `Site.host`."""

    name: str
    namespace: Namespace
    interfaces: list[HostInterface] = field(default_factory=list)

    @property
    def ip4(self) -> str:
        """Its IPv4 address on its first LAN."""
        return self.interfaces[0].ip4

    def join(self, lan: Lan) -> HostInterface:
        """Plug another interface into a LAN."""
        number, port = lan.next_port()
        name = f"eth{len(self.interfaces)}"
        interface = HostInterface(
            name=name,
            lan=lan,
            port=port,
            ip4=f"10.77.{lan.number}.{number}" if lan.has_ip4 else "",
            ip6=f"fd77:{lan.number}::{number:x}" if lan.has_ip6 else "",
        )
        self.interfaces.append(interface)
        self._plug_in(interface)
        return interface

    def exchange(self, interface: HostInterface) -> None:
        """Replace the device of an interface by a new one with the same name and addresses."""
        self.namespace.ip("link", "delete", interface.name)
        self._plug_in(interface)

    def _plug_in(self, interface: HostInterface) -> None:
        peer = ("peer", "name", interface.port, "netns", interface.lan.switch.name)
        self.namespace.ip("link", "add", interface.name, "type", "veth", *peer)
        interface.lan.attach(interface.port)
        if interface.ip4:
            self.namespace.ip("addr", "add", f"{interface.ip4}/24", "dev", interface.name)
        self.up(interface)

    def readdress(self, interface: HostInterface, ip4: str) -> HostInterface:
        """Give an interface another IPv4 address, or none (''), as DHCP does. Returns the interface as it is then."""
        if interface.ip4:
            self.namespace.ip("addr", "del", f"{interface.ip4}/24", "dev", interface.name)
        readdressed = replace(interface, ip4=ip4)
        self.interfaces[self.interfaces.index(interface)] = readdressed
        if ip4:
            self.namespace.ip("addr", "add", f"{ip4}/24", "dev", interface.name)
        self.up(readdressed)
        return readdressed

    def bridge(self, name: str, address: str) -> None:
        """Make a bridge that leads nowhere, like that of a container engine; `address` is like `172.17.0.1/16`."""
        self.namespace.ip("link", "add", name, "type", "bridge")
        self.namespace.ip("addr", "add", address, "dev", name)
        self.namespace.ip("link", "set", name, "up")

    def down(self, interface: HostInterface) -> None:
        """Take an interface down, as by pulling its cable; the kernel then drops its IPv6 addresses."""
        self.namespace.ip("link", "set", interface.name, "down")

    def up(self, interface: HostInterface) -> None:
        self.namespace.ip("link", "set", interface.name, "up")
        if interface.ip4 and interface == self.interfaces[0]:  # as on a machine whose default route leads there
            self.namespace.ip("route", "replace", "224.0.0.0/4", "dev", interface.name)
        if interface.ip6:
            self.namespace.ip("addr", "replace", f"{interface.ip6}/64", "dev", interface.name, "nodad")

    def route_by(self, router: "LanHost", lan: Lan) -> None:
        """Reach other LANs by a router, whose interface on `lan` is the next hop."""
        hop = next(each for each in router.interfaces if each.lan is lan)
        if hop.ip4:
            self.namespace.ip("route", "replace", "default", "via", hop.ip4)
        if hop.ip6:
            self.namespace.ip("-6", "route", "replace", "default", "via", hop.ip6)

    def traffic(self, interface: HostInterface) -> Traffic:
        found = self.namespace.query("-statistics", "link", "show", "dev", interface.name)[0]["stats64"]
        return Traffic(received=found["rx"]["bytes"], sent=found["tx"]["bytes"])


class Site:
    """LANs and hosts. Made by `open_site`; at the end of the `with` its processes and namespaces are gone."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._id = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(2)}"
        self._lans = 0

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def lan(self, *, ip4: bool = True, ip6: bool = False) -> Lan:
        """Another LAN, with these families of addresses."""
        self._lans += 1
        switch = self._namespace(f"switch{self._lans}")
        # Without snooping the switch forwards all multicast at once, as one without a querier on its LAN does.
        switch.ip("link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
        switch.ip("link", "set", BRIDGE, "up")
        return Lan(self._lans, switch, ip4=ip4, ip6=ip6)

    def host(self, name: str, *lans: Lan) -> LanHost:
        """Another host, on these LANs."""
        host = LanHost(name=name, namespace=self._namespace(name))
        host.namespace.set_kernel("ipv6/conf/default/accept_dad", "0")  # an address is usable at once
        for lan in lans:
            host.join(lan)
        return host

    def router(self, name: str, *lans: Lan) -> LanHost:
        """A host that forwards between these LANs. Multicast is not forwarded."""
        host = self.host(name, *lans)
        host.namespace.set_kernel("ipv4/ip_forward", "1")
        host.namespace.set_kernel("ipv6/conf/all/forwarding", "1")
        return host

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(f"{self._id}-{name}")
        self._stack.callback(namespace.delete)
        namespace.create()
        return namespace


def open_site() -> Site:
    """A site without LANs. Raises `LanUnavailable` when this machine cannot make any."""
    if missing := _missing():
        raise LanUnavailable(missing)
    sweep()
    with Site() as probe:
        probe.host("probe", probe.lan())
    return Site()


def _missing() -> str:
    """What this machine lacks; '' when it can make a site."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2's `ip`"
    return ""
