"""Envelope: one signed version of a thing; and its notice, which is the same without the content.

An encoded envelope is a msgpack array of three parts, an encoded notice one of the first two
(`docs/protocol.md`, 'Envelopes'):

    [header, signature, content]

The header (`protocols/header.py`) has all facts about the version, the digest of the content among them. So anybody
can verify, order and forward a notice without the content, and content is checked against its notice. Header, signature
and content are written with the shortest heads of msgpack: one version has one encoding.

`decode` and `decode_notice` check the structure of untrusted bytes, and never the signature. `verify` does that; it
costs several times as much, and is called once, when a version enters a node.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, NoReturn, Protocol

import msgpack

from protocols import keys
from protocols.errors import BadSignature, InvalidPayload
from protocols.header import (
    DOMAIN,
    ENCODED_BYTES_MAX,
    FORMAT,
    HEADER_BYTES_MAX,
    SignedHeader,
    check_format,
    invalid,
    read,
    too_large,
    wrong,
)
from protocols.ucxl import canonical_key

NOTICE_BYTES_MAX: Final = HEADER_BYTES_MAX + 1 + 3 + 66
_NOTICE: Final = b"\x92"
_ENVELOPE: Final = b"\x93"
"""The heads of arrays of two and three elements in msgpack."""
_FORMAT: Final = b"\x92"
"""The head of `[major, minor]`, with which an envelope of format 1 begins."""
_SIGNATURE: Final = b"\xc4\x40"
"""The head of 64 bytes in msgpack."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Notice(SignedHeader):
    """A version whose content this node may not hold. Made only by `decode_notice`, or of an envelope."""

    @property
    def encoded(self) -> bytes:
        return b"".join((_NOTICE, _bin_head(len(self.header)), self.header, _SIGNATURE, self.signature))

    def with_content(self, content: bytes) -> "Envelope":
        """The envelope. Raises `InvalidPayload` when this is not the content that was signed."""
        _check_content(content, self.content_size, self.content_digest)
        return Envelope(*_facts(self), content=content)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Envelope(SignedHeader):
    """One version of one thing, signed, with its content. Made only by `seal` or `decode`, or of a notice."""

    content: bytes = field(kw_only=True)

    @property
    def encoded(self) -> bytes:
        return b"".join((
            _ENVELOPE, _bin_head(len(self.header)), self.header, _SIGNATURE, self.signature,
            _bin_head(len(self.content)), self.content,
        ))  # fmt: skip

    @property
    def notice(self) -> Notice:
        return Notice(*_facts(self))


def _facts(item: SignedHeader) -> tuple[Any, ...]:
    return (
        item.address, item.content_digest, item.content_size, item.content_type, item.version, item.parents,
        item.author, item.meta, item.deleted, item.format, item.header, item.signature, item.digest, item.key,
    )  # fmt: skip


class Ordered(Protocol):
    """An item of the total order: an envelope, a notice or a version in a history."""

    @property
    def version(self) -> int: ...
    @property
    def author(self) -> str: ...
    @property
    def digest(self) -> bytes: ...


def order_key(item: Ordered) -> tuple[int, str, bytes]:
    """The sort key of the total order: version, author, digest."""
    return item.version, item.author, item.digest


def seal(
    key: keys.PrivateKey, *, address: str, content: bytes, content_type: str, version: int, parents: Iterable[bytes],
    meta: Mapping[str, str] = MappingProxyType({}), deleted: bool = False,
) -> Envelope:  # fmt: skip
    """Make and sign an envelope. The parents may be in any order; the order of `meta` is kept.

    Raises what `decode` raises for the same fault, so that every node can decode a sealed envelope.
    """
    canonical_key(address)
    if type(content) is not bytes:
        wrong("content", "bytes", content)
    content_digest = sha256(content).digest()
    try:
        header: bytes = msgpack.packb((
            FORMAT, address, content_digest, len(content), content_type, version, sorted(set(parents)), key.peer_id,
            dict(meta), deleted,
        ))  # fmt: skip
    except (ValueError, TypeError, OverflowError) as error:
        raise invalid("envelope", f"a field cannot be encoded ({type(error).__name__}: {error})") from error
    return Envelope(*read(header, key.sign(DOMAIN + header)), content=content)


def decode(data: bytes) -> Envelope:
    """The envelope in these bytes. Its structure and its content are checked, its signature is not.

    Raises `TooLarge`, `UnsupportedFormat` (another major), `InvalidAddress` (not canonical), else `InvalidPayload`.
    """
    data = _as_bytes(data)
    if len(data) > ENCODED_BYTES_MAX:
        raise too_large(len(data))
    header, signature, at = _signed_header(data, _ENVELOPE)
    start, end = _bin_at(data, at, "content")
    if end != len(data):
        raise invalid("envelope", f"it has {len(data) - end} bytes behind its content")
    return envelope_of(header, signature, data[start:])


