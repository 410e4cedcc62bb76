"""UCXL addresses: parse, format, match, navigate (`docs/ucxl.md`).

    ucxl://agent:role@project:task/temporal/path

The identity of a thing is its canonical address, which always names the head (`*^`); its key in the DHT is a hash of
that address. An address with `any` for a name, or `*` in the path, is a pattern: it finds and watches, and never reads
or writes one thing. `urllib` does not help here: it takes the agent for a user and the task for a port.

For any input `parse` returns an `Address`, or raises `InvalidAddress` or `InvalidTemporal` with `field`, `provided` and
`expected` in the details.
"""

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final

from protocols.errors import InvalidAddress, InvalidTemporal
from protocols.glob import path_matches
from protocols.temporal import HEAD, Temporal, parse_temporal, shown

SCHEME: Final = "ucxl://"
ADDRESS_BYTES_MAX: Final = 1024
NAME_CHARS_MAX: Final = 64
SEGMENT_CHARS_MAX: Final = 128
ANY: Final = "any"
KEY_BYTES: Final = 49

_SHAPE: Final = "ucxl://agent:role@project:task/*^/path"
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9._~*-]|%[0-9A-Fa-f]{2})+")
_TRIPLET: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_TO_ENCODE: Final = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9._~*-]")
_CANONICAL: Final = re.compile(
    r"ucxl://(?!any:)[A-Za-z0-9._-]{1,64}:(?!any@)[A-Za-z0-9._-]{1,64}@"
    r"(?!any:)[A-Za-z0-9._-]{1,64}:(?!any/)[A-Za-z0-9._-]{1,64}/\*\^"
    r"(?:/(?!\.{1,2}(?:/|\Z))"
    r"(?:[A-Za-z0-9._~-]++|%(?!2[DE]|3[0-9]|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])[0-9A-F]{2})++)*+"
)
"""Matches a canonical address of one thing, except for the limits on the length of a segment and of the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address or a pattern, normalised: `any` for `*` in names, the path percent-encoded only where needed.

    `path` has no leading slash, and is '' without a path. Made by `parse`, which checks it.
    """

    agent: str
    role: str
    project: str
    task: str
    temporal: Temporal = HEAD
    path: str = ""

    @property
    def canonical(self) -> str:
        """The identity of the thing: the address of its head, whatever the temporal part."""
        return self._written("*^")

    @property
    def text(self) -> str:
        """The address with its own temporal part; `parse` returns the same address for it."""
        return self._written(str(self.temporal))

    @property
    def is_pattern(self) -> bool:
        return ANY in (self.agent, self.role, self.project, self.task) or "*" in self.path

    @property
    def key(self) -> bytes:
        """The key in the DHT: 49 ASCII bytes."""
        return key_of(self.canonical)

    def __str__(self) -> str:
        return self.text

    def _written(self, temporal: str) -> str:
        path = f"/{self.path}" if self.path else ""
        return f"{SCHEME}{self.agent}:{self.role}@{self.project}:{self.task}/{temporal}{path}"


def parse(text: object) -> Address:
    """The address, or the pattern, of a text. Raises `InvalidAddress` or `InvalidTemporal`, and no other error."""
    if not isinstance(text, str):
        raise _not_a_text(text)
    _check_length(text, text)
    return _parsed(text)


def require_one(address: Address) -> Address:
    """The address itself. Raises `InvalidAddress` when it is a pattern."""
    if address.is_pattern:
        raise InvalidAddress(
            f"{address.canonical} is a pattern, and the full address of one thing is needed: "
            "write a name in the place of 'any', and no '*' in the path",
            field="address", provided=address.text, expected=_SHAPE,
        )  # fmt: skip
    return address


def key_of(canonical: str) -> bytes:
    """The DHT key of a canonical address: '/ucxl/' and base64url of its SHA-256 without padding, 49 ASCII bytes."""
    return b"/ucxl/" + urlsafe_b64encode(sha256(canonical.encode("ascii")).digest())[:-1]


def canonical_key(canonical: object) -> bytes:
    """The key of the canonical address of one thing. Raises `InvalidAddress` for anything else."""
    if not isinstance(canonical, str):
        raise _not_a_text(canonical)
    return _canonical_key(canonical)


def matches(pattern: Address, address: Address) -> bool:
    """Whether a pattern matches the address of one thing. The temporal parts do not matter.

    `any` matches each name. In the path `*` matches any characters within a segment (none included), `**` any number of
    segments (none included). A pattern without a path matches addresses without one. Raises `InvalidAddress` when
    `address` is a pattern itself.
    """
    require_one(address)
    names = (
        (pattern.agent, address.agent), (pattern.role, address.role),
        (pattern.project, address.project), (pattern.task, address.task),
    )  # fmt: skip
    return all(want in (ANY, have) for want, have in names) and path_matches(pattern.path, address.path)


