"""Header: what the author of a version signs: all facts about it, among them the digest and the size of its content.

A header is a msgpack array (`docs/protocol.md`, 'Envelopes'):

    [format, address, content_digest, content_size, content_type, version, parents, author, meta, deleted]

`format` is [major, minor]. A newer minor may add fields behind `deleted`: they are kept, and covered by the signature.
The digest of a version is SHA-256 over the bytes of its header, and the author signs these bytes behind `DOMAIN`. A
header is verified and forwarded as the bytes that were received, never as a re-encoding: msgpack allows several
encodings of one value, so a re-encoding might differ from what was signed.

`read` checks the structure of untrusted bytes, and never the signature: `envelope.verify` does that.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, NoReturn

import msgpack

from protocols import keys
from protocols.clock import VERSION_MAX
from protocols.errors import InvalidPayload, TooLarge, UnsupportedFormat
from protocols.ucxl import canonical_key

FORMAT: Final = (2, 0)
DOMAIN: Final = b"bzzz/envelope/2\n"
"""Before the header in what is signed: no signature of another kind of text can be taken for that of a version."""
ENCODED_BYTES_MAX: Final = 1_048_576
"""Header, signature and content together, as an encoded envelope."""
HEADER_BYTES_MAX: Final = 32 * 1024
"""All fields at their own limits take 27 KiB."""
CONTENT_TYPE_CHARS_MAX: Final = 255
DIGEST_BYTES: Final = 32
PARENTS_MAX: Final = 256
META_ENTRIES_MAX: Final = 64
META_BYTES_MAX: Final = 16 * 1024
"""Names and values together, in UTF-8."""
EMPTY_DIGEST: Final = sha256(b"").digest()

_FIELDS: Final = 10
_ITEMS_MAX: Final = 1024
"""The most items of an array or a map: a head of five bytes must not reserve megabytes."""
_SIGNATURE_PART: Final = 2 + keys.SIGNATURE_BYTES
_SURE_TO_FIT: Final = ENCODED_BYTES_MAX - HEADER_BYTES_MAX - 128
"""Content of at most so many bytes fits with any header."""
REISSUES: Final = "reissues"
"""The entry of `meta` with the versions that a reissue replaces. Only a node whose clock was corrected writes it."""
REISSUES_MAX: Final = 16
_REISSUES: Final = re.compile(rf"[0-9a-f]{{64}}(?: [0-9a-f]{{64}}){{0,{REISSUES_MAX - 1}}}")
_CONTENT_TYPE: Final = re.compile(r"[ -~]{1,255}")
_NO_META: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SignedHeader:
    """The header of a version with its signature: what notices and envelopes have in common.

    Two of a kind are equal when their digests are: the same digest means the same header.
    """

    address: str
    """The canonical address, which names the head."""
    content_digest: bytes
    """SHA-256 of the content, 32 bytes; of no bytes when there is none."""
    content_size: int
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
    format: tuple[int, int]
    header: bytes
    """The header as it was made or received; these bytes are stored and forwarded."""
    signature: bytes
    digest: bytes
    """SHA-256 of the header, 32 bytes: the name of the version."""
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
    def encoded_size(self) -> int:
        """The size of the encoded envelope, whether its content is here or not."""
        return encoded_size(len(self.header), self.content_size)

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        deleted = ", deleted" if self.deleted else ""
        return (
            f"{type(self).__name__}({self.address}, {self.digest.hex()[:12]}, version={self.version}, "
            f"author={self.author}, {self.content_size} bytes of {self.content_type}{deleted})"
        )


def read(header: bytes, signature: bytes) -> tuple[Any, ...]:
    """The fields of a `SignedHeader`, in its order. The structure is checked, the signature is not.

    Raises `TooLarge`, `UnsupportedFormat` (another major), `InvalidAddress` (not canonical), else `InvalidPayload`.
    """
    if len(header) > HEADER_BYTES_MAX:
        raise TooLarge(
            f"the envelope's header has {len(header)} bytes, and the limit is {HEADER_BYTES_MAX}",
            field="envelope", size_bytes=len(header), size_bytes_max=HEADER_BYTES_MAX,
        )  # fmt: skip
    fields = _unpacked(header)
    format_ = check_format(fields[0])
    if len(fields) != _FIELDS and (len(fields) < _FIELDS or format_[1] == FORMAT[1]):
        raise invalid("envelope", f"format {format_[0]}.{format_[1]} cannot have {len(fields)} fields")
    _, address, content_digest, content_size, content_type, version, parents, author, meta, deleted = fields[:_FIELDS]
    key = canonical_key(address)
    if type(content_type) is not str or _CONTENT_TYPE.fullmatch(content_type) is None:
        wrong("content_type", f"1 to {CONTENT_TYPE_CHARS_MAX} printable ASCII characters", content_type)
    if type(version) is not int or not 0 < version <= VERSION_MAX:
        wrong("version", "a whole number of 64 bits above 0", version)
    _check_parents(parents)
    keys.peer_id_bytes(author)
    _check_meta(meta)
    if type(deleted) is not bool:
        wrong("deleted", "true or false", deleted)
    _check_content_facts(content_digest, content_size, deleted)
    if content_size > _SURE_TO_FIT and encoded_size(len(header), content_size) > ENCODED_BYTES_MAX:
        raise too_large(encoded_size(len(header), content_size))
    return (
        address, content_digest, content_size, content_type, version, parents, author,
        MappingProxyType(meta) if meta else _NO_META, deleted, format_, header, signature, sha256(header).digest(), key,
    )  # fmt: skip


def encoded_size(header_size: int, content_size: int) -> int:
    """The size of an encoded envelope with a header and a content of these sizes."""
    size = 1 + header_size + _SIGNATURE_PART + content_size
    size += 2 if header_size < 1 << 8 else 3  # the head of a msgpack bin
    return size + (2 if content_size < 1 << 8 else 3 if content_size < 1 << 16 else 5)


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map without duplicate names: of two values under one name, two decoders might take different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a map has a duplicate name")
    return found


def _unpacked(header: bytes) -> tuple[Any, ...]:
    try:
        fields = msgpack.unpackb(
            header, raw=False, use_list=False, object_pairs_hook=_unique, strict_map_key=False,
            max_array_len=_ITEMS_MAX, max_map_len=_ITEMS_MAX,
        )  # fmt: skip
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise invalid("envelope", f"its header is not one msgpack value ({type(error).__name__}: {error})") from error
    if type(fields) is not tuple or not fields:
        raise invalid("envelope", "its header is not a msgpack array of fields")
    return fields


# -- fields -------------------------------------------------------------------------------------------------------


def check_format(value: object) -> tuple[int, int]:
    """Raises `UnsupportedFormat` for another major."""
    if type(value) is not tuple or len(value) != 2 or not _are_counts(*value):
        wrong("format", "[major, minor]", value)
    major, minor = value
    if major != FORMAT[0]:
        raise UnsupportedFormat(
            f"this envelope has format {major}.{minor}, and this node reads {FORMAT[0]}.x: "
            f"{'update this node' if major > FORMAT[0] else 'its author has to update, and to write it again'}",
            field="format", provided=f"{major}.{minor}", expected=f"{FORMAT[0]}.x",
        )  # fmt: skip
    return major, minor


def _are_counts(major: object, minor: object) -> bool:
    return type(major) is int and type(minor) is int and major >= 0 and minor >= 0


def _check_content_facts(digest: object, size: object, deleted: bool) -> None:
    if type(digest) is not bytes or len(digest) != DIGEST_BYTES:
        wrong("content_digest", f"{DIGEST_BYTES} bytes", digest)
    if type(size) is not int or size < 0:
        wrong("content_size", "a whole number from 0", size)
    if deleted and size:
        raise invalid("content", "a tombstone has no content", expected="no bytes")
    if not size and digest != EMPTY_DIGEST:
        raise invalid("content_digest", "it is not that of no bytes", expected="SHA-256 of no bytes for size 0")


def _check_parents(parents: object) -> None:
    expected = "digests of 32 bytes, ascending, without duplicates"
    if type(parents) is not tuple:
        wrong("parents", expected, parents)
    if len(parents) > PARENTS_MAX:
        raise invalid("parents", f"there are {len(parents)}", expected=f"at most {PARENTS_MAX}")
    for parent in parents:
        if type(parent) is not bytes or len(parent) != DIGEST_BYTES:
            wrong("parents", expected, parent)
    if len(parents) > 1 and any(parent >= following for parent, following in pairwise(parents)):
        raise invalid("parents", "they are not in order, or one is a duplicate", expected=expected)


def _check_meta(meta: object) -> None:
    if type(meta) is not dict:
        wrong("meta", "a map of texts", meta)
    if not meta:
        return
    if len(meta) > META_ENTRIES_MAX:
        raise invalid("meta", f"it has {len(meta)} entries", expected=f"at most {META_ENTRIES_MAX}")
    size = 0
    for name, value in meta.items():
        if type(name) is not str or type(value) is not str:
            wrong("meta", "a map of texts to texts", value if type(name) is str else name)
        if not name:
            raise invalid("meta", "one of its names is empty", expected="names of at least one character")
        size += len(name.encode()) + len(value.encode())
    if size > META_BYTES_MAX:
        raise invalid("meta", f"it has {size} bytes", expected=f"at most {META_BYTES_MAX}")


def wrong(field: str, expected: str, value: object) -> NoReturn:
    """Arrays and maps are not shown, because a sender may nest them without limit."""
    match value:
        case str() | bytes():
            shown = ascii(value[:40])
        case bool() | int() | float() | None:
            shown = ascii(value)
        case _:
            shown = f"a value of type {type(value).__name__}"
    raise invalid(field, f"got {shown}", expected=expected)


def invalid(field: str, why: str, *, expected: str = "") -> InvalidPayload:
    if field == "envelope":
        return InvalidPayload(f"not an envelope: {why}", field=field)
    return InvalidPayload(f"the envelope's {field}: {why}, expected {expected}", field=field, expected=expected)


def too_large(size: int) -> TooLarge:
    return TooLarge(
        f"this envelope has {size} bytes encoded, and the limit is {ENCODED_BYTES_MAX}: "
        "store the content elsewhere and write its location, or split it",
        field="envelope", size_bytes=size, size_bytes_max=ENCODED_BYTES_MAX,
    )  # fmt: skip
