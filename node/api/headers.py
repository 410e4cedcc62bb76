"""Parses the headers of a request, all of them UTF-8; a wrong one is refused with its name and an example."""

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
    """A header's value, decoded as UTF-8, or None without the header. Raises `InvalidPayload` for other bytes."""
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
    """The `UCXL-Meta-<name>` headers by name. Names of headers have no case, so the names are lower-case here."""
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
    """Digests in a list with commas, each in hex, with or without the quotes of an ETag; () for an empty list."""
    found = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        if not (match := _TAG.fullmatch(part)):
            refuse(field, part, 'digests of 64 hex digits, like "9f86d0...", with commas between them')
        found.append(bytes.fromhex(match[1] or match[2]))
    return tuple(dict.fromkeys(found))


def parents(request: Request) -> tuple[bytes, ...] | None:
    """`UCXL-Parents`. None: the node chooses the parents; an empty list: the version has no parents."""
    value = header(request, "ucxl-parents")
    return None if value is None else tags("UCXL-Parents", value)


def conditions(request: Request) -> dict[str, Any]:
    """`If-Match` and `If-None-Match: *`, as arguments of the author's writes."""
    conditions: dict[str, Any] = {}
    if (value := header(request, "if-match")) is not None:
        if value == "*":
            conditions["any_match"] = True
        elif not (digests := tags("If-Match", value)):
            refuse("If-Match", value, 'a digest, like "9f86d0...", or *')
        else:
            conditions["if_match"] = digests
    if (value := header(request, "if-none-match")) is not None:
        if value != "*":
            refuse("If-None-Match", value, "* (for a write: only if nothing is at the address)")
        conditions["must_be_absent"] = True
    return conditions


def is_unchanged(request: Request, digest: bytes) -> bool:
    """Whether `If-None-Match` names this digest: then the client has this version already."""
    value = header(request, "if-none-match")
    if value is None:
        return False
    known = digest.hex()
    return value == "*" or any(part.strip().removeprefix("W/").strip('"').lower() == known for part in value.split(","))


def idempotency_key(request: Request) -> str | None:
    value = header(request, "idempotency-key")
    if value is not None and not _IDEMPOTENCY_KEY.fullmatch(value):
        refuse("Idempotency-Key", value, "1 to 200 visible ASCII characters")
    return value


def caller(request: Request) -> str:
    """The author of a change that names none: the address that the request came from, which proves no identity."""
    client = request.scope.get("client")
    return f"api {client[0]}" if client else "api"
