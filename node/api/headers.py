"""The headers of a request as values, refused with a name and an example when they are wrong. All of them are UTF-8."""

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from node.api.media import DEFAULT_TYPE, is_media_type
from node.api.query import refuse
from protocols.errors import InvalidPayload

_META_PREFIX = b"ucxl-meta-"
_TAG = re.compile(r'(?:W/)?"([0-9a-fA-F]{64})"|([0-9a-fA-F]{64})')
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,200}")


def header(request: Request, name: str) -> str | None:
    """A header's value as UTF-8; None when it is not there. Raises `InvalidPayload` for other bytes."""
    raw = name.encode("ascii")
    found = [value for key, value in request.scope["headers"] if key == raw]
    return _header_text(name, b", ".join(found)) if found else None


def _header_text(name: str, value: bytes) -> str:
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise InvalidPayload(
            f"the header {name} is not UTF-8", field=name, provided=repr(value), expected="UTF-8"
        ) from error


def content_type(request: Request) -> str:
    value = header(request, "content-type")
    if not value:
        return DEFAULT_TYPE
    if not is_media_type(value):
        refuse("Content-Type", value, "a media type, like text/markdown; charset=utf-8")
    return value


def meta(request: Request) -> Mapping[str, str]:
    """`UCXL-Meta-<name>` headers by name; header names know no case, so the names are lower-case."""
    found: dict[str, str] = {}
    for raw, value in request.scope["headers"]:
        if not raw.startswith(_META_PREFIX):
            continue
        name = raw[len(_META_PREFIX) :].decode("ascii")
        if not name or name in found:
            refuse(raw.decode("ascii"), name, "a name after UCXL-Meta-, each once")
        found[name] = _header_text(raw.decode("ascii"), value)
    return found


def tags(field: str, value: str) -> tuple[bytes, ...]:
    """Digests in a comma list, each in hex, with or without the quotes of an ETag; () for an empty list."""
    found = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        if not (match := _TAG.fullmatch(part)):
            refuse(field, part, 'digests of 64 hex digits, like "9f86d0...", with commas between them')
        found.append(bytes.fromhex(match[1] or match[2]))
    return tuple(dict.fromkeys(found))


def parents(request: Request) -> tuple[bytes, ...] | None:
    """`UCXL-Parents`: None leaves it to the node, an empty list says 'on top of nothing'."""
    value = header(request, "ucxl-parents")
    return None if value is None else tags("UCXL-Parents", value)


def conditions(request: Request) -> dict[str, Any]:
    """`If-Match` and `If-None-Match: *`, as the author takes them."""
    told: dict[str, Any] = {}
    if (value := header(request, "if-match")) is not None:
        if value == "*":
            told["any_match"] = True
        elif not (digests := tags("If-Match", value)):
            refuse("If-Match", value, 'a digest, like "9f86d0...", or *')
        else:
            told["if_match"] = digests
    if (value := header(request, "if-none-match")) is not None:
        if value != "*":
            refuse("If-None-Match", value, "* when writing: 'only if there is nothing'")
        told["must_be_absent"] = True
    return told


def is_unchanged(request: Request, digest: bytes) -> bool:
    """Whether `If-None-Match` names this digest: then the reader has it already."""
    value = header(request, "if-none-match")
    if value is None:
        return False
    shown = digest.hex()
    return value == "*" or any(part.strip().removeprefix("W/").strip('"').lower() == shown for part in value.split(","))


def idempotency_key(request: Request) -> str | None:
    value = header(request, "idempotency-key")
    if value is not None and not _IDEMPOTENCY_KEY.fullmatch(value):
        refuse("Idempotency-Key", value, "1 to 200 visible ASCII characters")
    return value


def caller(request: Request) -> str:
    """Who asks, as far as that is known: where the request came from. Nobody has proved to be a person."""
    client = request.scope.get("client")
    return f"api {client[0]}" if client else "api"
