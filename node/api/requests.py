"""What a request asks for: its query and its headers as values, refused with a name and an example when they are wrong.

Everything here is a plain function over a Starlette `Request` or a header's text, and raises the errors of
`protocols.codes`. Query parameters are percent-decoded as strict UTF-8 and a plus sign stays one: no parameter has
spaces, and an instant in an address has its offset (`+02:00`).
"""

import codecs
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from node.dht.base import Consistency
from protocols import ucxl
from protocols.codes import InvalidAddress, InvalidPayload, InvalidTemporal
from protocols.ucxl import Address

ENVELOPE_TYPE = "application/vnd.bzzz.envelope"
JSON_TYPE = "application/json"
DEFAULT_TYPE = "application/octet-stream"
TIMEOUT_MS_MAX = 60_000
_META_PREFIX = b"ucxl-meta-"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_TAG = re.compile(r'(?:W/)?"([0-9a-fA-F]{64})"|([0-9a-fA-F]{64})')
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(?:\s*;\s*{_TOKEN}=(?:{_TOKEN}|"[^"\\\x00-\x1f\x7f]*"))*', re.ASCII)
_CHECKED_CHARSETS = frozenset({"utf-8", "ascii", "utf-16", "utf-16-le", "utf-16-be", "utf-32"})
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,200}")


class Query:
    """The query parameters of a request, of which only `known` may be there, and each once."""

    def __init__(self, request: Request, *known: str) -> None:
        self._values: dict[str, str] = {}
        for part in request.scope["query_string"].split(b"&"):
            if not part:
                continue
            name, _, value = (_decoded(piece) for piece in part.partition(b"="))
            if name not in known:
                _refuse_unknown(name, known)
            if name in self._values:
                _refuse(name, value, "once", f"the query says {name} more than once")
            self._values[name] = value

    def text(self, name: str) -> str | None:
        """The value, or None when it is not there or empty."""
        return self._values.get(name) or None

    def address(self) -> Address:
        """The full address that the query names. Raises `InvalidAddress` or `InvalidTemporal`."""
        value = self.text("address")
        if value is None:
            raise InvalidAddress(
                "the query has no address; add ?address=ucxl://agent:role@project:task/*^/path",
                field="address", provided=None, expected="ucxl://agent:role@project:task/*^/path",
            )  # fmt: skip
        return ucxl.require_one(ucxl.parse(value))

    def address_to_write(self) -> Address:
        """The same, and it must name the head: a version is only ever written on top."""
        address = self.address()
        if not isinstance(address.temporal, ucxl.Head):
            raise InvalidTemporal(
                "only the head can be written: leave the time out of the address, or write *^",
                field="address", provided=self.text("address"), expected=address.canonical,
            )  # fmt: skip
        return address

    def flag(self, name: str) -> bool:
        match self.text(name):
            case None | "false":
                return False
            case "true":
                return True
            case other:
                _refuse(name, other, "true or false")

    def number(self, name: str, low: int, high: int) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 20 and low <= int(value) <= high):
            _refuse(name, value, f"a whole number, {low} to {high}")
        return int(value)

    def timeout(self) -> float | None:
        """`timeout_ms` in seconds."""
        milliseconds = self.number("timeout_ms", 1, TIMEOUT_MS_MAX)
        return None if milliseconds is None else milliseconds / 1000

    def consistency(self) -> Consistency:
        value = self.text("consistency") or Consistency.AUTO.value
        try:
            return Consistency(value)
        except ValueError:
            _refuse("consistency", value, "auto, local or swarm")

    def digest(self) -> bytes | None:
        value = self.text("digest")
        if value is None:
            return None
        if not _DIGEST.fullmatch(value):
            _refuse("digest", value, "64 hex digits")
        return bytes.fromhex(value)


def _decoded(piece: bytes) -> str:
    try:
        return unquote_to_bytes(piece).decode("utf-8")
    except UnicodeDecodeError as error:
        shown = piece.decode("ascii", "replace")
        raise InvalidPayload(
            f"the query is not UTF-8: {shown}", field="query", provided=shown, expected="percent-encoded UTF-8"
        ) from error


