"""Scopes: how far an address reaches, by its text alone."""

import pytest

from protocols.policy.address_scope import Scope, endpoint_of, host_of, scope_of, subnet


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        ("/ip4/127.0.0.1/tcp/4001", Scope.LOOPBACK),
        ("/ip4/127.9.9.9/tcp/4001/p2p/12D3KooWA", Scope.LOOPBACK),
        ("/ip6/::1/tcp/4001", Scope.LOOPBACK),
        ("/ip6/::ffff:127.0.0.1/tcp/4001", Scope.LOOPBACK),
        ("/dns4/localhost/tcp/4001", Scope.LOOPBACK),
        ("/dns/a.localhost/tcp/4001", Scope.LOOPBACK),
        ("/ip6/fe80::1/tcp/4001", Scope.LINK),
        ("/ip6/fe80::1%eth0/tcp/4001", Scope.LINK),
        ("/ip4/169.254.7.7/tcp/4001", Scope.NETWORK),
        ("/ip4/10.0.0.1/tcp/4001", Scope.NETWORK),
        ("/ip4/172.17.0.1/tcp/4001", Scope.NETWORK),
        ("/ip4/8.8.8.8/tcp/4001/p2p/12D3KooWA", Scope.NETWORK),
        ("/ip6/fd00::1/tcp/4001", Scope.NETWORK),
        ("/dns4/seed.example/tcp/4001", Scope.NETWORK),
        ("/dns4/notlocalhost/tcp/4001", Scope.NETWORK),
        ("/memory/1/p2p/12D3KooWA", Scope.NETWORK),
        ("/ip4/0.0.0.0/tcp/4001", Scope.NOWHERE),
        ("/ip6/::/tcp/4001", Scope.NOWHERE),
        ("/ip4/224.0.0.251/tcp/4001", Scope.NOWHERE),
        ("/ip4/255.255.255.255/tcp/4001", Scope.NOWHERE),
        ("/ip6/ff02::fb/tcp/4001", Scope.NOWHERE),
        ("/ip4/10.0.0.1/tcp/0", Scope.NOWHERE),
    ],
)
def test_the_scope_of_an_address(address: str, scope: Scope) -> None:
    assert scope_of(address) is scope


def test_the_parts_of_an_address() -> None:
    address = "/ip6/fe80::1%eth0/tcp/4001/p2p/12D3KooWA"
    assert host_of(address) == "fe80::1"
    assert endpoint_of(address) == "/ip6/fe80::1%eth0/tcp/4001"
    assert host_of("") == ""


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("8.8.8.8", "8.8.8.0/24"),
        ("8.8.8.255", "8.8.8.0/24"),
        ("2001:4860:4860::8888", "2001:4860:4860::/48"),
        ("2001:4860:4860:ffff::1", "2001:4860:4860::/48"),
        ("::ffff:8.8.4.4", "8.8.4.0/24"),
        ("127.0.0.1", None),
        ("::1", None),
        ("10.1.2.3", None),
        ("192.168.7.7", None),
        ("172.16.0.1", None),
        ("169.254.1.1", None),
        ("fe80::1", None),
        ("fd00::1", None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_public_addresses_are_counted_by_their_subnet_and_others_are_not(host: str, expected: str | None) -> None:
    assert subnet(host) == expected
