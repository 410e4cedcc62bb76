"""Envelope: one signed version of a thing; its canonical bytes, digest and signature, and the total order of versions.

An encoded envelope is a msgpack array (`docs/protocol.md`, 'Envelopes'):

    [format, address, content, content_type, version, parents, author, meta, deleted, signature]

`format` is [major, minor]. A newer minor may add fields between `deleted` and `signature`: they are kept, and covered
by the signature. The canonical bytes are the same array without its last element; the digest is SHA-256 over them, and
the author signs them. An envelope is verified and forwarded as the bytes that were received, never as a re-encoding:
msgpack allows several encodings of one value, so a re-encoding might differ from what was signed.

`decode` checks the structure of untrusted bytes, and never the signature. `verify` does that; it costs fifty times as
much, and is called once, when an envelope enters a node.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, NamedTuple, NoReturn, Protocol

import msgpack

from protocols import keys
from protocols.clock import VERSION_MAX
from protocols.errors import BadSignature, InvalidPayload, TooLarge, UnsupportedFormat
from protocols.ucxl import canonical_key

FORMAT: Final = (1, 0)
ENCODED_BYTES_MAX: Final = 1_048_576
CONTENT_TYPE_CHARS_MAX: Final = 255
DIGEST_BYTES: Final = 32
PARENTS_MAX: Final = 256
META_ENTRIES_MAX: Final = 64
META_BYTES_MAX: Final = 16 * 1024
"""Names and values together, in UTF-8."""

_FIELDS: Final = 10
_ITEMS_MAX: Final = 1024
"""The most items of an array or a map: a header of five bytes must not reserve megabytes."""
_BIN_64: Final = b"\xc4\x40"
"""The head of 64 bytes in msgpack."""
_SIGNATURE_TAIL: Final = len(_BIN_64) + keys.SIGNATURE_BYTES
REISSUES: Final = "reissues"
"""The entry of `meta` with the versions that a reissue replaces. Only a node whose clock was corrected writes it."""
REISSUES_MAX: Final = 16
_REISSUES: Final = re.compile(rf"[0-9a-f]{{64}}(?: [0-9a-f]{{64}}){{0,{REISSUES_MAX - 1}}}")
_CONTENT_TYPE: Final = re.compile(r"[ -~]{1,255}")
_NO_META: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Envelope:
    """One version of one thing, signed. Made only by `seal` or `decode`; equal when the digests are equal."""

    address: str
    """The canonical address, which names the head."""
    content: bytes
    content_type: str
    version: int
    """A reading of the author's hybrid logical clock (`protocols/clock.py`)."""
    parents: tuple[bytes, ...]
    """The digests of the versions that it was written on top of, ascending."""
    author: str
    """A peer id."""
    meta: Mapping[str, str]
    deleted: bool
    """True: a tombstone."""
    signature: bytes
    format: tuple[int, int]
    encoded: bytes
    """The whole envelope as it was made or received; these bytes are stored and forwarded."""
    digest: bytes
    """SHA-256 of the canonical bytes, 32 bytes."""
    key: bytes
    """The key in the DHT, 49 ASCII bytes."""

    @property
    def reissues(self) -> tuple[bytes, ...]:
        """The digests of the versions that this reissue replaces, the latest first: `meta.reissues`, each as 64 hex
        digits in lower case, separated by single spaces; at most `REISSUES_MAX`."""
        named = self.meta.get(REISSUES) if self.meta else None
        if named is None or _REISSUES.fullmatch(named) is None:
            return ()
        return tuple(bytes.fromhex(digest) for digest in named.split(" "))

    @property
    def canonical(self) -> bytes:
        """The bytes that the digest and the signature cover."""
        head, start = _canonical_head(self.encoded)
        return head + self.encoded[start:-_SIGNATURE_TAIL]

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Envelope) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        deleted = ", deleted" if self.deleted else ""
        return (
            f"Envelope({self.address}, {self.digest.hex()[:12]}, version={self.version}, author={self.author}, "
            f"{len(self.content)} bytes of {self.content_type}{deleted})"
        )


