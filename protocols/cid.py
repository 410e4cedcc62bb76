"""CID: the name of some content by its SHA-256, as IPFS and other content-addressed systems write it.

Content has one CID here: version 1, codec raw, hash sha2-256, in base32 of lower case. Its bytes are the varints 0x01,
0x55, 0x12 and 0x20, then the digest; its text is `b` and these 36 bytes in base32 without padding: 59 characters that
begin with `bafkrei`. Another CID may name the same content by another hash, or in another form. It is refused with the
name of what it has: no digest that a node knows can be found by it.

Sources: the specification of CIDs (multiformats/cid), the tables of multibase and multicodec.
"""

from base64 import b32decode, b32encode
from typing import Final, NoReturn

from protocols.errors import InvalidPayload

CHARS: Final = 59
_DIGEST_BYTES: Final = 32
_PREFIX: Final = b"\x01\x55\x12\x20"
"""Version 1, raw, sha2-256, 32 bytes."""
_V0_CHARS: Final = 46
_EXPECTED: Final = "a CIDv1 of raw content by its SHA-256, in base32: 59 characters that begin with bafkrei"
_SHOWN_CHARS_MAX: Final = 80

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
"""By ten bits: their two characters. `b32encode` takes five times as long, and a page of a history has a thousand."""

_BASES: Final = {
    "z": "base58btc", "Z": "base58flickr", "f": "base16", "F": "base16 in upper case", "B": "base32 in upper case",
    "c": "base32 with padding", "v": "base32hex", "h": "base32z", "k": "base36", "K": "base36 in upper case",
    "m": "base64", "M": "base64 with padding", "u": "base64url", "U": "base64url with padding",
}  # fmt: skip
_CODECS: Final = {
    0x51: "cbor", 0x70: "dag-pb", 0x71: "dag-cbor", 0x72: "libp2p-key", 0x78: "git-raw", 0x0129: "dag-json",
    0x0200: "json", 0x0202: "car",
}  # fmt: skip
_HASHES: Final = {
    0x00: "identity", 0x11: "sha1", 0x13: "sha2-512", 0x14: "sha3-512", 0x16: "sha3-256", 0x1B: "keccak-256",
    0x1E: "blake3", 0x56: "dbl-sha2-256", 0xB220: "blake2b-256", 0xB240: "blake2b-512",
}  # fmt: skip


def encode(digest: bytes) -> str:
    """The CID of the content with this SHA-256."""
    assert len(digest) == _DIGEST_BYTES, "a SHA-256 has 32 bytes"
    bits = int.from_bytes(_PREFIX + digest, "big") << 2  # 290: 58 characters
    return "b" + "".join([_PAIRS[bits >> shift & 1023] for shift in range(280, -1, -10)])


def multihash(digest: bytes) -> bytes:
    """The multihash of the content with this SHA-256: its key in the DHT, as other implementations have it."""
    return _PREFIX[2:] + digest


def digest_of_multihash(key: bytes) -> bytes | None:
    """The SHA-256 in a multihash; None for other bytes."""
    is_one = len(key) == 2 + _DIGEST_BYTES and key.startswith(_PREFIX[2:])
    return key[2:] if is_one else None


def decode(text: str) -> bytes:
    """The SHA-256 of the content that a CID names. Raises `InvalidPayload`."""
    if len(text) == _V0_CHARS and text.startswith("Qm"):
        _refuse(
            text, "it is a CIDv0, which names a dag-pb node and not plain content; convert it to the content's CIDv1"
        )
    if not text.startswith("b"):
        base = _BASES.get(text[:1])
        _refuse(text, f"it is in {base}" if base else "it does not begin with b, the sign of base32")
    data = _base32(text)
    version, at = _varint(text, data, 0)
    if version != 1:
        _refuse(text, f"its version is {version}")
    codec, at = _varint(text, data, at)
    if codec != 0x55:
        _refuse(text, f"its codec is {_CODECS.get(codec, hex(codec))}")
    hashed_by, at = _varint(text, data, at)
    if hashed_by != 0x12:
        _refuse(text, f"its hash is {_HASHES.get(hashed_by, hex(hashed_by))}")
    size, at = _varint(text, data, at)
    if size != _DIGEST_BYTES or len(data) - at != _DIGEST_BYTES:
        _refuse(text, f"its digest is of {size} bytes, {len(data) - at} follow, and a SHA-256 has {_DIGEST_BYTES}")
    return data[at:]


def _base32(text: str) -> bytes:
    """The bytes of the text behind its first character; the bits that fill up the last character must be zeros."""
    if any(character not in "abcdefghijklmnopqrstuvwxyz234567" for character in text[1:]):
        _refuse(text, "it has other characters than a to z and 2 to 7")
    if len(text) > 2 * CHARS:
        _refuse(text, f"it has {len(text)} characters")
    try:
        data = b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8))
    except ValueError:
        _refuse(text, "its number of characters is that of no base32")
    if b32encode(data).decode("ascii").rstrip("=").lower() != text[1:]:
        _refuse(text, "the last bits of its last character are not zero")
    return data


def _varint(text: str, data: bytes, at: int) -> tuple[int, int]:
    """The unsigned varint at an offset, and the offset behind it."""
    value = 0
    for shift, byte in enumerate(data[at : at + 4]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            if shift and not byte:
                break
            return value, at + shift + 1
    _refuse(text, "it ends too early, or a number in it is not written as short as possible")


def _refuse(text: str, why: str) -> NoReturn:
    shown = ascii(text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "...")
    raise InvalidPayload(f"{shown} is no CID that a node knows: {why}", field="cid", provided=shown, expected=_EXPECTED)
