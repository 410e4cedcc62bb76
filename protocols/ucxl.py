"""UCXL addresses: parse, format, match, navigate (UCXL.md, sections 1 and 2).

    ucxl://agent:role@project:task/temporal/path

A thing's identity is its canonical address, which always names the head (`*^`); its key in the DHT is a hash of that.
With `any` for a name, or `*` in the path, an address is a pattern: for finding and watching, never for reading or
writing one thing. `urllib` is of no use here: it takes the agent for a user and the task for a port.

Whatever is handed to `parse`, it answers an `Address` or raises `InvalidAddress` or `InvalidTemporal`, with `field`,
`provided` and `expected` in the details.
"""

import re
from base64 import urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import unquote_to_bytes

from protocols.codes import InvalidAddress, InvalidTemporal, OutOfRange

SCHEME: Final = "ucxl://"
ADDRESS_BYTES_MAX: Final = 1024
NAME_CHARS_MAX: Final = 64
SEGMENT_CHARS_MAX: Final = 128
ANY: Final = "any"
KEY_BYTES: Final = 49

_SHAPE: Final = "ucxl://agent:role@project:task/*^/path"
_PROVIDED_CHARS_MAX: Final = 200
_EPOCH: Final = datetime(1970, 1, 1)
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9._~*-]|%[0-9A-Fa-f]{2})+")
_TRIPLET: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_TO_ENCODE: Final = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9._~*-]")
_COUNTED: Final = re.compile(r"(\*~|~~|\^\^)([0-9]*)")
_INSTANT: Final = re.compile(
    r"(?P<year>[0-9]{4})(?P<dash>-?)(?P<month>[0-9]{2})(?P=dash)(?P<day>[0-9]{2})"
    r"(?:[Tt](?P<hour>[0-9]{2})(?P<colon>:?)(?P<minute>[0-9]{2})"
    r"(?:(?P=colon)(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<off_hour>[0-9]{2})(?::?(?P<off_minute>[0-9]{2}))?)?)?"
)
_CANONICAL: Final = re.compile(
    r"ucxl://(?!any:)[A-Za-z0-9._-]{1,64}:(?!any@)[A-Za-z0-9._-]{1,64}@"
    r"(?!any:)[A-Za-z0-9._-]{1,64}:(?!any/)[A-Za-z0-9._-]{1,64}/\*\^"
    r"(?:/(?!\.{1,2}(?:/|\Z))"
    r"(?:[A-Za-z0-9._~-]++|%(?!2[DE]|3[0-9]|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])[0-9A-F]{2})++)*+"
)
"""What is canonical and names one thing, save for the limits on a segment and on the whole."""


@dataclass(frozen=True, slots=True)
class Head:
    """`*^`: the newest version."""

    def __str__(self) -> str:
        return "*^"


@dataclass(frozen=True, slots=True)
class First:
    """`*~`: the first version."""

    def __str__(self) -> str:
        return "*~"


@dataclass(frozen=True, slots=True)
class Number:
    """`*~n`: version number n, counted from 1."""

    n: int

    def __str__(self) -> str:
        return f"*~{self.n}"


@dataclass(frozen=True, slots=True)
class Back:
    """`~~n`: n versions back from the head."""

    n: int

    def __str__(self) -> str:
        return f"~~{self.n}"


@dataclass(frozen=True, slots=True)
class Forward:
    """`^^n`: n versions forward from the first."""

    n: int

    def __str__(self) -> str:
        return f"^^{self.n}"


@dataclass(frozen=True, slots=True)
class AsOf:
    """An instant: the head as of then. Fractions below a millisecond are cut off, as versions have none."""

    unix_ms: int

    def __str__(self) -> str:
        at = _EPOCH + timedelta(milliseconds=self.unix_ms)
        return at.isoformat(timespec="milliseconds" if self.unix_ms % 1000 else "seconds") + "Z"


Temporal = Head | First | Number | Back | Forward | AsOf

