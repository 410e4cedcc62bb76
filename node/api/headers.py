"""Parses the headers of a request, all of them UTF-8; a wrong one is refused with its name and an example."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from node.api.media import DEFAULT_TYPE, is_media_type
from node.api.query import refuse
from node.api.request import Request
from protocols.errors import InvalidPayload
from protocols.heads import heads_tag

_META_PREFIX = b"ucxl-meta-"
_HEADS_PREFIX = "heads-"
_TAG = re.compile(r'(?:W/)?"((?:heads-)?[0-9a-fA-F]{64})"|((?:heads-)?[0-9a-fA-F]{64})')
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,200}")


def header(request: Request, name: str) -> str | None:
    """A header's value, decoded as UTF-8, or None without the header. Raises `InvalidPayload` for other bytes."""
    value = request.headers.get(name.encode("ascii"))
    return None if value is None else _header_text(name, value)


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
    for raw, value in request.headers.items():
        if not raw.startswith(_META_PREFIX):
            continue
        name = raw[len(_META_PREFIX) :].decode("ascii")
        if not name or raw in request.repeated:
            refuse(raw.decode("ascii"), name, "a name after UCXL-Meta-, each once")
        found[name] = _header_text(raw.decode("ascii"), value)
    return found


def head_tag(heads: Sequence[bytes]) -> str:
    """The ETag of an answer that has these heads, without quotes: a digest, or the name of the whole set."""
    return f"{_HEADS_PREFIX if len(heads) > 1 else ''}{heads_tag(heads).hex()}"


def tags(field: str, value: str, *, may_be_sets: bool = False) -> tuple[bytes, ...]:
    """Digests in a list with commas, each in hex, with or without the quotes of an ETag; () for an empty list.

    With `may_be_sets` the ETags of answers with siblings, which name a set of heads, are allowed as well.
    """
    found = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        match = _TAG.fullmatch(part)
        tag = (match[1] or match[2]) if match else ""
        if not tag or (tag.startswith(_HEADS_PREFIX) and not may_be_sets):
            refuse(field, part, 'digests of 64 hex digits, like "9f86d0...", with commas between them')
        found.append(bytes.fromhex(tag.removeprefix(_HEADS_PREFIX)))
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
        elif not (digests := tags("If-Match", value, may_be_sets=True)):
            refuse("If-Match", value, 'an ETag, digests like "9f86d0...", or *')
        else:
            conditions["if_match"] = digests
    if (value := header(request, "if-none-match")) is not None:
        if value != "*":
            refuse("If-None-Match", value, "* (for a write: only if nothing is at the address)")
        conditions["must_be_absent"] = True
    return conditions


def is_unchanged(request: Request, known: str) -> bool:
    """Whether `If-None-Match` has this ETag (without quotes): then the client has this answer already."""
    value = header(request, "if-none-match")
    if value is None:
        return False
    return value == "*" or any(part.strip().removeprefix("W/").strip('"').lower() == known for part in value.split(","))


def idempotency_key(request: Request) -> str | None:
    value = header(request, "idempotency-key")
    if value is not None and not _IDEMPOTENCY_KEY.fullmatch(value):
        refuse("Idempotency-Key", value, "1 to 200 visible ASCII characters")
    return value


def caller(request: Request) -> str:
    """The author of a change that names none: the address that the request came from, which proves no identity."""
    return f"api {request.client}" if request.client else "api"
