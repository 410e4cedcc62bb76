"""Envelope: the one value that moves. Its canonical bytes, digest and signature, and the order every replica agrees on.

An encoded envelope is a msgpack array (`docs/protocol.md`):

    [format, address, content, content_type, version, parents, author, meta, deleted, signature]

`format` is [major, minor]. A newer minor may put fields of its own between `deleted` and `signature`: they are kept,
and covered by the signature. The canonical bytes are the same array without its last element; the digest is SHA-256
over them, and the author signs them. Everything is verified and forwarded over the bytes received, never over a
re-encoding: msgpack allows several encodings of one value, so a re-encoding might not be what was signed.

`decode` checks the structure of what anybody may have sent, and never the signature: that is `verify`, which costs
fifty times as much and is called once, at the door.
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
"""No array or map in an envelope has more: a header of five bytes must not make us reserve megabytes."""
_BIN_64: Final = b"\xc4\x40"
"""How msgpack begins 64 bytes."""
_SIGNATURE_TAIL: Final = len(_BIN_64) + keys.SIGNATURE_BYTES
REISSUES: Final = "reissues"
"""The entry of `meta` that says which versions one stands in for. Only a node that mends its clock writes it."""
REISSUES_MAX: Final = 16
_REISSUES: Final = re.compile(rf"[0-9a-f]{{64}}(?: [0-9a-f]{{64}}){{0,{REISSUES_MAX - 1}}}")
_CONTENT_TYPE: Final = re.compile(r"[ -~]{1,255}")
_NO_META: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Envelope:
    """One version of one thing, signed. Made by `seal` or `decode` alone; equal when the digests are."""

    address: str
    """Canonical: it names the head."""
    content: bytes
    content_type: str
    version: int
    """A reading of the author's hybrid logical clock (`protocols/clock.py`)."""
    parents: tuple[bytes, ...]
    """The digests of the versions it was written on top of, ascending."""
    author: str
    """A peer id."""
    meta: Mapping[str, str]
    deleted: bool
    """True: a tombstone."""
    signature: bytes
    format: tuple[int, int]
    encoded: bytes
    """The whole of it as it was made or received: what is stored and forwarded."""
    digest: bytes
    """SHA-256 of the canonical bytes, 32 bytes."""
    key: bytes
    """The key in the DHT, 49 ASCII bytes."""

    @property
    def reissues(self) -> tuple[bytes, ...]:
        """The digests of the versions that this one stands in for, the latest issued first: `meta.reissues`, each
        as 64 hex digits in lower case, with single spaces between; at most `REISSUES_MAX`."""
        named = self.meta.get(REISSUES) if self.meta else None
        if named is None or _REISSUES.fullmatch(named) is None:
            return ()
        return tuple(bytes.fromhex(one) for one in named.split(" "))

    @property
    def canonical(self) -> bytes:
        """The bytes that are digested and signed."""
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
    """That a version exists: what a node may know of one whose content is elsewhere.

    `parents` may be empty when they are unknown. Nothing of it is signed: it is worth what its sender is worth.
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
        """Only what is signed stands in for something."""
        return ()


class Ordered(Protocol):
    """What has a place in the total order: an envelope, a notice, a version in a history."""

    @property
    def version(self) -> int: ...
    @property
    def author(self) -> str: ...
    @property
    def digest(self) -> bytes: ...


def order_key(item: Ordered) -> tuple[int, str, bytes]:
    """The total order of versions, as a key to sort by: version, author, digest."""
    return item.version, item.author, item.digest


def newer(one: Ordered, other: Ordered) -> bool:
    """Whether `one` comes after `other` in the total order."""
    return order_key(one) > order_key(other)


def notice_of(envelope: Envelope) -> Notice:
    """The notice of an envelope."""
    return Notice(
        envelope.address, envelope.key, envelope.digest, envelope.version, envelope.author, envelope.deleted,
        envelope.parents,
    )  # fmt: skip


def seal(
    key: keys.PrivateKey, *, address: str, content: bytes, content_type: str, version: int, parents: Iterable[bytes],
    meta: Mapping[str, str] = _NO_META, deleted: bool = False,
) -> Envelope:  # fmt: skip
    """Make and sign an envelope. The parents may come in any order; the order of `meta` is kept.

    Raises what `decode` raises for the same fault: whatever is sealed here can be read everywhere.
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
    """The envelope in these bytes, its structure checked, its signature not.

    Raises `TooLarge`, `UnsupportedFormat` (another major), `InvalidAddress` (not canonical), else `InvalidPayload`.
    """
    if type(data) is not bytes:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise _invalid("envelope", f"it must be bytes, not {type(data).__name__}")
        data = bytes(data)
    if len(data) > ENCODED_BYTES_MAX:
        raise _too_large(len(data))
    fields = _unpacked(data)
    written = _format(fields[0])
    if len(fields) != _FIELDS and (len(fields) < _FIELDS or written[1] == FORMAT[1]):
        raise _invalid("envelope", f"format {written[0]}.{written[1]} cannot have {len(fields)} fields")
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
        meta=MappingProxyType(meta) if meta else _NO_META, deleted=deleted, signature=signature, format=written,
        encoded=data, digest=_digest(data), key=key,
    )  # fmt: skip


def verify(envelope: Envelope) -> None:
    """Raise `BadSignature` unless the author signed exactly these bytes."""
    if not keys.verify(envelope.author, envelope.canonical, envelope.signature):
        raise BadSignature(
            f"the signature of {envelope.digest.hex()} is not that of its author {envelope.author}: "
            "it was changed on the way, or another key signed it; do not send it again",
            field="signature", digest=envelope.digest.hex(), author=envelope.author,
        )  # fmt: skip


# -- bytes --------------------------------------------------------------------------------------------------------


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map whose names differ: of two values under one name, two readers might take two."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a map has a name twice")
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
    """The head of the array with one element less, and where the first element begins in the encoded envelope."""
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
    expected = "digests of 32 bytes, ascending, none twice"
    if type(parents) is not tuple:
        _wrong("parents", expected, parents)
    if len(parents) > PARENTS_MAX:
        raise _invalid("parents", f"there are {len(parents)}", expected=f"at most {PARENTS_MAX}")
    for parent in parents:
        if type(parent) is not bytes or len(parent) != DIGEST_BYTES:
            _wrong("parents", expected, parent)
    if any(one >= next_one for one, next_one in pairwise(parents)):
        raise _invalid("parents", "they are not in order, or one is there twice", expected=expected)


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
    """Arrays and maps are not shown: they may be as deep as their sender liked."""
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
        f"this envelope has {size} bytes encoded, and one has at most {ENCODED_BYTES_MAX}: "
        "keep the content elsewhere and write where it is, or split it",
        field="envelope", size_bytes=size, size_bytes_max=ENCODED_BYTES_MAX,
    )  # fmt: skip
