"""The DHT's messages: round trips, what other implementations send, and whatever strangers send."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.kad_dht.pb import kademlia_pb2
from multiaddr import Multiaddr

from protocols.errors import Malformed
from protocols.kademlia.contact import Contact
from protocols.kademlia.message_codec import decode_answer, decode_request, encode_answer, encode_request
from protocols.kademlia.messages import (
    ADDRESS_BYTES_MAX,
    ADDRESSES_MAX,
    CONTACTS_MAX,
    KEY_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    AddProvider,
    FindNode,
    GetProviders,
    GetValue,
    KadAnswer,
    KadPing,
    KadRequest,
    PutValue,
    Record,
)
from protocols.keys import PrivateKey, peer_id_bytes
from tests.unit.vectors import load

PEERS = [PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(2 * CONTACTS_MAX + 2)]
ROUTES = ("/ip4/192.0.2.7/tcp/4001", "/ip6/2001:db8::7/tcp/4001", "/dns4/example.net/tcp/443/wss", "/memory/7")
VECTORS = load("kademlia")

keys = st.binary(min_size=1, max_size=KEY_BYTES_MAX)
records = st.builds(Record, keys, st.binary(max_size=400), st.sampled_from(["", "2025-08-07T14:13:20.000000000Z"]))
peers = st.sampled_from(PEERS[:CONTACTS_MAX])
contacts = st.dictionaries(peers, st.sets(st.sampled_from(ROUTES)), max_size=5).map(
    lambda found: tuple(
        Contact(peer, tuple(f"{route}/p2p/{peer}" for route in sorted(routes))) for peer, routes in found.items()
    )
)
requests: st.SearchStrategy[KadRequest] = st.one_of(
    st.builds(FindNode, keys),
    st.builds(GetValue, keys),
    st.builds(PutValue, records),
    st.builds(AddProvider, keys, contacts),
    st.builds(GetProviders, keys),
    st.builds(KadPing),
)


def message(kind: int = 4, **fields: object) -> "kademlia_pb2.Message":
    """As another implementation makes it; 4 is FIND_NODE."""
    return kademlia_pb2.Message(type=kind, **fields)  # type: ignore[arg-type]


def peer(name: str, *addresses: str | bytes) -> "kademlia_pb2.Message.Peer":
    encoded = [each if isinstance(each, bytes) else Multiaddr(each).to_bytes() for each in addresses]
    return kademlia_pb2.Message.Peer(id=peer_id_bytes(name), addrs=encoded)


def closer_in(*found: "kademlia_pb2.Message.Peer") -> KadAnswer:
    return decode_answer(message(closerPeers=found).SerializeToString(), FindNode(b"key"))


# -- golden vectors -------------------------------------------------------------------------------------------------


def as_json(value: object) -> object:
    match value:
        case bytes():
            return value.hex()
        case Contact():
            return {"peer": value.peer, "addresses": list(value.addresses)}
        case tuple() if hasattr(value, "_asdict"):
            return {name: as_json(one) for name, one in value._asdict().items() if name != "left_out"}
        case tuple():
            return [as_json(one) for one in value]
        case _:
            return value


REQUESTS = {each["name"]: decode_request(bytes.fromhex(each["encoded"])) for each in VECTORS["requests"]}


@pytest.mark.parametrize("vector", VECTORS["requests"], ids=lambda vector: vector["name"])
def test_golden_requests_are_read_and_made(vector: dict[str, str]) -> None:
    request = REQUESTS[vector["name"]]
    assert (type(request).__name__.removeprefix("Kad"), as_json(request)) == (vector["message"], vector["fields"])
    assert encode_request(request).hex() == vector["encoded"]


@pytest.mark.parametrize("vector", VECTORS["answers"], ids=lambda vector: vector["name"])
def test_golden_answers_are_read_and_made(vector: dict[str, str]) -> None:
    request = REQUESTS[vector["to"]]
    answer = decode_answer(bytes.fromhex(vector["encoded"]), request)
    assert as_json(answer) == vector["fields"]
    assert encode_answer(request, answer).hex() == vector["encoded"]


@pytest.mark.parametrize("vector", VECTORS["tolerated"], ids=lambda vector: vector["name"])
def test_golden_answers_of_which_a_part_is_left_out(vector: dict[str, str]) -> None:
    answer = decode_answer(bytes.fromhex(vector["encoded"]), REQUESTS[vector["to"]])
    assert as_json(answer) == vector["fields"]


@pytest.mark.parametrize("vector", VECTORS["refused_requests"], ids=lambda vector: vector["name"])
def test_golden_requests_that_are_none_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        decode_request(bytes.fromhex(vector["encoded"]))


@pytest.mark.parametrize("vector", VECTORS["refused_answers"], ids=lambda vector: vector["name"])
def test_golden_answers_to_something_else_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        decode_answer(bytes.fromhex(vector["encoded"]), REQUESTS[vector["to"]])


# -- round trips ----------------------------------------------------------------------------------------------------


@given(requests)
def test_a_request_comes_back_as_it_was(request: KadRequest) -> None:
    assert decode_request(encode_request(request)) == request


@given(requests, st.none() | st.binary(max_size=400), contacts, contacts)
def test_an_answer_comes_back_as_it_was(
    request: KadRequest, value: bytes | None, closer: tuple[Contact, ...], providers: tuple[Contact, ...]
) -> None:
    record = None if value is None else Record(request.key, value, "2025-08-07T14:13:20.000000000Z")
    answer = KadAnswer(record, closer, providers)
    assert decode_answer(encode_answer(request, answer), request) == answer


@given(requests)
def test_the_messages_are_those_of_other_implementations(request: KadRequest) -> None:
    read = kademlia_pb2.Message.FromString(encode_request(request))
    assert read.key == request.key
    assert decode_request(read.SerializeToString()) == request


# -- strangers ------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_message_or_malformed(data: bytes) -> None:
    for decode in (decode_request, lambda each: decode_answer(each, GetValue(b"key"))):
        with contextlib.suppress(Malformed):
            decode(data)


@given(requests, st.data())
def test_a_damaged_message_is_a_message_or_malformed(request: KadRequest, data: st.DataObject) -> None:
    encoded = bytearray(encode_request(request))
    at = data.draw(st.integers(0, max(0, len(encoded) - 1)))
    encoded[at : at + 1] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(Malformed):
        decode_request(bytes(encoded))


def test_an_answer_makes_no_more_contacts_than_the_most_and_says_how_many_were_left_out() -> None:
    answer = closer_in(*(peer(name) for name in PEERS))
    assert [each.peer for each in answer.closer] == PEERS[:CONTACTS_MAX]
    assert answer.left_out == len(PEERS) - CONTACTS_MAX


def test_a_contact_keeps_no_more_addresses_than_the_most_and_none_that_is_too_long() -> None:
    many = [f"/ip4/192.0.2.7/tcp/{port}" for port in range(1, 4 * ADDRESSES_MAX)]
    long = Multiaddr(f"/dns4/{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}/tcp/1").to_bytes()
    assert len(long) > ADDRESS_BYTES_MAX
    (contact,) = closer_in(peer(PEERS[0], long, *many)).closer
    assert len(contact.addresses) == ADDRESSES_MAX
    assert contact.addresses[0] == f"{many[0]}/p2p/{PEERS[0]}"


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ("/ip4/192.0.2.7/udp/4001/quic-v1", f"/ip4/192.0.2.7/udp/4001/quic-v1/p2p/{PEERS[0]}"),
        (
            f"/ip4/192.0.2.7/tcp/1/p2p/{PEERS[1]}/p2p-circuit",
            f"/ip4/192.0.2.7/tcp/1/p2p/{PEERS[1]}/p2p-circuit/p2p/{PEERS[0]}",
        ),
        (f"/ip4/192.0.2.7/tcp/1/p2p/{PEERS[1]}", ""),
        (f"/p2p/{PEERS[0]}", ""),
        (b"\x36\x09a/tcp/1/b", ""),  # a name with slashes in it
        (b"\x36\x03a\nb", ""),
        (b"", ""),
    ],
)
def test_an_address_is_that_of_its_peer_or_is_left_out(encoded: str | bytes, text: str) -> None:
    (contact,) = closer_in(peer(PEERS[0], encoded)).closer
    assert contact.addresses == ((text,) if text else ())


def test_an_address_without_a_binary_form_is_left_out_of_a_message() -> None:
    answer = KadAnswer(closer=(Contact(PEERS[0], ("no address", f"/ip4/192.0.2.7/tcp/1/p2p/{PEERS[0]}")),))
    read = decode_answer(encode_answer(FindNode(b"key"), answer), FindNode(b"key"))
    assert read.closer[0].addresses == (f"/ip4/192.0.2.7/tcp/1/p2p/{PEERS[0]}",)


def test_a_message_that_is_too_long_is_malformed() -> None:
    with pytest.raises(Malformed, match="is the most"):
        decode_request(encode_request(PutValue(Record(b"key", bytes(MESSAGE_BYTES_MAX)))))


def test_the_key_of_a_value_may_be_in_the_message_alone() -> None:
    put = message(kind=0, key=b"key", record=kademlia_pb2.Record(value=b"value"))
    assert decode_request(put.SerializeToString()) == PutValue(Record(b"key", b"value"))