def envelope_of(header: bytes, signature: bytes, content: bytes) -> Envelope:
    """The envelope of these parts. Raises like `decode`."""
    facts = read(header, signature)
    _check_content(content, facts[2], facts[1])
    return Envelope(*facts, content=content)


def decode_notice(data: bytes) -> Notice:
    """The notice in these bytes. Its structure is checked, its signature is not. Raises like `decode`."""
    data = _as_bytes(data)
    if len(data) > NOTICE_BYTES_MAX:
        raise invalid("envelope", f"a notice has at most {NOTICE_BYTES_MAX} bytes, not {len(data)}")
    header, signature, end = _signed_header(data, _NOTICE)
    if end != len(data):
        raise invalid("envelope", f"the notice has {len(data) - end} bytes behind its signature")
    return notice_of(header, signature)


def notice_of(header: bytes, signature: bytes) -> Notice:
    """The notice of these parts. Raises like `decode`."""
    return Notice(*read(header, signature))


def verify(item: SignedHeader) -> None:
    """Raise `BadSignature` unless the author signed exactly these bytes."""
    if not keys.verify(item.author, DOMAIN + item.header, item.signature):
        raise BadSignature(
            f"the signature of {item.digest.hex()} is not that of its author {item.author}: "
            "the envelope was changed, or another key signed it; do not send it again",
            field="signature", digest=item.digest.hex(), author=item.author,
        )  # fmt: skip


# -- bytes --------------------------------------------------------------------------------------------------------


def _as_bytes(data: object) -> bytes:
    if type(data) is bytes:
        return data
    if not isinstance(data, bytes | bytearray | memoryview):
        raise invalid("envelope", f"it must be bytes, not {type(data).__name__}")
    return bytes(data)


def _signed_header(data: bytes, array_head: bytes) -> tuple[bytes, bytes, int]:
    """The header and the signature at the beginning of the array, and the offset behind them."""
    if data[:1] != array_head or data[1:2] == _FORMAT:
        _refuse_array(data, array_head)
    start, end = _bin_at(data, 1, "header")
    at = end + len(_SIGNATURE)
    signature = data[at : at + keys.SIGNATURE_BYTES]
    if data[end:at] != _SIGNATURE or len(signature) != keys.SIGNATURE_BYTES:
        wrong("signature", "64 bytes, as bin 8, behind the header", data[end:at])
    return data[start:end], signature, at + keys.SIGNATURE_BYTES


def _refuse_array(data: bytes, array_head: bytes) -> NoReturn:
    """Raises `UnsupportedFormat` for an envelope of format 1: an array of its fields, `[major, minor]` the first."""
    first = {0xDC: 3, 0xDD: 5}.get(data[0], 1) if data and data[0] in (*range(0x90, 0xA0), 0xDC, 0xDD) else len(data)
    if data[first : first + 1] == _FORMAT:
        unpacker = msgpack.Unpacker(use_list=False, max_array_len=2)
        unpacker.feed(data[first : first + 19])
        with suppress(ValueError, msgpack.UnpackException, InvalidPayload):
            check_format(unpacker.unpack())
    what = "header, signature and content" if array_head == _ENVELOPE else "header and signature"
    raise invalid("envelope", f"it is not a msgpack array of {what}")


def _bin_at(data: bytes, at: int, part: str) -> tuple[int, int]:
    """Begin and end of the bytes in the msgpack bin at an offset."""
    match data[at : at + 1]:
        case b"\xc4":
            start, least = at + 2, 0
        case b"\xc5":
            start, least = at + 3, 1 << 8
        case b"\xc6":
            start, least = at + 5, 1 << 16
        case _:
            raise invalid(part, "it is not there as bytes", expected="a msgpack bin")
    size = int.from_bytes(data[at + 1 : start], "big")
    if size < least:
        raise invalid(part, "its length is written longer than necessary", expected="the shortest head")
    if start + size > len(data):
        raise invalid(part, "it is cut off", expected=f"{size} bytes")
    return start, start + size


@lru_cache(maxsize=1024)
def _bin_head(size: int) -> bytes:
    if size < 1 << 8:
        return bytes((0xC4, size))
    return b"\xc5" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xc6" + size.to_bytes(4, "big")


def _check_content(content: bytes, size: int, digest: bytes) -> None:
    if len(content) != size:
        raise invalid("content", f"it has {len(content)} bytes", expected=f"{size}, as the header says")
    if sha256(content).digest() != digest:
        raise invalid("content", "it is not the one that was signed", expected="the digest in the header")
