"""The temporal part of a UCXL address, which names a version of a thing (`docs/ucxl.md`, 'Versions').

It names the head, a version counted from either end, or the head as of an instant.
`node/services/reads/temporal_walk.py` finds that version.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from protocols.errors import InvalidTemporal, OutOfRange

_SHOWN_CHARS_MAX: Final = 200
_EPOCH: Final = datetime(1970, 1, 1)
_COUNTED: Final = re.compile(r"(\*~|~~|\^\^)([0-9]*)")
_INSTANT: Final = re.compile(
    r"(?P<year>[0-9]{4})(?P<dash>-?)(?P<month>[0-9]{2})(?P=dash)(?P<day>[0-9]{2})"
    r"(?:[Tt](?P<hour>[0-9]{2})(?P<colon>:?)(?P<minute>[0-9]{2})"
    r"(?:(?P=colon)(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<off_hour>[0-9]{2})(?::?(?P<off_minute>[0-9]{2}))?)?)?"
)


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
    """An instant: the head as of that time. Fractions below a millisecond are cut off, because versions have none."""

    unix_ms: int

    def __str__(self) -> str:
        at = _EPOCH + timedelta(milliseconds=self.unix_ms)
        return at.isoformat(timespec="milliseconds" if self.unix_ms % 1000 else "seconds") + "Z"


Temporal = Head | First | Number | Back | Forward | AsOf

HEAD: Final = Head()


def parse_temporal(written: str) -> Temporal:
    """The meaning of a temporal segment. Raises `InvalidTemporal` for any other text."""
    if written == "*^":
        return HEAD
    counted = _COUNTED.fullmatch(written)
    if counted is not None:
        return _counted(written, counted[1], counted[2])
    instant = _INSTANT.fullmatch(written)
    if instant is not None:
        return _as_of(written, instant)
    raise _invalid(written, "this is not a temporal segment" if written else "the temporal segment is empty")


def out_of_range(temporal: Temporal, count: int) -> OutOfRange:
    """The error for a temporal part that names none of the `count` versions there are."""
    name = shown(str(temporal))
    return OutOfRange(
        f"{name} is out of range: the number of versions known here is {count}", versions=count, provided=name
    )


def shown(text: str) -> str:
    """A text for a log line or JSON: shortened, with unprintable characters escaped."""
    printable = text if text.isprintable() else repr(text[:_SHOWN_CHARS_MAX])[1:-1]
    return printable if len(printable) <= _SHOWN_CHARS_MAX else printable[:_SHOWN_CHARS_MAX] + "..."


def _counted(written: str, sign: str, digits: str) -> Temporal:
    match sign, digits:
        case "*~", "":
            return First()
        case "*~", _:
            if not int(digits):
                raise _invalid(written, "versions are counted from 1")
            return Number(int(digits))
        case "~~", _:
            return Back(int(digits or "1"))
        case _:
            return Forward(int(digits or "1"))


def _as_of(written: str, parts: re.Match[str]) -> AsOf:
    """The instant in UTC, which is also meant without an offset."""
    try:
        at = datetime(
            int(parts["year"]), int(parts["month"]), int(parts["day"]),
            int(parts["hour"] or 0), int(parts["minute"] or 0), int(parts["second"] or 0),
        )  # fmt: skip
        offset = _offset(parts)
        at -= offset
    except (ValueError, OverflowError) as error:
        raise _invalid(written, "there is no such instant") from error
    return AsOf((at - _EPOCH) // timedelta(milliseconds=1) + int((parts["fraction"] or "").ljust(3, "0")[:3]))


def _offset(parts: re.Match[str]) -> timedelta:
    if parts["sign"] is None:
        return timedelta()
    hours, minutes = int(parts["off_hour"]), int(parts["off_minute"] or 0)
    if hours > 23 or minutes > 59:
        raise ValueError("an offset is at most 23:59")
    return timedelta(hours=hours, minutes=minutes) * (-1 if parts["sign"] == "-" else 1)


def _invalid(provided: str, message: str) -> InvalidTemporal:
    written = shown(provided)
    expected = "*^, *~, *~n, ~~n, ^^n, or an instant such as 2026-08-07T14:30:00Z (in a query write + as %2B)"
    return InvalidTemporal(
        f"{message}: got '{written}', expected {expected}", field="temporal", provided=written, expected=expected
    )
