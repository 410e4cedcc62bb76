"""mDNS records: the service of a network, the own record, and what is taken from the record of a stranger."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.mdns_records import (
    ADDRESSES_MAX,
    DEFAULT_NETWORK,
    SERVICE,
    TXT_BYTES_MAX,
    BadRecord,
    RecordFault,
    announced,
    dialable_host,
    is_instance_of,
    read_record,
    service_of,
    txt_data,
)
from node.config.settings import Settings
from protocols.keys import PrivateKey

PEER = PrivateKey.from_seed(b"\x05" * 32).peer_id
OTHER = PrivateKey.from_seed(b"\x06" * 32).peer_id


def at(host: str, port: int = 4001, peer: str = PEER) -> str:
    return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}/p2p/{peer}"


def texts(*entries: str | bytes) -> bytes:
    raw = [entry.encode() if isinstance(entry, str) else entry for entry in entries]
    return b"".join(bytes((len(entry),)) + entry for entry in raw)


def fault_of(*data: bytes) -> RecordFault:
    with pytest.raises(BadRecord) as refused:
        read_record(data)
    return refused.value.fault


# -- services ---------------------------------------------------------------------------------------------------------


def test_the_default_network_has_the_service_of_all_libp2p_nodes() -> None:
    assert Settings().network == DEFAULT_NETWORK
    assert service_of(Settings().network) == SERVICE == "_p2p._udp.local."


@given(st.text(min_size=1, max_size=64), st.text(min_size=1, max_size=64))
def test_networks_of_other_names_have_services_of_their_own(one: str, other: str) -> None:
    assert (service_of(one) == service_of(other)) == (one == other)
    label = service_of(one).split(".")[0]
    assert label.startswith("_p2p") and len(label) <= 16 and label.isascii()


def test_an_instance_is_one_label_before_the_service() -> None:
    assert is_instance_of("a1b2._p2p._udp.local.", SERVICE)
    for name in ("_p2p._udp.local.", "._p2p._udp.local.", "a.b._p2p._udp.local.", "a\x1b._p2p._udp.local.", "a.local."):
        assert not is_instance_of(name, SERVICE)
    assert not is_instance_of("a" * 64 + "." + SERVICE, SERVICE)


# -- the own record ---------------------------------------------------------------------------------------------------


def test_what_is_announced_is_read_again_in_order() -> None:
    addresses = (at("192.168.7.2"), at("fd00::2"))
    record = read_record([txt_data(announced(addresses))])
    assert (record.peer, record.addresses) == (PEER, addresses)


def test_loopback_and_link_local_addresses_are_not_announced() -> None:
    usable = (at("10.0.0.1"), at("169.254.1.1"), at("fd00::1"))
    assert announced([at("127.0.0.1"), at("::1"), at("fe80::1"), *usable]) == usable


def test_the_own_record_names_the_first_addresses_that_fit_into_a_packet() -> None:
    many = [at(f"10.0.0.{number}") for number in range(1, 200)]
    named = announced(many)
    assert named == tuple(many[: len(named)])
    assert 5 <= len(named) < 200
    assert len(txt_data(named)) <= TXT_BYTES_MAX


# -- the record of a peer ---------------------------------------------------------------------------------------------


def test_several_txt_records_of_one_peer_belong_together() -> None:
    record = read_record([texts(f"dnsaddr={at('10.0.0.1')}"), texts(f"dnsaddr={at('10.0.0.2')}")])
    assert record.addresses == (at("10.0.0.1"), at("10.0.0.2"))


def test_other_strings_and_addresses_that_cannot_be_dialled_are_left_out() -> None:
    quic = f"/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{PEER}"
    relayed = f"/ip4/10.0.0.9/tcp/4001/p2p/{OTHER}/p2p-circuit/p2p/{PEER}"
    entries = ["version=7", *(f"dnsaddr={each}" for each in (quic, relayed, at("127.0.0.1"), at("10.0.0.1")))]
    assert read_record([texts(*entries)]).addresses == (at("10.0.0.1"),)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", RecordFault.MALFORMED),
        (b"\x00", RecordFault.MALFORMED),
        (b"\xffshort", RecordFault.MALFORMED),
        (texts(b"dnsaddr=/ip4/10.0.0.1/tcp/4001"), RecordFault.MALFORMED),
        (texts(b"dnsaddr=\xff\xfe/p2p/" + PEER.encode()), RecordFault.MALFORMED),
        (texts(f"dnsaddr={at('10.0.0.1')}", f"dnsaddr={at('10.0.0.1', peer=OTHER)}"), RecordFault.SEVERAL_PEERS),
        (
            texts("dnsaddr=/ip4/10.0.0.1/tcp/4001/p2p/QmNPubsDWATVngE3d5WDSNe7eVrFLuk38qb9t6vdLnu2aK"),
            RecordFault.NOT_USABLE,
        ),
        (texts("dnsaddr=/ip4/10.0.0.1/tcp/4001/p2p/nobody"), RecordFault.NOT_USABLE),
        (texts(f"dnsaddr={at('127.0.0.1')}"), RecordFault.NOT_USABLE),
        (texts(f"dnsaddr=/dns4/victim.example/tcp/22/p2p/{PEER}"), RecordFault.NOT_USABLE),
    ],
)
def test_a_record_that_names_no_peer_that_can_be_dialled_is_dropped(data: bytes, fault: RecordFault) -> None:
    assert fault_of(data) is fault


def test_a_record_with_a_thousand_addresses_is_dropped_whole() -> None:
    thousand = [texts(f"dnsaddr={at('10.0.0.1', port)}") for port in range(1, 1001)]
    assert fault_of(*thousand) is RecordFault.TOO_MANY_ADDRESSES
    assert len(read_record(thousand[:ADDRESSES_MAX]).addresses) == ADDRESSES_MAX


@pytest.mark.parametrize(
    "address",
    [
        "", "/", f"/ip4/10.0.0.1/tcp/0/p2p/{PEER}", f"/ip4/10.0.0.1/tcp/65536/p2p/{PEER}",
        f"/ip4/10.0.0.1/tcp/٤٠٠١/p2p/{PEER}", f"/ip4/10.0.0.256/tcp/1/p2p/{PEER}", f"/ip4/0.0.0.0/tcp/1/p2p/{PEER}",
        f"/ip4/224.0.0.1/tcp/1/p2p/{PEER}", f"/ip6/fe80::1%eth0/tcp/1/p2p/{PEER}", f"x/ip4/10.0.0.1/tcp/1/p2p/{PEER}",
    ],
)  # fmt: skip
def test_what_another_machine_cannot_dial_has_no_host(address: str) -> None:
    assert dialable_host(address) == ""


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_any_bytes_of_a_stranger_are_a_record_or_a_fault(data: list[bytes]) -> None:
    for strings in (data, [texts(*(b"dnsaddr=/" + each[:200] for each in data))]):
        try:
            record = read_record(strings)
        except BadRecord:
            continue
        assert record.addresses and all(dialable_host(address) for address in record.addresses)