# -- parsing ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Address:
    if not text.startswith(SCHEME):
        raise _invalid("scheme", text, SCHEME, f"an address begins with {SCHEME}")
    names, slash, rest = text.removeprefix(SCHEME).partition("/")
    agent, role, project, task = _names(names, text)
    temporal: Temporal = HEAD
    path = ""
    if slash:
        written, slash, path_written = rest.partition("/")
        temporal = _temporal(written, f"{SCHEME}{names}/*^/{rest}")
        path = _path(path_written) if slash else ""
    address = Address(agent=agent, role=role, project=project, task=task, temporal=temporal, path=path)
    _check_length(address.canonical, text)
    _check_length(address.text, text)
    return address


def _check_length(written: str, provided: str) -> None:
    """Both the given and the full form of an address are checked, so that an accepted address is always accepted."""
    if len(written) > ADDRESS_BYTES_MAX:
        raise _invalid(
            "address", provided, f"at most {ADDRESS_BYTES_MAX} bytes",
            f"an address has at most {ADDRESS_BYTES_MAX} bytes, this one has {len(written)}",
        )  # fmt: skip


def _names(names: str, text: str) -> tuple[str, str, str, str]:
    parts = names.split("@")
    pairs = [part.split(":") for part in parts]
    if len(parts) != 2 or any(len(pair) != 2 for pair in pairs):
        raise _invalid("address", text, _SHAPE, "an address names agent:role@project:task after ucxl://")
    (agent, role), (project, task) = pairs
    return _name("agent", agent), _name("role", role), _name("project", project), _name("task", task)


def _name(field: str, name: str) -> str:
    if name == "*":
        return ANY
    if len(name) > NAME_CHARS_MAX or _NAME.fullmatch(name) is None:
        expected = f"1 to {NAME_CHARS_MAX} of the characters A-Z a-z 0-9 - _ . (or 'any' in a pattern)"
        raise _invalid(field, name, expected, f"the {field} is not a name")
    return name


def _temporal(written: str, meant: str) -> Temporal:
    if written and written[0] not in "*~^%0123456789":
        raise _invalid(
            "temporal", written, shown(meant),
            "the first segment is read as a time, so a path needs one before it, such as *^ for the newest version",
        )  # fmt: skip
    return parse_temporal(written)


def _path(written: str) -> str:
    return "/".join(map(_segment, written.split("/")))


def _segment(written: str) -> str:
    if not written:
        raise _invalid("path", written, "segments of 1 to 128 characters", "the path has an empty segment")
    if _SEGMENT.fullmatch(written) is None:
        raise _invalid(
            "path", written, f"A-Z a-z 0-9 - . _ ~ and, for every other byte, its %XX: {shown(_encoded(written))}",
            "a segment of the path has a character that must be percent-encoded, or a % without two hex digits",
        )  # fmt: skip
    segment = _TRIPLET.sub(_normalised, written) if "%" in written else written
    if segment in (".", ".."):
        raise _invalid("path", written, "a path from the top", "'.' and '..' are not allowed as segments of a path")
    if "**" in segment and segment != "**":
        raise _invalid("path", written, "'**' as a whole segment, or single '*'s", "'**' must be a whole segment")
    if _characters(segment) > SEGMENT_CHARS_MAX:
        raise _invalid("path", written, f"at most {SEGMENT_CHARS_MAX} characters", "a segment of the path is too long")
    return segment


def _normalised(triplet: re.Match[str]) -> str:
    """The decoded character where that is allowed, else the triplet in upper case."""
    character = chr(int(triplet[0][1:], 16))
    return character if character in _UNRESERVED else triplet[0].upper()


def _characters(segment: str) -> int:
    """The number of characters of a segment; an encoded byte counts as one."""
    return len(segment) - 2 * segment.count("%")


def _encoded(written: str) -> str:
    """The text of a segment with everything encoded that must be; valid encodings stay as they are."""
    octets = written.encode("utf-8", "replace").decode("latin-1")
    return _TO_ENCODE.sub(lambda found: found[0] if len(found[0]) == 3 else f"%{ord(found[0]):02X}", octets)


# -- the canonical form ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _canonical_key(text: str) -> bytes:
    """By one regular expression when that is enough, else by parsing, which also says what is wrong."""
    if len(text) > SEGMENT_CHARS_MAX or _CANONICAL.fullmatch(text) is None:
        _refuse_unless_canonical(text)
    return key_of(text)


def _refuse_unless_canonical(text: str) -> None:
    try:
        address = require_one(parse(text))
    except InvalidTemporal as error:
        raise InvalidAddress(error.message, **error.details) from error
    if address.canonical != text:
        raise _invalid("address", text, address.canonical, "this address is not in its canonical form")


# -- errors -------------------------------------------------------------------------------------------------------


def _invalid(field: str, provided: str, expected: str, message: str) -> InvalidAddress:
    got = shown(provided)
    return InvalidAddress(f"{message}: got '{got}', expected {expected}", field=field, provided=got, expected=expected)


def _not_a_text(value: object) -> InvalidAddress:
    kind = type(value).__name__
    return InvalidAddress(
        f"an address is text, this is a value of type {kind}", field="address", provided=kind, expected=_SHAPE
    )
