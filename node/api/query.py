"""Parses the query of a request; a wrong parameter is refused with its name and an example.

Parameters are percent-decoded as strict UTF-8. A plus sign is not a space: no parameter has spaces, but an instant in
an address may have an offset (`+02:00`).
"""

import difflib
import re
from collections.abc import Iterable
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from node.api.request import Request
from node.dht.base import Consistency
from protocols import ucxl
from protocols.errors import InvalidAddress, InvalidPayload, InvalidTemporal
from protocols.temporal import Head
from protocols.ucxl import Address

TIMEOUT_MS_MAX = 60_000
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


class Query:
    """The query parameters of a request. Only the names in `known` are allowed, each at most once."""

    def __init__(self, request: Request, *known: str) -> None:
        self._values: dict[str, str] = {}
        for part in request.query.split(b"&"):
            if not part:
                continue
            raw_name, _, raw_value = part.partition(b"=")
            name, value = _decoded(raw_name), _decoded(raw_value)
            if name not in known:
                _refuse_unknown(name, known)
            if name in self._values:
                refuse(name, value, "once", f"the query has {name} more than once")
            self._values[name] = value

    def text(self, name: str) -> str | None:
        """The value, or None when it is missing or empty."""
        return self._values.get(name) or None

    def address(self) -> Address:
        """The full address in the query. Raises `InvalidAddress` or `InvalidTemporal`."""
        value = self.text("address")
        if value is None:
            raise InvalidAddress(
                "the query has no address; add ?address=ucxl://agent:role@project:task/*^/path",
                field="address", provided=None, expected="ucxl://agent:role@project:task/*^/path",
            )  # fmt: skip
        return ucxl.require_one(ucxl.parse(value))

    def address_to_write(self) -> Address:
        """The same, and it must name the head: a new version is always written on top of the head."""
        address = self.address()
        if not isinstance(address.temporal, Head):
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
                refuse(name, other, "true or false")

    def number(self, name: str, low: int, high: int) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 20 and low <= int(value) <= high):
            refuse(name, value, f"a whole number, {low} to {high}")
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
            refuse("consistency", value, "auto, local or swarm")

    def digest(self) -> bytes | None:
        value = self.text("digest")
        if value is None:
            return None
        if not _DIGEST.fullmatch(value):
            refuse("digest", value, "64 hex digits")
        return bytes.fromhex(value)


def _decoded(piece: bytes) -> str:
    try:
        return (unquote_to_bytes(piece) if b"%" in piece else piece).decode("utf-8")
    except UnicodeDecodeError as error:
        text = piece.decode("ascii", "replace")
        raise InvalidPayload(
            f"the query is not UTF-8: {text}", field="query", provided=text, expected="percent-encoded UTF-8"
        ) from error


def _refuse_unknown(name: str, known: Iterable[str]) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    allowed = ", ".join(known) or "no parameters"
    hint = f"; did you mean {near[0]}?" if near else ""
    refuse(name, name, allowed, f"this call has no parameter {name!r}{hint}")


def refuse(field: str, provided: str | None, expected: str, message: str = "") -> NoReturn:
    """Refuse a value that a client sent, with the name of its field."""
    raise InvalidPayload(
        message or f"{field} is {provided!r}; it must be {expected}", field=field, provided=provided, expected=expected
    )