class Notice(NamedTuple):
    """The facts about a version whose content this node may not hold.

    `parents` is empty when they are unknown. A notice is not signed: it is as reliable as its sender.
    """

    address: str
    key: bytes
    digest: bytes
    version: int
    author: str
    deleted: bool
    parents: tuple[bytes, ...] = ()

    @property
    def reissues(self) -> tuple[()]:
        """None: only a signed version can reissue another."""
        return ()


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
    meta: Mapping[str, str] = _NO_META, deleted: bool = False,
) -> Envelope:  # fmt: skip
    """Make and sign an envelope. The parents may be in any order; the order of `meta` is kept.

    Raises what `decode` raises for the same fault, so that every node can decode a sealed envelope.
    """
    canonical_key(address)
    try:
        canonical: bytes = msgpack.packb(
            (FORMAT, address, content, content_type, version, sorted(set(parents)), key.peer_id, dict(meta), deleted)
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise _invalid("envelope", f"a field cannot be encoded ({type(error).__name__}: {error})") from error
    if len(canonical) + _SIGNATURE_TAIL > ENCODED_BYTES_MAX:
        raise _too_large(len(canonical) + _SIGNATURE_TAIL)
    return decode(bytes((0x90 + _FIELDS,)) + canonical[1:] + _BIN_64 + key.sign(canonical))


def decode(data: bytes) -> Envelope:
    """The envelope in these bytes. Its structure is checked, its signature is not.

    Raises `TooLarge`, `UnsupportedFormat` (another major), `InvalidAddress` (not canonical), else `InvalidPayload`.
    """
    if type(data) is not bytes:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise _invalid("envelope", f"it must be bytes, not {type(data).__name__}")
        data = bytes(data)
    if len(data) > ENCODED_BYTES_MAX:
        raise _too_large(len(data))
    fields = _unpacked(data)
    format_ = _format(fields[0])
    if len(fields) != _FIELDS and (len(fields) < _FIELDS or format_[1] == FORMAT[1]):
        raise _invalid("envelope", f"format {format_[0]}.{format_[1]} cannot have {len(fields)} fields")
    _, address, content, content_type, version, parents, author, meta, deleted = fields[: _FIELDS - 1]
    signature = fields[-1]
    key = canonical_key(address)
    if type(content) is not bytes:
        _wrong("content", "bytes", content)
    if type(content_type) is not str or _CONTENT_TYPE.fullmatch(content_type) is None:
        _wrong("content_type", f"1 to {CONTENT_TYPE_CHARS_MAX} printable ASCII characters", content_type)
    if type(version) is not int or not 0 < version <= VERSION_MAX:
        _wrong("version", "a whole number of 64 bits above 0", version)
    _check_parents(parents)
    keys.public_key(author)
    _check_meta(meta)
    if type(deleted) is not bool:
        _wrong("deleted", "true or false", deleted)
    if deleted and content:
        raise _invalid("content", "a tombstone has no content", expected="no bytes")
    if type(signature) is not bytes or len(signature) != keys.SIGNATURE_BYTES or data[-66:-64] != _BIN_64:
        _wrong("signature", "64 bytes, as bin 8, at the end", signature)
    return Envelope(
        address=address, content=content, content_type=content_type, version=version, parents=parents, author=author,
        meta=MappingProxyType(meta) if meta else _NO_META, deleted=deleted, signature=signature, format=format_,
        encoded=data, digest=_digest(data), key=key,
    )  # fmt: skip


def verify(envelope: Envelope) -> None:
    """Raise `BadSignature` unless the author signed exactly these bytes."""
    if not keys.verify(envelope.author, envelope.canonical, envelope.signature):
        raise BadSignature(
            f"the signature of {envelope.digest.hex()} is not that of its author {envelope.author}: "
            "the envelope was changed, or another key signed it; do not send it again",
            field="signature", digest=envelope.digest.hex(), author=envelope.author,
        )  # fmt: skip


# -- bytes --------------------------------------------------------------------------------------------------------


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map without duplicate names: of two values under one name, two decoders might take different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a map has a duplicate name")
    return found


def _unpacked(data: bytes) -> tuple[Any, ...]:
    try:
        fields = msgpack.unpackb(
            data, raw=False, use_list=False, object_pairs_hook=_unique, strict_map_key=False,
            max_array_len=_ITEMS_MAX, max_map_len=_ITEMS_MAX,
        )  # fmt: skip
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _invalid("envelope", f"it is not one msgpack value ({type(error).__name__}: {error})") from error
    if type(fields) is not tuple or not fields:
        raise _invalid("envelope", "it is not a msgpack array of fields")
    if data[0] == 0xDD or (data[0] == 0xDC and len(fields) < 16):
        raise _invalid("envelope", "the head of the array must be the shortest one")
    return fields


def _canonical_head(encoded: bytes) -> tuple[bytes, int]:
    """The head of the array with one element less, and the offset of the first element in the encoded envelope."""
    if encoded[0] != 0xDC:
        return bytes((encoded[0] - 1,)), 1
    count = int.from_bytes(encoded[1:3], "big") - 1
    return (b"\xdc" + count.to_bytes(2, "big") if count > 15 else bytes((0x90 + count,))), 3


def _digest(encoded: bytes) -> bytes:
    head, start = _canonical_head(encoded)
    digest = sha256(head)
    digest.update(memoryview(encoded)[start:-_SIGNATURE_TAIL])
    return digest.digest()


# -- fields -------------------------------------------------------------------------------------------------------


def _format(value: object) -> tuple[int, int]:
    if type(value) is not tuple or len(value) != 2 or any(type(part) is not int or part < 0 for part in value):
        _wrong("format", "[major, minor]", value)
    major, minor = value
    if major != FORMAT[0]:
        raise UnsupportedFormat(
            f"this envelope has format {major}.{minor}, and this node reads {FORMAT[0]}.x: "
            f"{'update this node' if major > FORMAT[0] else 'its author must write the newer one'}",
            field="format", provided=f"{major}.{minor}", expected=f"{FORMAT[0]}.x",
        )  # fmt: skip
    return major, minor


def _check_parents(parents: object) -> None:
    expected = "digests of 32 bytes, ascending, without duplicates"
    if type(parents) is not tuple:
        _wrong("parents", expected, parents)
    if len(parents) > PARENTS_MAX:
        raise _invalid("parents", f"there are {len(parents)}", expected=f"at most {PARENTS_MAX}")
    for parent in parents:
        if type(parent) is not bytes or len(parent) != DIGEST_BYTES:
            _wrong("parents", expected, parent)
    if any(parent >= following for parent, following in pairwise(parents)):
        raise _invalid("parents", "they are not in order, or one is a duplicate", expected=expected)


def _check_meta(meta: object) -> None:
    if type(meta) is not dict:
        _wrong("meta", "a map of texts", meta)
    if not meta:
        return
    if len(meta) > META_ENTRIES_MAX:
        raise _invalid("meta", f"it has {len(meta)} entries", expected=f"at most {META_ENTRIES_MAX}")
    size = 0
    for name, value in meta.items():
        if type(name) is not str or type(value) is not str:
            _wrong("meta", "a map of texts to texts", value if type(name) is str else name)
        if not name:
            raise _invalid("meta", "one of its names is empty", expected="names of at least one character")
        size += len(name.encode()) + len(value.encode())
    if size > META_BYTES_MAX:
        raise _invalid("meta", f"it has {size} bytes", expected=f"at most {META_BYTES_MAX}")


def _wrong(field: str, expected: str, value: object) -> NoReturn:
    """Arrays and maps are not shown, because a sender may nest them without limit."""
    match value:
        case str() | bytes():
            shown = ascii(value[:40])
        case bool() | int() | float() | None:
            shown = ascii(value)
        case _:
            shown = f"a value of type {type(value).__name__}"
    raise _invalid(field, f"got {shown}", expected=expected)


def _invalid(field: str, why: str, *, expected: str = "") -> InvalidPayload:
    if field == "envelope":
        return InvalidPayload(f"not an envelope: {why}", field=field)
    return InvalidPayload(f"the envelope's {field}: {why}, expected {expected}", field=field, expected=expected)


def _too_large(size: int) -> TooLarge:
    return TooLarge(
        f"this envelope has {size} bytes encoded, and the limit is {ENCODED_BYTES_MAX}: "
        "store the content elsewhere and write its location, or split it",
        field="envelope", size_bytes=size, size_bytes_max=ENCODED_BYTES_MAX,
    )  # fmt: skip
