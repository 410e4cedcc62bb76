"""Announcement: what a node says of itself to the whole swarm, signed (`docs/protocol.md`, 'Announcements').

An encoded announcement is a msgpack array `[facts, signature]`. `facts` are the bytes of another msgpack array:

    [major, peer, network, name, addresses, capabilities, sequence, expires_ms]

The peer signs `DOMAIN` followed by these bytes. An announcement is verified and passed on as the bytes that were
received, so a later minor version may add facts at the end, which the signature covers.

A later announcement of a peer has a greater sequence. `expires_ms` is a time of the peer's own wall clock; 0 says that
the peer leaves, and what it announced before is void. `decode` checks the structure of untrusted bytes, `verify` the
signature.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import msgpack

from protocols import keys
from protocols.capabilities import CAPABILITIES_MAX, Capability, fields_of, from_fields
from protocols.errors import BadSignature, BzzzError, Malformed, TooLarge
from protocols.names import is_name

TOPIC = "bzzz/announce/v1"
MAJOR = 1
ENCODED_BYTES_MAX = 16 * 1024
ADDRESSES_MAX = 16
ADDRESS_CHARS_MAX = 256

DOMAIN = b"bzzz announcement 1\0"
"""The prefix of what is signed, so that no signature over anything else is valid here."""
_ITEMS_MAX = 64
_FACTS = 8
_NUMBER_MAX = 1 << 53
"""Sequences and times stay whole numbers in every language."""
_ADDRESS = re.compile(rf"/[!-~]{{1,{ADDRESS_CHARS_MAX - 1}}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Made only by `seal` or `decode`."""

    peer: str
    network: str
    """The name of the swarm."""
    name: str
    """What a person calls the node; may be ''."""
    addresses: tuple[str, ...]
    """Multiaddrs, each of which ends in /p2p/ and the peer's id."""
    capabilities: tuple[Capability, ...]
    sequence: int
    expires_ms: int
    """Unix milliseconds on the peer's clock; 0: the peer leaves."""
    encoded: bytes
    """The bytes that were made or received."""
    facts: bytes
    signature: bytes

    @property
    def is_farewell(self) -> bool:
        return self.expires_ms == 0


def seal(
    key: keys.PrivateKey,
    *,
    network: str,
    name: str,
    addresses: Iterable[str],
    capabilities: Iterable[Capability],
    sequence: int,
    expires_ms: int,
) -> Announcement:
    """Make and sign an announcement. Raises `TooLarge`, or what `decode` raises for the same fault."""
    offered = [fields_of(capability) for capability in capabilities]
    facts = msgpack.packb((MAJOR, key.peer_id, network, name, list(addresses), offered, sequence, expires_ms))
    return decode(msgpack.packb((facts, key.sign(DOMAIN + facts))))


def decode(data: bytes) -> Announcement:
    """The announcement in these bytes; its signature is not checked. Raises `TooLarge` or `Malformed`."""
    if len(data) > ENCODED_BYTES_MAX:
        raise TooLarge(
            f"an announcement of {len(data):,} bytes is too long, {ENCODED_BYTES_MAX:,} are the most: announce fewer "
            "capabilities or addresses",
            size_bytes=len(data), size_bytes_max=ENCODED_BYTES_MAX,
        )  # fmt: skip
    parts = _unpacked(data)
    if len(parts) != 2 or type(parts[0]) is not bytes or type(parts[1]) is not bytes:
        _refuse("it is not [facts, signature]")
    encoded_facts, signature = parts
    facts = _unpacked(encoded_facts)
    if len(facts) < _FACTS or type(facts[0]) is not int or facts[0] != MAJOR:
        _refuse(f"it is not of major {MAJOR}, or lacks facts")
    _, peer, network, name, addresses, capabilities, sequence, expires_ms = facts[:_FACTS]
    _check_names(peer, network, name)
    return Announcement(
        peer=peer,
        network=network,
        name=name,
        addresses=_addresses(addresses, peer),
        capabilities=_capabilities(capabilities),
        sequence=_number(sequence),
        expires_ms=_number(expires_ms),
        encoded=data,
        facts=encoded_facts,
        signature=signature,
    )


def verify(announcement: Announcement) -> None:
    """Raise `BadSignature` unless the peer signed exactly these facts."""
    if not keys.verify(announcement.peer, DOMAIN + announcement.facts, announcement.signature):
        raise BadSignature(f"an announcement of {announcement.peer} that this peer did not sign")


def _unpacked(data: bytes) -> list[Any]:
    try:
        value = msgpack.unpackb(data, max_ext_len=0, max_map_len=0, max_array_len=_ITEMS_MAX)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise Malformed(f"not an announcement: it is not msgpack ({error})") from error
    if type(value) is not list:
        _refuse("it is not an array")
    return value


def _check_names(peer: object, network: object, name: object) -> None:
    if type(peer) is not str or type(network) is not str or type(name) is not str:
        _refuse("the peer, the network and the name are texts")
    keys.public_key(peer)
    if not is_name(network) or not (name == "" or is_name(name)):
        _refuse("the network or the name is not 1 to 64 letters, digits, '-', '_' and '.'")


def _addresses(value: object, peer: str) -> tuple[str, ...]:
    if type(value) is not list or len(value) > ADDRESSES_MAX:
        _refuse(f"the addresses are a list of at most {ADDRESSES_MAX}")
    for address in value:
        if type(address) is not str or _ADDRESS.fullmatch(address) is None or not address.endswith(f"/p2p/{peer}"):
            _refuse("an address is a multiaddr that ends in the id of its peer")
    return tuple(value)


def _capabilities(value: object) -> tuple[Capability, ...]:
    if type(value) is not list or len(value) > CAPABILITIES_MAX:
        _refuse(f"the capabilities are a list of at most {CAPABILITIES_MAX}")
    return tuple(_capability(each) for each in value)


def _capability(value: object) -> Capability:
    if type(value) is not list or not value:
        _refuse("a capability is an array of its kind and its fields")
    try:
        return from_fields(value)
    except BzzzError as error:
        raise Malformed(f"not an announcement: {error.message}") from error


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < _NUMBER_MAX:
        _refuse("the sequence and the expiry are whole numbers from 0 to 2^53")
    return value


def _refuse(why: str) -> NoReturn:
    raise Malformed(f"not an announcement: {why}")
