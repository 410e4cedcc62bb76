"""The interfaces that multicast uses: those at whose addresses others dial the node."""

import ifaddr

from discovery.interfaces import INTERFACES_MAX, Interface, choose, interfaces_of


def adapter(name: str, index: int, *hosts: str) -> ifaddr.Adapter:
    ips = [ifaddr.IP((host, 0, index) if ":" in host else host, 64 if ":" in host else 24, name) for host in hosts]
    return ifaddr.Adapter(name, name, ips, index)


LOOPBACK = adapter("lo", 1, "127.0.0.1", "::1")
WIRED = adapter("eth0", 2, "192.168.1.2", "fe80::2", "fd00::2")
WIRELESS = adapter("wlan0", 3, "10.0.0.3")
BRIDGE = adapter("veth7", 9, "fe80::9")
EVERY = [WIRELESS, BRIDGE, WIRED, LOOPBACK]


def test_an_interface_is_used_for_the_families_of_the_addresses_that_others_dial() -> None:
    assert choose(EVERY, {"192.168.1.2"}) == (Interface(name="eth0", index=2, ip4="192.168.1.2"),)
    assert choose(EVERY, {"fd00::2"}) == (Interface(name="eth0", index=2, has_ip6=True),)
    both = choose(EVERY, {"192.168.1.2", "fd00::2", "10.0.0.3"})
    assert [each.name for each in both] == ["eth0", "wlan0"]
    assert both[0] == Interface(name="eth0", index=2, ip4="192.168.1.2", has_ip6=True)


def test_a_node_that_tells_none_of_its_own_addresses_uses_every_network_but_loopback() -> None:
    assert [each.name for each in choose(EVERY, {"203.0.113.7"})] == ["eth0", "wlan0"]
    assert choose([LOOPBACK, BRIDGE], {"203.0.113.7"}) == ()


def test_no_machine_uses_more_interfaces_than_have_descriptors() -> None:
    many = [adapter(f"eth{number}", number, f"10.0.{number}.1") for number in range(1, 100)]
    assert len(choose(many, ())) == INTERFACES_MAX


def test_the_interfaces_of_this_machine_can_be_read() -> None:
    assert [each.ip4 for each in interfaces_of({"127.0.0.1"})] == ["127.0.0.1"]