HEAD: Final = Head()


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address or a pattern, normalised: `any` for `*` in names, the path percent-encoded only where needed.

    `path` has no slash in front, and is '' when there is none. Made by `parse`, which is what checks it.
    """

    agent: str
    role: str
    project: str
    task: str
    temporal: Temporal = HEAD
    path: str = ""

    @property
    def canonical(self) -> str:
        """The identity: it names the head, whatever the temporal part."""
        return self._written("*^")

    @property
    def text(self) -> str:
        """The address with its own temporal part; `parse` gives the same address back."""
        return self._written(str(self.temporal))

    @property
    def is_pattern(self) -> bool:
        return ANY in (self.agent, self.role, self.project, self.task) or "*" in self.path

    @property
    def key(self) -> bytes:
        """The key in the DHT: 49 ASCII bytes."""
        return key_of(self.canonical)

    def at_head(self) -> "Address":
        """The same thing, its newest version."""
        return self if self.temporal == HEAD else replace(self, temporal=HEAD)

    def __str__(self) -> str:
        return self.text

    def _written(self, temporal: str) -> str:
        path = f"/{self.path}" if self.path else ""
        return f"{SCHEME}{self.agent}:{self.role}@{self.project}:{self.task}/{temporal}{path}"


def parse(text: object) -> Address:
    """The address, or the pattern, in a text. Raises `InvalidAddress` or `InvalidTemporal`, and nothing else."""
    if not isinstance(text, str):
        raise _not_a_text(text)
    _check_length(text, text)
    return _parsed(text)


def require_one(address: Address) -> Address:
    """The address itself, when it names one thing; `InvalidAddress` when it is a pattern."""
    if address.is_pattern:
        raise InvalidAddress(
            f"{address.canonical} is a pattern, and this takes the full address of one thing: "
            "write a name in the place of 'any', and no '*' in the path",
            field="address", provided=address.text, expected=_SHAPE,
        )  # fmt: skip
    return address


def key_of(canonical: str) -> bytes:
    """The DHT key of a canonical address: '/ucxl/' and base64url of its SHA-256 without padding, 49 ASCII bytes."""
    return b"/ucxl/" + urlsafe_b64encode(sha256(canonical.encode("ascii")).digest())[:-1]


def canonical_key(canonical: object) -> bytes:
    """The key of what must be the canonical address of one thing; `InvalidAddress` when it is not."""
    if not isinstance(canonical, str):
        raise _not_a_text(canonical)
    return _canonical_key(canonical)


def pick(temporal: Temporal, versions: Sequence[int]) -> int:
    """The index of the version that a temporal part names.

    `versions` holds the Unix milliseconds (`clock.ms_of`) of each version, in the total order, the first one first.
    Raises `OutOfRange`, which says how many versions there are, when there is no such version.
    """
    index = _index(temporal, versions)
    if not 0 <= index < len(versions):
        shown = _shown(str(temporal))
        raise OutOfRange(
            f"{shown} is out of range: the number of versions known here is {len(versions)}",
            versions=len(versions), provided=shown,
        )  # fmt: skip
    return index


def matches(pattern: Address, address: Address) -> bool:
    """Whether a pattern covers the address of one thing. The temporal parts take no part in it.

    `any` stands for each name. In the path `*` stands for any characters within a segment (none included), `**` for
    any number of segments (none included); without a path a pattern covers what has none. Raises `InvalidAddress`
    when `address` is a pattern itself.
    """
    require_one(address)
    names = (
        (pattern.agent, address.agent), (pattern.role, address.role),
        (pattern.project, address.project), (pattern.task, address.task),
    )  # fmt: skip
    return all(want in (ANY, have) for want, have in names) and _path_matches(
        _pattern_segments(pattern.path), _plain_segments(address.path)
    )


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
        temporal = _temporal(written, names, rest)
        path = _path(path_written) if slash else ""
    address = Address(agent=agent, role=role, project=project, task=task, temporal=temporal, path=path)
    _check_length(address.canonical, text)
    _check_length(address.text, text)
    return address


def _check_length(written: str, provided: str) -> None:
    """An address counts as given and as it is written in full, so that what was accepted once always is."""
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


def _path(written: str) -> str:
    return "/".join(map(_segment, written.split("/")))


def _segment(written: str) -> str:
    if not written:
        raise _invalid("path", written, "segments of 1 to 128 characters", "the path has a slash too many")
    if _SEGMENT.fullmatch(written) is None:
        raise _invalid(
            "path", written, f"A-Z a-z 0-9 - . _ ~ and, for every other byte, its %XX: {_shown(_encoded(written))}",
            "a segment of the path has a character that must be percent-encoded, or a % that encodes nothing",
        )  # fmt: skip
    segment = _TRIPLET.sub(_normalised, written) if "%" in written else written
    if segment in (".", ".."):
        raise _invalid("path", written, "a path from the top", "'.' and '..' are no segments of a path")
    if "**" in segment and segment != "**":
        raise _invalid("path", written, "'**' as a whole segment, or single '*'s", "'**' stands alone in its segment")
    if _characters(segment) > SEGMENT_CHARS_MAX:
        raise _invalid("path", written, f"at most {SEGMENT_CHARS_MAX} characters", "a segment of the path is too long")
    return segment


def _normalised(triplet: re.Match[str]) -> str:
    """Decoded where that is allowed, else in upper case."""
    character = chr(int(triplet[0][1:], 16))
    return character if character in _UNRESERVED else triplet[0].upper()


def _characters(segment: str) -> int:
    """How many characters a segment has, an encoded byte counting as one."""
    return len(segment) - 2 * segment.count("%")


def _encoded(written: str) -> str:
    """How the text of a segment would have to be written; what is a good encoding already stays."""
    octets = written.encode("utf-8", "replace").decode("latin-1")
    return _TO_ENCODE.sub(lambda found: found[0] if len(found[0]) == 3 else f"%{ord(found[0]):02X}", octets)


# -- the temporal part --------------------------------------------------------------------------------------------


def _temporal(written: str, names: str, rest: str) -> Temporal:
    if written == "*^":
        return HEAD
    counted = _COUNTED.fullmatch(written)
    if counted is not None:
        return _counted(written, counted[1], counted[2])
    instant = _INSTANT.fullmatch(written)
    if instant is not None:
        return _as_of(written, instant)
    if written and written[0] not in "*~^%0123456789":
        hint = f"{SCHEME}{names}/*^/{rest}"
        raise _invalid(
            "temporal", written, _shown(hint),
            "the first segment is read as a time, so a path needs one before it, such as *^ for the newest version",
        )  # fmt: skip
    raise _invalid_temporal(written, "this is no temporal segment" if written else "the temporal segment is empty")


def _index(temporal: Temporal, versions: Sequence[int]) -> int:
    """Where the version is, or would be: below 0 or past the end when it is not there."""
    match temporal:
        case Head():
            return len(versions) - 1
        case First():
            return 0
        case Number(n):
            return n - 1
        case Back(n):
            return len(versions) - 1 - n
        case Forward(n):
            return n
        case AsOf(unix_ms):
            return bisect_right(versions, unix_ms) - 1


def _counted(written: str, sign: str, digits: str) -> Temporal:
    match sign, digits:
        case "*~", "":
            return First()
        case "*~", _:
            if not int(digits):
                raise _invalid_temporal(written, "versions are counted from 1")
            return Number(int(digits))
        case "~~", _:
            return Back(int(digits or "1"))
        case _:
            return Forward(int(digits or "1"))


def _as_of(written: str, parts: re.Match[str]) -> AsOf:
    """The instant in UTC; without an offset it was meant so."""
    try:
        at = datetime(
            int(parts["year"]), int(parts["month"]), int(parts["day"]),
            int(parts["hour"] or 0), int(parts["minute"] or 0), int(parts["second"] or 0),
        )  # fmt: skip
        offset = _offset(parts)
        at -= offset
    except (ValueError, OverflowError) as error:
        raise _invalid_temporal(written, "there is no such instant") from error
    return AsOf((at - _EPOCH) // timedelta(milliseconds=1) + int((parts["fraction"] or "").ljust(3, "0")[:3]))


def _offset(parts: re.Match[str]) -> timedelta:
    if parts["sign"] is None:
        return timedelta()
    hours, minutes = int(parts["off_hour"]), int(parts["off_minute"] or 0)
    if hours > 23 or minutes > 59:
        raise ValueError("an offset is at most 23:59")
    return timedelta(hours=hours, minutes=minutes) * (-1 if parts["sign"] == "-" else 1)


# -- errors -------------------------------------------------------------------------------------------------------


def _invalid(field: str, provided: str, expected: str, message: str) -> InvalidAddress:
    shown = _shown(provided)
    return InvalidAddress(
        f"{message}: got '{shown}', expected {expected}", field=field, provided=shown, expected=expected
    )


def _invalid_temporal(provided: str, message: str) -> InvalidTemporal:
    shown = _shown(provided)
    expected = "*^, *~, *~n, ~~n, ^^n, or an instant such as 2026-08-07T14:30:00Z (in a query write + as %2B)"
    return InvalidTemporal(
        f"{message}: got '{shown}', expected {expected}", field="temporal", provided=shown, expected=expected
    )


def _shown(text: str) -> str:
    """A text as it may stand in a log line and in JSON: cut, with what cannot be printed or encoded escaped."""
    shown = text if text.isprintable() else repr(text[:_PROVIDED_CHARS_MAX])[1:-1]
    return shown if len(shown) <= _PROVIDED_CHARS_MAX else shown[:_PROVIDED_CHARS_MAX] + "..."


def _not_a_text(value: object) -> InvalidAddress:
    kind = type(value).__name__
    return InvalidAddress(
        f"an address is a text, this is a value of type {kind}", field="address", provided=kind, expected=_SHAPE
    )


@lru_cache(maxsize=4096)
def _canonical_key(text: str) -> bytes:
    """By one expression when that can tell, else by parsing, which also says what is wrong."""
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


# -- matching -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _pattern_segments(path: str) -> tuple[tuple[str, ...] | None, ...]:
    """For each segment the texts around its stars (a single one: no star), or None for `**`."""
    segments = path.split("/") if path else []
    return tuple(None if segment == "**" else tuple(map(_decoded, segment.split("*"))) for segment in segments)


@lru_cache(maxsize=1024)
def _plain_segments(path: str) -> tuple[str, ...]:
    return tuple(map(_decoded, path.split("/"))) if path else ()


def _decoded(encoded: str) -> str:
    """One character a byte, so that a star never takes half of an encoded one."""
    return unquote_to_bytes(encoded).decode("latin-1")


def _path_matches(pattern: Sequence[tuple[str, ...] | None], segments: Sequence[str]) -> bool:
    """Greedy, going back to the last `**` alone, so that each pair is compared once, whatever the pattern."""
    at = here = 0
    star, taken = -1, 0
    while here < len(segments):
        want = pattern[at] if at < len(pattern) else ()
        if want is None:
            star, taken = at, here
            at += 1
        elif want and _segment_matches(want, segments[here]):
            at, here = at + 1, here + 1
        elif star >= 0:
            taken += 1
            at, here = star + 1, taken
        else:
            return False
    return all(want is None for want in pattern[at:])


def _segment_matches(pieces: tuple[str, ...], segment: str) -> bool:
    """Each piece of text in turn, at the first place where it is found, the last one at the end."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return segment == first
    if not segment.startswith(first):
        return False
    at = len(first)
    for piece in pieces[1:-1]:
        found = segment.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(segment) - len(last) >= at and segment.endswith(last)
