"""Multiaddrs: those that are supported, and the complaint about each other one."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.swarm.libp2p.address import TcpAddress, parse
from protocols.keys import PrivateKey

PEER = PrivateKey.from_seed(bytes(32)).peer_id


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("/ip4/192.0.2.7/tcp/4001", TcpAddress(kind="ip4", host="192.0.2.7", port=4001)),
        ("/ip4/127.0.0.1/tcp/0/", TcpAddress(kind="ip4", host="127.0.0.1", port=0)),
        ("/ip6/fe80::1%eth0.7/tcp/1", TcpAddress(kind="ip6", host="fe80::1%eth0.7", port=1)),
        ("/ip6/0:0::1/tcp/4001", TcpAddress(kind="ip6", host="::1", port=4001)),
        (f"/dns4/a.example/tcp/1/p2p/{PEER}", TcpAddress(kind="dns4", host="a.example", port=1, peer=PEER)),
        (f"/ip4/127.0.0.1/tcp/1/ipfs/{PEER}", TcpAddress(kind="ip4", host="127.0.0.1", port=1, peer=PEER)),
    ],
)
def test_an_address_is_read_and_written(text: str, endpoint: TcpAddress) -> None:
    assert parse(text) == endpoint
    assert parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not an address"),
        ("127.0.0.1:4001", "not an address"),
        ("ip4/127.0.0.1/tcp/1", "not an address"),
        ("/ip4/127.0.0.1/udp/1/quic-v1", "not an address"),
        ("/ip4/127.0.0.1/tcp/1/ws", "not an address"),
        (f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit", "not an address"),
        ("/ip4/127.0.0.256/tcp/1", "not an IPv4 address"),
        ("/ip6/127.0.0.1/tcp/1", "not an IPv6 address"),
        ("/ip6/fe80::1%a..b/tcp/1", "not an IPv6 address"),
        ("/ip6/fe80::1%\ud800/tcp/1", "not an IPv6 address"),
        (f"/ip6/fe80::1%{'x' * 16}/tcp/1", "not an IPv6 address"),
        ("/unix/socket/tcp/1", "not supported"),
        ("/dns4//tcp/1", "cannot be a host"),
        ("/dns4/a..b/tcp/1", "cannot be a host"),
        ("/dns/.a/tcp/1", "cannot be a host"),
        (f"/dns6/{'a' * 64}.example/tcp/1", "cannot be a host"),
        (f"/dns4/{'a.' * 127}b/tcp/1", "cannot be a host"),
        ("/dns4/xn--\u0640/tcp/1", "cannot be a host"),
        ("/dns4/a b/tcp/1", "cannot be a host"),
        ("/dns4/a\0b/tcp/1", "cannot be a host"),
        (f"/ip4/127.0.0.1/tcp/{'1' * 5000}", "not a TCP port"),
        ("/ip4/127.0.0.1/tcp/65536", "not a TCP port"),
        ("/ip4/127.0.0.1/tcp/-1", "not a TCP port"),
        ("/ip4/127.0.0.1/tcp/\u0661", "not a TCP port"),
        ("/ip4/127.0.0.1/tcp/1/p2p/nobody", "does not name a peer"),
        ("/ip4/127.0.0.1/tcp/1/p2p/", "not an address"),
    ],
)
def test_the_message_says_what_is_wrong_with_an_address(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(text)


@given(st.text(alphabet="/ip46tcdns2.:10%", max_size=40) | st.text(max_size=20))
def test_no_text_raises_anything_but_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse(str(parse(text))) == parse(text)
