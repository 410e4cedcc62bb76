"""Media types: the form that a reader asks for, the type that a writer declares, and whether a body fits that type."""

import codecs
import json
import re
from collections.abc import Iterable
from typing import NoReturn

from protocols.errors import InvalidPayload

ENVELOPE_TYPE = "application/vnd.bzzz.envelope"
JSON_TYPE = "application/json"
DEFAULT_TYPE = "application/octet-stream"
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
"""A token of RFC 9110: a type, a subtype, the name of a header."""
_MEDIA_TYPE = re.compile(rf'{TOKEN}/{TOKEN}(?:\s*;\s*{TOKEN}=(?:{TOKEN}|"[^"\\\x00-\x1f\x7f]*"))*', re.ASCII)
_CHECKED_CHARSETS = frozenset({"utf-8", "ascii", "utf-16", "utf-16-le", "utf-16-be", "utf-32"})


def is_media_type(value: str) -> bool:
    """Whether a text is valid as a Content-Type header."""
    return _MEDIA_TYPE.fullmatch(value) is not None


def preferred(accept: str | None) -> str:
    """The form of an envelope that `Accept` asks for: JSON, the signed envelope, or (DEFAULT_TYPE) the content itself.

    JSON and the signed envelope must be asked for by name: `*/*` and every other type mean the content.
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


def check_content(body: bytes, media_type: str) -> None:
    """Refuse a body that does not fit its type. A node checks two kinds: JSON, and text in its charset."""
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
    """The charset that a type names, UTF-8 when it names none; None for a charset that is not checked."""
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
