"""Route reply: the successful answer of a route, before it is JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protocols import errors


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteReply:
    """A successful answer: its UCXL code, a message for people and the data for programs."""

    data: Mapping[str, Any]
    message: str = "ok"
    code: str = errors.OK
    headers: Mapping[str, str] = field(default_factory=dict)
