"""The body of a request as a JSON object, refused by name when it is none, or says a thing twice."""

import json
from typing import Any

from protocols.errors import InvalidPayload

_EXAMPLE = 'a JSON object, like {"backend": "mock", "reason": "..."}'


def json_object(body: bytes) -> dict[str, Any]:
    """The object. Raises `InvalidPayload`."""
    try:
        told = json.loads(body.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _refusal("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise _refusal(f"{error.msg}, line {error.lineno} column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise _refusal(str(error) if type(error) is ValueError else "it is nested too deeply") from error
    if not isinstance(told, dict):
        raise _refusal("it is no object")
    return told


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    told = dict(pairs)
    if len(told) < len(pairs):
        twice = next(name for name in told if sum(name == other for other, _ in pairs) > 1)
        raise _refusal(f"{twice[:100]!r} stands there twice")
    return told


def _refuse_constant(constant: str) -> None:
    raise _refusal(f"{constant} is no JSON number")


def _refusal(why: str) -> InvalidPayload:
    return InvalidPayload(f"the body is not {_EXAMPLE}: {why}", field="body", expected=_EXAMPLE)
