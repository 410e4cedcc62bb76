"""Ed25519 keys, peer ids and signatures, in the formats of libp2p.

PyNaCl (libsodium) computes them. Libraries differ in edge cases of Ed25519, so the whole protocol uses this one: it
refuses signatures that are not canonical, and public keys of small order. A peer id is always text, `12D3KooW...`: the
base58btc of the identity multihash of the public key's protobuf, so that it contains the public key. Sources: the
libp2p specification 'Peer Ids and Keys', and RFC 8032.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import base58
from nacl import bindings
from nacl.exceptions import CryptoError

from protocols.errors import InvalidPayload

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_ED25519: Final = 1
_KEY_TYPES: Final = {0: "RSA", 2: "Secp256k1", 3: "ECDSA"}
_PUBLIC_KEY_HEAD: Final = b"\x08\x01\x12\x20"
"""The protobuf of a public key up to its data: field 1 (type) is Ed25519, field 2 (data) has 32 bytes."""
_MULTIHASH_HEAD: Final = b"\x00\x24" + _PUBLIC_KEY_HEAD
"""The identity multihash (code 0) of the 36 bytes of that protobuf."""
_PEER_ID: Final = re.compile(r"12D3KooW[1-9A-HJ-NP-Za-km-z]{44}")


class PrivateKey:
    """An Ed25519 private key, made from 32 random bytes of the caller, which its text forms never show."""

    __slots__ = ("_secret", "peer_id", "seed")

    def __init__(self, seed: bytes) -> None:
        public, secret = bindings.crypto_sign_seed_keypair(seed)
        self.seed: Final = seed
        self.peer_id: Final = peer_id_of(public)
        self._secret: Final = secret

    @classmethod
    def from_seed(cls, seed: bytes) -> "PrivateKey":
        """The key of a seed of 32 bytes. Raises `InvalidPayload` for another length."""
        if len(seed) != SEED_BYTES:
            raise InvalidPayload(
                f"an Ed25519 seed has {SEED_BYTES} bytes, this one has {len(seed)}",
                field="seed", expected=f"{SEED_BYTES} bytes",
            )  # fmt: skip
        return cls(seed)

    @classmethod
    def from_protobuf(cls, data: bytes) -> "PrivateKey":
        """The key in a libp2p `PrivateKey` message, whose data is the seed, or the seed and the public key.

        Raises `InvalidPayload` for anything else, such as other kinds of keys, or a public key of another seed.
        """
        kind, secret = _key_fields(data)
        if kind != _ED25519:
            raise InvalidPayload(
                f"this is a private key of type {_KEY_TYPES.get(kind, kind)}, and only Ed25519 is supported; "
                "use another key file, or start without one to make a new identity",
                field="private_key", expected="Ed25519",
            )  # fmt: skip
        if len(secret) not in (SEED_BYTES, SEED_BYTES + PUBLIC_KEY_BYTES):
            raise InvalidPayload(
                f"an Ed25519 private key holds 32 or 64 bytes, this one holds {len(secret)}: the file is damaged",
                field="private_key", expected="32 or 64 bytes",
            )  # fmt: skip
        key = cls(secret[:SEED_BYTES])
        if len(secret) > SEED_BYTES and secret[SEED_BYTES:] != public_key(key.peer_id):
            raise InvalidPayload(
                "the public half of this private key does not belong to its seed: the file is damaged",
                field="private_key", expected="the seed and its own public key",
            )  # fmt: skip
        return key

    def to_protobuf(self) -> bytes:
        """The libp2p `PrivateKey` message in the form that every implementation reads: 64 bytes, seed and public
        key.
        """
        return b"\x08\x01\x12\x40" + self.seed + public_key(self.peer_id)

    def sign(self, message: bytes) -> bytes:
        """The signature (64 bytes) of a message."""
        return bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"PrivateKey({self.peer_id})"


def verify(peer_id: str, message: bytes, signature: bytes) -> bool:
    """Whether the signature is of that peer over exactly these bytes. False for malformed input."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public_key(peer_id))
    except (CryptoError, InvalidPayload):
        return False
    return True


def public_key(peer_id: str) -> bytes:
    """The public key (32 bytes) in an Ed25519 peer id. Raises `InvalidPayload` for any other text."""
    return peer_id_bytes(peer_id)[len(_MULTIHASH_HEAD) :]


def peer_id_of(public_key: bytes) -> str:
    """The peer id of a public key of 32 bytes."""
    assert len(public_key) == PUBLIC_KEY_BYTES
    return base58.b58encode(_MULTIHASH_HEAD + public_key).decode("ascii")


def peer_id_bytes(peer_id: str) -> bytes:
    """The identity multihash (38 bytes) of a peer id, its form in binary protocols."""
    if not isinstance(peer_id, str):
        raise _not_a_peer_id(f"a value of type {type(peer_id).__name__}")
    return _decoded(peer_id)


@lru_cache(maxsize=4096)
def peer_id_of_bytes(multihash: bytes) -> str:
    """The text of a peer id from its binary form (38 bytes). Raises `InvalidPayload` for any other bytes."""
    if len(multihash) != len(_MULTIHASH_HEAD) + PUBLIC_KEY_BYTES or not multihash.startswith(_MULTIHASH_HEAD):
        raise _not_a_peer_id(multihash[:40].hex())
    return peer_id_of(multihash[len(_MULTIHASH_HEAD) :])


@lru_cache(maxsize=4096)
def _decoded(peer_id: str) -> bytes:
    """The multihash of a peer id. Length and alphabet are fixed, so that a peer has only one spelling."""
    if _PEER_ID.fullmatch(peer_id) is None:
        raise _not_a_peer_id(ascii(peer_id[:80]))
    multihash = base58.b58decode(peer_id)
    if len(multihash) != len(_MULTIHASH_HEAD) + PUBLIC_KEY_BYTES or not multihash.startswith(_MULTIHASH_HEAD):
        raise _not_a_peer_id(ascii(peer_id))
    return multihash


def _not_a_peer_id(provided: str) -> InvalidPayload:
    return InvalidPayload(
        f"not an Ed25519 peer id: {provided}; one begins with 12D3KooW and has 52 characters of base58",
        field="peer_id", provided=provided, expected="12D3KooW...",
    )  # fmt: skip


def _key_fields(data: bytes) -> tuple[int, bytes]:
    """Type and data of a libp2p key message (protobuf: a varint in field 1, bytes in field 2)."""
    kind: int | None = None
    value: bytes | None = None
    for tag, found in _fields(data):
        match tag, found:
            case 0x08, int():
                kind = found
            case 0x12, bytes():
                value = found
            case _:
                raise _not_a_key(f"it has a field with the tag {tag}")
    if kind is None or value is None:
        raise _not_a_key("it lacks " + ("its type" if kind is None else "its data"))
    return kind, value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message that has only varints and byte strings."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, at = _varint(data, at)
        if tag & 7 == 0:
            yield tag, number
        elif tag & 7 == 2 and at + number <= len(data):
            yield tag, data[at : at + number]
            at += number
        else:
            raise _not_a_key("it ends within a field, or has a field of an unknown kind")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at an offset, and the offset after it. Five bytes are enough for every number in a key."""
    number = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise _not_a_key("one of its numbers has no end")


def _not_a_key(why: str) -> InvalidPayload:
    return InvalidPayload(
        f"not a libp2p private key: {why}; the file is damaged, or is no key file",
        field="private_key", expected="a PrivateKey message of libp2p, in protobuf",
    )  # fmt: skip
