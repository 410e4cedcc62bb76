"""The addresses that others are told of this node, and those that lead back to it."""

import pytest

from protocols.policy.own_addresses import OBSERVED_MAX, OBSERVERS_MAX, AddressRules, OwnAddresses

LOOPBACK, LAN, DOCKER = "/ip4/127.0.0.1/tcp/4001", "/ip4/192.168.1.7/tcp/4001", "/ip4/172.17.0.1/tcp/4001"
SIX = "/ip6/fd00::7/tcp/4001"


def own(*addresses: str, only: tuple[str, ...] = (), excluded: tuple[str, ...] = ()) -> OwnAddresses:
    addresses_of = OwnAddresses("me", AddressRules(only=only, excluded=excluded))
    addresses_of.listen([f"{address}/p2p/me" for address in addresses])
    return addresses_of


def told(addresses: OwnAddresses, **options: bool) -> list[str]:
    suffix = "/p2p/me"
    assert all(address.endswith(suffix) for address in addresses.advertised(**options))
    return [address.removesuffix(suffix) for address in addresses.advertised(**options)]


def test_a_loopback_address_is_told_on_this_machine_alone() -> None:
    node = own(LAN, LOOPBACK)
    assert told(node) == [LAN]
    assert told(node, on_this_machine=True) == [LAN, LOOPBACK]


@pytest.mark.parametrize(
    ("only", "excluded", "expected"),
    [
        ((), (), [LAN, DOCKER, SIX]),
        (("192.168.0.0/16",), (), [LAN]),
        (("192.168.1.7",), (), [LAN]),
        (("fd00::/8",), (), [SIX]),
        ((), ("172.16.0.0/12",), [LAN, SIX]),
        ((), (DOCKER,), [LAN, SIX]),
        (("192.168.0.0/16", "172.16.0.0/12"), ("172.17.0.1",), [LAN]),
        (("/dns4/me.example/tcp/14001",), (), ["/dns4/me.example/tcp/14001"]),
        (("/ip4/203.0.113.7/tcp/14001", "192.168.0.0/16"), (), ["/ip4/203.0.113.7/tcp/14001", LAN]),
        (("10.0.0.0/8",), (), []),
    ],
)
def test_an_operator_chooses_by_address_or_network(
    only: tuple[str, ...], excluded: tuple[str, ...], expected: list[str]
) -> None:
    assert told(own(LAN, DOCKER, SIX, LOOPBACK, only=only, excluded=excluded)) == expected


def test_a_lost_address_is_not_told_any_more() -> None:
    node = own(LAN, LOOPBACK)
    node.listen((f"{DOCKER}/p2p/me",))
    assert told(node, on_this_machine=True) == [DOCKER]


def test_an_address_of_this_node_is_own_whatever_peer_it_names() -> None:
    node = own(LAN, LOOPBACK)
    assert node.is_own(f"{LAN}/p2p/other")
    assert node.is_own(LOOPBACK)
    assert not node.is_own("/ip4/127.0.0.1/tcp/4002/p2p/other"), "another node on this machine"


def test_a_connection_from_an_own_address_comes_from_this_machine() -> None:
    node = own(LAN, LOOPBACK)
    assert node.is_this_machine("/ip4/127.0.0.1/tcp/50000")
    assert node.is_this_machine("/ip4/192.168.1.7/tcp/50000")
    assert not node.is_this_machine("/ip4/192.168.1.8/tcp/50000")
    assert not node.is_this_machine("")


OUTSIDE = "/ip4/203.0.113.7/tcp/50000"


def test_an_address_that_several_peers_see_is_told_with_the_ports_that_the_node_listens_at() -> None:
    node = own(LAN)
    node.observe("a", OUTSIDE, dialled=True)
    assert told(node) == [LAN], "one peer may lie"
    node.observe("b", "/ip4/203.0.113.7/tcp/50001", dialled=True)
    assert told(node) == [LAN, "/ip4/203.0.113.7/tcp/4001"]
    node.forget("a")
    assert told(node) == [LAN], "it is not connected any more"


def test_an_address_that_peers_dialled_is_told_as_it_is() -> None:
    node = own(LAN)
    for peer in ("a", "b"):
        node.observe(peer, f"/dns4/me.example/tcp/14001/p2p/{peer}", dialled=False)
    assert told(node) == [LAN, "/dns4/me.example/tcp/14001"]


@pytest.mark.parametrize("seen", [LAN, "/ip4/192.168.1.7/tcp/50000", "/ip4/127.0.0.1/tcp/50000", "/ip6/fe80::1/tcp/1"])
def test_what_tells_nothing_new_or_leads_nowhere_is_not_counted(seen: str) -> None:
    node = own(LAN)
    for peer in ("a", "b", "c"):
        node.observe(peer, seen, dialled=True)
    assert told(node) == [LAN]


def test_an_operators_rules_hold_for_observed_addresses_too() -> None:
    node = own(LAN, excluded=("203.0.113.0/24",))
    for peer in ("a", "b"):
        node.observe(peer, OUTSIDE, dialled=True)
    assert told(node) == [LAN]


def test_peers_cannot_make_a_node_tell_many_addresses_nor_fill_its_memory() -> None:
    node = own(LAN)
    for number in range(3 * OBSERVERS_MAX):
        node.observe(f"p{number}", f"/ip4/203.0.113.{number // 2 % 250}/tcp/1", dialled=True)
    assert len(told(node)) == 1 + OBSERVED_MAX
    assert len(node._observed) == OBSERVERS_MAX  # private: its size shows nowhere else
