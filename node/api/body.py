"""Parses the body of a request as one JSON object; a body that is something else, or repeats a name, is refused."""

import json
from collections.abc import Mapping
from typing import Any

from protocols.errors import InvalidPayload

_EXAMPLE = 'a JSON object, like {"backend": "mock", "reason": "..."}'


def json_object(body: bytes) -> dict[str, Any]:
    """Return the object. Raises `InvalidPayload`."""
    try:
        parsed = json.loads(body.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _refusal("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise _refusal(f"{error.msg}, line {error.lineno} column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise _refusal(str(error) if type(error) is ValueError else "it is nested too deeply") from error
    if not isinstance(parsed, dict):
        raise _refusal("it is not an object")
    return parsed


def refuse_unknown(body: Mapping[str, Any], *known: str) -> None:
    """Refuse a body with other names than these. Raises `InvalidPayload`."""
    for name in body:
        if name not in known:
            raise InvalidPayload(
                f"this call has no field {name[:100]!r}; its fields are {', '.join(known)}",
                field=name[:100], expected=", ".join(known),
            )  # fmt: skip


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        repeated = next(name for name in members if sum(name == other for other, _ in pairs) > 1)
        raise _refusal(f"{repeated[:100]!r} appears twice")
    return members


def _refuse_constant(constant: str) -> None:
    raise _refusal(f"{constant} is not a JSON number")


def _refusal(why: str) -> InvalidPayload:
    return InvalidPayload(f"the body is not {_EXAMPLE}: {why}", field="body", expected=_EXAMPLE)