def _refuse(field: str, provided: str | None, expected: str, message: str = "") -> NoReturn:
    raise InvalidPayload(
        message or f"{field} is {provided!r}; it must be {expected}", field=field, provided=provided, expected=expected
    )


def _refuse_unknown(name: str, known: Iterable[str]) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    allowed = ", ".join(known) or "no parameters"
    _refuse(name, name, allowed, f"{name!r} is no parameter of this call" + (f"; did you mean {near[0]}?" if near else ""))


# -- headers ----------------------------------------------------------------------------------------------------------


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
    if not _MEDIA_TYPE.fullmatch(value):
        _refuse("Content-Type", value, "a media type, like text/markdown; charset=utf-8")
    return value


def is_media_type(value: str) -> bool:
    """Whether text can stand in a Content-Type header."""
    return _MEDIA_TYPE.fullmatch(value) is not None


def meta(request: Request) -> Mapping[str, str]:
    """`UCXL-Meta-<name>` headers by name; header names know no case, so the names are lower-case."""
    found: dict[str, str] = {}
    for raw, value in request.scope["headers"]:
        if not raw.startswith(_META_PREFIX):
            continue
        name = raw[len(_META_PREFIX) :].decode("ascii")
        if not name or name in found:
            _refuse(raw.decode("ascii"), name, "a name after UCXL-Meta-, each once")
        found[name] = _header_text(raw.decode("ascii"), value)
    return found


def tags(field: str, value: str) -> tuple[bytes, ...]:
    """Digests in a comma list, each in hex, with or without the quotes of an ETag; () for an empty list."""
    found = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        if not (match := _TAG.fullmatch(part)):
            _refuse(field, part, 'digests of 64 hex digits, like "9f86d0...", with commas between them')
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
            _refuse("If-Match", value, 'a digest, like "9f86d0...", or *')
        else:
            told["if_match"] = digests
    if (value := header(request, "if-none-match")) is not None:
        if value != "*":
            _refuse("If-None-Match", value, "* when writing: 'only if there is nothing'")
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
        _refuse("Idempotency-Key", value, "1 to 200 visible ASCII characters")
    return value


def preferred(accept: str | None) -> str:
    """What form of an envelope the reader asks for: JSON, the signed bytes, or (DEFAULT_TYPE) the content itself.

    Only a form asked for by name is anything but the content: `*/*` and types the content happens to have are that.
    """
    best, best_quality = DEFAULT_TYPE, 0.0
    for part in (accept or "").split(","):
        kind, *settings = (piece.strip().lower() for piece in part.split(";"))
        form = kind if kind in (JSON_TYPE, ENVELOPE_TYPE) else DEFAULT_TYPE
        quality = _quality(settings)
        if quality > best_quality or (quality == best_quality > 0 and best == DEFAULT_TYPE):
            best, best_quality = form, quality
    return best


def _quality(settings: Iterable[str]) -> float:
    for setting in settings:
        if setting.startswith("q="):
            try:
                return min(1.0, max(0.0, float(setting[2:])))
            except ValueError:
                return 0.0
    return 1.0


# -- the body ---------------------------------------------------------------------------------------------------------


def check_content(body: bytes, media_type: str) -> None:
    """Refuse a body that is not what its type says, as far as a node can tell: JSON, and text in its charset."""
    kind, _, settings = media_type.lower().partition(";")
    kind = kind.strip()
    is_json = kind == JSON_TYPE or kind.endswith("+json")
    if not (is_json or kind.startswith("text/")):
        return
    if (charset := "utf-8" if is_json else _charset(settings)) is None:
        return
    try:
        decoded = body.decode(charset)
        if is_json:
            json.loads(decoded, parse_int=float, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        wrong = "JSON" if is_json and not isinstance(error, UnicodeDecodeError) else charset.upper()
        raise InvalidPayload(
            f"the body is not {wrong}, but its type says {media_type}", field="body", expected=media_type
        ) from error


def _charset(settings: str) -> str | None:
    """The charset a type names, UTF-8 when it names none; None when it is one that we do not check."""
    named = re.search(r"""charset\s*=\s*["']?([a-z0-9._:-]+)""", settings)
    if named is None:
        return "utf-8"
    try:
        charset = codecs.lookup(named[1]).name
    except LookupError:
        return None
    return charset if charset in _CHECKED_CHARSETS else None


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
