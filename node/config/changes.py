"""A change of flags, as somebody asks for it: read whole, or refused with the name and the reason.

Types are exact: what comes in is JSON, which has no excuse for `true` in quotes. Only durations may also be text.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.config import values
from node.config.flags import NAMES, Flags, Force
from node.config.options import OPTIONS, Option
from protocols.errors import InvalidPayload

EXPIRES_MS = 3_600_000
"""How long an override holds when nobody says for how long."""
EXPIRES_MS_MAX = 30 * 86_400_000
WORDS_MAX = 500
NAME_MAX = 100

_OPTIONS: Mapping[str, Option] = {
    option.field: option for option in reversed(OPTIONS) if option.field in NAMES and not option.is_older
}
_ALIASES = {name: option.field for option in _OPTIONS.values() for name in (*option.names, option.key)}
_ABOUT = ("reason", "author", "override", "expires_in")
"""What may stand in a change beside the names of flags."""
_TYPES: Mapping[Any, tuple[type, ...]] = {
    str: (str,), bool: (bool,), bool | None: (bool,), float: (int, float), int: (int,), int | None: (int,)
}  # fmt: skip
_IN_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagChange:
    """A change as somebody asked for it, read and sound in itself. None as a value: back to what is configured."""

    values: Mapping[str, Any]
    reason: str
    author: str
    force: Force | None = None
    expires_in_ms: int = EXPIRES_MS
    ends_override: bool = False


def read_change(told: Mapping[str, Any], *, author: str) -> FlagChange:
    """Read what came as JSON. `author` is who asks, unless the change names another. Raises `InvalidPayload`."""
    names: dict[str, Any] = {}
    for given, value in told.items():
        if given in _ABOUT:
            continue
        if (name := given if given in NAMES else _ALIASES.get(given)) is None:
            near = difflib.get_close_matches(given, [*NAMES, *_ABOUT], n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(NAMES)}"
            raise _refusal(given[:100], value, "a flag", f"there is no flag {given[:100]!r}{hint}")
        if name in names:
            raise _refusal(name, value, "once", f"{name} is set twice, once under another of its names")
        names[name] = None if value is None else _read(name, value)
    reason = _words("reason", told.get("reason", ""), WORDS_MAX)
    change = FlagChange(
        values=names, reason=reason, author=_words("author", told.get("author", ""), NAME_MAX) or author,
        **_read_override(told, reason),
    )  # fmt: skip
    if not names and change.force is None and not change.ends_override:
        raise InvalidPayload(
            "the change names no flag; say which, like {\"backend\": \"mock\", \"reason\": \"...\"}",
            field="body", expected=", ".join((*NAMES, "override")),
        )  # fmt: skip
    return change


def _read(name: str, value: object) -> Any:
    """One value, of exactly its type: JSON has no excuse for 'true' in quotes. Durations may be text."""
    kind = Flags.__annotations__[name]
    expected = _TYPES[kind]
    is_duration = name.endswith("_ms")
    if type(value) not in ((*expected, str) if is_duration else expected):
        in_words = "milliseconds, or text like 500ms" if is_duration else _IN_WORDS[expected[-1]]
        raise _refusal(name, value, in_words, f"{name} is {_shown(value)}; it must be {in_words}")
    try:
        return _OPTIONS[name].read(value)
    except ValueError as error:
        raise _refusal(name, value, str(error), f"{name}: {error}") from None


def _read_override(told: Mapping[str, Any], reason: str) -> dict[str, Any]:
    if "override" not in told:
        if "expires_in" in told:
            raise _refusal("expires_in", told["expires_in"], "an override", "expires_in is for an override alone")
        return {}
    wanted = told["override"]
    if wanted is None:
        return {"ends_override": True}
    if not isinstance(wanted, str) or wanted not in list(Force):
        expected = "mock, open, closed, or null to end it"
        raise _refusal("override", wanted, expected, f"override is {_shown(wanted)}; it must be {expected}")
    if not reason:
        raise _refusal("reason", None, "a reason", 'an override needs a reason: add "reason": "..."')
    return {"force": Force(wanted), "expires_in_ms": _expiry(told.get("expires_in", EXPIRES_MS))}


def _expiry(value: object) -> int:
    if type(value) not in (int, str):
        raise _refusal("expires_in", value, "a duration", f"expires_in is {_shown(value)}; it must be like 30m")
    try:
        return values.milliseconds_between(1, EXPIRES_MS_MAX)(value)
    except ValueError as error:
        raise _refusal("expires_in", value, "a duration", f"expires_in: {error}") from None


def _words(name: str, value: object, length_max: int) -> str:
    if not isinstance(value, str) or len(value) > length_max or not value.isprintable():
        expected = f"one line of at most {length_max} printable characters"
        raise _refusal(name, value, expected, f"{name} is not {expected}")
    return value.strip()


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refusal(name: str, provided: object, expected: str, message: str) -> InvalidPayload:
    return InvalidPayload(message, field=name, provided=_shown(provided), expected=expected)
