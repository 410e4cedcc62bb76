"""A requested change of flags: read as a whole from JSON, or refused with the name and the reason.

Types are exact, because JSON has types: `true` in quotes is refused. Only durations may also be text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.config import values
from node.config.flags import NAMES, FlagValues, Force
from node.config.options import nearest, options
from protocols.errors import InvalidPayload

EXPIRES_MS = 3_600_000
"""How long an override holds when the change does not say."""
EXPIRES_MS_MAX = 30 * 86_400_000
REASON_CHARS_MAX = 500
AUTHOR_CHARS_MAX = 100

_OPTIONS = {option.field: option for option in options(FlagValues) if not option.is_older}
_ALIASES = {name: option.field for option in _OPTIONS.values() for name in (*option.names, option.key)}
_ABOUT = ("reason", "author", "override", "expires_in")
"""The keys that a change may have beside the names of flags."""
_TYPES: Mapping[Any, tuple[type, ...]] = {
    str: (str,), bool: (bool,), bool | None: (bool,), float: (int, float), int: (int,), int | None: (int,)
}  # fmt: skip
_IN_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagChange:
    """A change, read and valid in itself. None as a value: back to the configured one."""

    values: Mapping[str, Any]
    reason: str
    author: str
    force: Force | None = None
    expires_in_ms: int = EXPIRES_MS
    ends_override: bool = False


def read_change(data: Mapping[str, Any], *, author: str) -> FlagChange:
    """Read a change from JSON. `author` is the author unless the change names another. Raises `InvalidPayload`."""
    flags: dict[str, Any] = {}
    for given, value in data.items():
        if given in _ABOUT:
            continue
        if (name := given if given in NAMES else _ALIASES.get(given)) is None:
            hint = nearest(given, (*NAMES, *_ABOUT)) or f"; there are {', '.join(NAMES)}"
            raise _refusal(given[:100], value, "a flag", f"there is no flag {given[:100]!r}{hint}")
        if name in flags:
            raise _refusal(name, value, "once", f"{name} is set twice, once under another of its names")
        flags[name] = None if value is None else _read(name, given, value)
    reason, author = read_reason(data, author=author)
    change = FlagChange(values=flags, reason=reason, author=author, **_read_override(data, reason))
    if not flags and change.force is None and not change.ends_override:
        raise InvalidPayload(
            "the change names no flag; say which, like {\"backend\": \"mock\", \"reason\": \"...\"}",
            field="body", expected=", ".join((*NAMES, "override")),
        )  # fmt: skip
    return change


def read_reason(data: Mapping[str, Any], *, author: str) -> tuple[str, str]:
    """The `reason` and the `author` of an act, for the audit log; `author` is the author unless the data names one.

    Raises `InvalidPayload`.
    """
    reason = _line("reason", data.get("reason", ""), REASON_CHARS_MAX)
    return reason, _line("author", data.get("author", ""), AUTHOR_CHARS_MAX) or author


def _read(name: str, given: str, value: object) -> Any:
    """One value, of exactly its type; `given` is the name that the change has for the flag."""
    kind = FlagValues.__annotations__[name]
    expected = _TYPES[kind]
    is_duration = name.endswith("_ms")
    if type(value) not in ((*expected, str) if is_duration else expected):
        in_words = "milliseconds, or text like 500ms" if is_duration else _IN_WORDS[expected[-1]]
        raise _refusal(name, value, in_words, f"{name} is {_shown(value)}; it must be {in_words}")
    try:
        return _OPTIONS[name].read(_OPTIONS[name].checked(given, value))
    except ValueError as error:
        raise _refusal(name, value, str(error), f"{name}: {error}") from None


def _read_override(data: Mapping[str, Any], reason: str) -> dict[str, Any]:
    if "override" not in data:
        if "expires_in" in data:
            raise _refusal("expires_in", data["expires_in"], "an override", "expires_in is for an override alone")
        return {}
    wanted = data["override"]
    if wanted is None:
        return {"ends_override": True}
    if not isinstance(wanted, str) or wanted not in list(Force):
        expected = "mock, open, closed, or null to end it"
        raise _refusal("override", wanted, expected, f"override is {_shown(wanted)}; it must be {expected}")
    if not reason:
        raise _refusal("reason", None, "a reason", 'an override needs a reason: add "reason": "..."')
    return {
        "force": Force(wanted),
        "expires_in_ms": _expiry(data["expires_in"]) if "expires_in" in data else EXPIRES_MS,
    }


def _expiry(value: object) -> int:
    if type(value) not in (int, str):
        raise _refusal("expires_in", value, "a duration", f"expires_in is {_shown(value)}; it must be like 30m")
    try:
        return values.milliseconds_between(1, EXPIRES_MS_MAX)(values.with_unit(value))
    except ValueError as error:
        raise _refusal("expires_in", value, "a duration", f"expires_in: {error}") from None


def _line(name: str, value: object, length_max: int) -> str:
    if not isinstance(value, str) or len(value) > length_max or not value.isprintable():
        expected = f"one line of at most {length_max} printable characters"
        raise _refusal(name, value, expected, f"{name} is not {expected}")
    return value.strip()


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refusal(name: str, provided: object, expected: str, message: str) -> InvalidPayload:
    return InvalidPayload(message, field=name, provided=_shown(provided), expected=expected)
