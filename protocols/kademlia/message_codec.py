"""The codec of the DHT's messages: the protobuf of the libp2p kad-dht specification.

A message has the same shape in both directions:

    Message { int32 type = 1; bytes key = 2; Record record = 3; repeated Peer closer = 8; repeated Peer providers = 9 }
    Record  { bytes key = 1; bytes value = 2; string received = 5 }
    Peer    { bytes id = 1; repeated bytes addresses = 2; int32 connection = 3 }

Other fields are ignored, `connection` and the level of the cluster among them. Peer ids and addresses are binary here
and text in the values. An address in a value ends in `/p2p/<peer id>`, as everywhere in this project; on the wire it
does not, as other implementations have it.

Everything comes from strangers. A message that cannot be read at all is `Malformed`. A contact without an Ed25519 peer
id, and an address that is no multiaddr or leads to another peer, is left out, and the rest holds: other implementations
know kinds of both that this one does not.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from multiaddr import Multiaddr

from protocols.errors import InvalidPayload, Malformed
from protocols.kademlia.contact import Contact
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
from protocols.keys import peer_id_bytes, peer_id_of_bytes

_TYPES: dict[type[Any], int] = {PutValue: 0, GetValue: 1, AddProvider: 2, GetProviders: 3, FindNode: 4, KadPing: 5}
_NAMES = {number: kind for kind, number in _TYPES.items()}
_INT, _BYTES, _MESSAGE = 5, 12, 11
"""The numbers that a descriptor has for the types of its fields."""
_FIELDS: dict[str, tuple[tuple[str, int, int | str, bool], ...]] = {
    "Record": (("key", 1, _BYTES, False), ("value", 2, _BYTES, False), ("received", 5, _BYTES, False)),
    "Peer": (("id", 1, _BYTES, False), ("addresses", 2, _BYTES, True)),
    "Message": (
        ("type", 1, _INT, False),
        ("key", 2, _BYTES, False),
        ("record", 3, "Record", False),
        ("closer", 8, "Peer", True),
        ("providers", 9, "Peer", True),
    ),
}
"""Of each message its fields: name, number, type, and whether it is repeated."""


def encode_request(request: KadRequest) -> bytes:
    """The bytes of a request, without the length in front of them."""
    message = _Message(type=_TYPES[type(request)], key=request.key)
    if isinstance(request, PutValue):
        _set_record(message, request.record)
    elif isinstance(request, AddProvider):
        _add_peers(message.providers, request.providers)
    return bytes(message.SerializeToString())


def encode_answer(request: KadRequest, answer: KadAnswer) -> bytes:
    """The bytes of an answer. It repeats type and key of the request."""
    message = _Message(type=_TYPES[type(request)], key=request.key)
    if answer.record is not None:
        _set_record(message, answer.record)
    _add_peers(message.closer, answer.closer)
    _add_peers(message.providers, answer.providers)
    return bytes(message.SerializeToString())


def decode_request(data: bytes) -> KadRequest:
    """The request in these bytes. Raises `Malformed`."""
    message = _parsed(data)
    kind = _NAMES.get(message.type)
    if kind is None:
        raise Malformed(f"a message of the unknown type {message.type}")
    if kind is KadPing:
        return KadPing(message.key[:KEY_BYTES_MAX])
    if kind is PutValue:
        return PutValue(_record_to_put(message))
    key = _checked_key(message.key)
    if kind is AddProvider:
        return AddProvider(key, _contacts(message.providers)[0])
    return kind(key)  # type: ignore[no-any-return]  # FindNode, GetValue or GetProviders


def decode_answer(data: bytes, request: KadRequest) -> KadAnswer:
    """The answer to a request. Raises `Malformed`, also for an answer to another type of request or for another key."""
    message = _parsed(data)
    if message.type != _TYPES[type(request)]:
        raise Malformed(f"an answer of type {message.type} to a request of type {_TYPES[type(request)]}")
    record = _record(message) if message.HasField("record") else None
    if message.key not in (b"", request.key) or (record and record.key not in (b"", request.key)):
        raise Malformed("an answer for another key")
    closer, left_out = _contacts(message.closer)
    providers, more_left_out = _contacts(message.providers)
    record = record and record._replace(key=request.key)
    return KadAnswer(record, closer, providers, left_out + more_left_out)


def is_answer_to_add_provider(data: bytes) -> bool:
    """Whether a message is the answer to an `AddProvider` that some implementations send, and the specification does
    not know. Raises `Malformed`."""
    return bool(_parsed(data).type == _TYPES[AddProvider])


# -- keys and records -------------------------------------------------------------------------------------------------


def _parsed(data: bytes) -> Any:
    if len(data) > MESSAGE_BYTES_MAX:
        raise Malformed(f"a message of {len(data):,} bytes, and {MESSAGE_BYTES_MAX:,} is the most")
    try:
        return _Message.FromString(data)
    except DecodeError as error:
        raise Malformed("a message that is not the protobuf of the DHT") from error


def _checked_key(key: bytes) -> bytes:
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise Malformed(f"a key of {len(key):,} bytes, and 1 to {KEY_BYTES_MAX} may be")
    return key


def _record(message: Any) -> Record:
    record = message.record
    received = record.received.decode("ascii", errors="replace")[:64]
    return Record(record.key, record.value, received)


def _record_to_put(message: Any) -> Record:
    """The record of a `PutValue`. Its key may be in the message, in the record, or in both."""
    if not message.HasField("record"):
        raise Malformed("a value to put, without the value")
    record = _record(message)
    key = _checked_key(record.key or message.key)
    if message.key not in (b"", key):
        raise Malformed("a value to put under two keys")
    return record._replace(key=key)


def _set_record(message: Any, record: Record) -> None:
    message.record.key = record.key
    message.record.value = record.value
    message.record.received = record.received.encode()


# -- contacts ---------------------------------------------------------------------------------------------------------


def _contacts(peers: Any) -> tuple[tuple[Contact, ...], int]:
    """The contacts in a list of peers, and how many of the list were left out."""
    found: dict[str, Contact] = {}
    for peer in peers[: 2 * CONTACTS_MAX]:
        try:
            name = peer_id_of_bytes(peer.id)
        except InvalidPayload:
            continue
        if name not in found and len(found) < CONTACTS_MAX:
            found[name] = Contact(name, _addresses(name, peer.addresses))
    return tuple(found.values()), len(peers) - len(found)


def _addresses(peer: str, encoded: Any) -> tuple[str, ...]:
    texts = (address_text(peer, each) for each in encoded[: 2 * ADDRESSES_MAX])
    return tuple(dict.fromkeys(text for text in texts if text))[:ADDRESSES_MAX]


def _add_peers(into: Any, contacts: Iterable[Contact]) -> None:
    for contact in contacts:
        encoded = (_address_bytes(address, contact.peer) for address in contact.addresses)
        into.add(id=peer_id_bytes(contact.peer), addresses=[each for each in encoded if each][:ADDRESSES_MAX])


@lru_cache(maxsize=8192)
def address_text(peer: str, encoded: bytes) -> str:
    """A binary address of a peer as text, with the peer id at its end; '' when it is none, or one of another peer."""
    if not 1 <= len(encoded) <= ADDRESS_BYTES_MAX:
        return ""
    try:
        text = str(Multiaddr(encoded))
        is_same = Multiaddr(text).to_bytes() == encoded  # a name with a slash in it would read as another address
    except Exception:  # the library raises errors of many kinds at the bytes of strangers
        return ""
    if not is_same or not text.isascii() or not text.isprintable():
        return ""
    route, _, last = text.rpartition("/p2p/")
    if route or text.startswith("/p2p/"):
        if last == peer:
            return text if route else ""
        if "/" not in last:
            return ""
    return f"{text}/p2p/{peer}"


@lru_cache(maxsize=8192)
def _address_bytes(address: str, peer: str) -> bytes:
    """An address of a peer in binary, without the peer id at its end; b'' when it has no binary form."""
    try:
        return bytes(Multiaddr(address.removesuffix(f"/p2p/{peer}")).to_bytes())
    except Exception:  # as above
        return b""


# -- the protobuf -----------------------------------------------------------------------------------------------------


def _message_class() -> Any:
    """The class of a message. Its descriptors are in a pool of their own, beside those of any other library."""
    file = descriptor_pb2.FileDescriptorProto(name="bzzz/kademlia.proto", package="bzzz.kademlia", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, is_repeated in fields:
            message.field.add(
                name=field,
                number=number,
                type=kind if isinstance(kind, int) else _MESSAGE,
                type_name=None if isinstance(kind, int) else f".{file.package}.{kind}",
                label=3 if is_repeated else 1,  # repeated, optional
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.Message"))


_Message = _message_class()
