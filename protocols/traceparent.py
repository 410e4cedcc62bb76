"""The `traceparent` header: the trace that a call belongs to, as the caller names it.

Source: W3C Trace Context, level 1 (2021), sections 3.2 and 4.3: `version-traceid-parentid-flags`, all lower-case hex.
A malformed header counts as none: the call gets a trace of its own, and is not refused.
"""

import re
from typing import NamedTuple

_SHAPE = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_TRACE = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Traceparent(NamedTuple):
    """`trace` is 32 hex digits, the same for everything that one call causes; `span` is 16, of the caller alone."""

    trace: str
    span: str
    flags: str = "00"

    def __str__(self) -> str:
        return f"00-{self.trace}-{self.span}-{self.flags}"


def parse(header: str) -> Traceparent | None:
    """The content of a header; None for a malformed one. A later version may have more at its end."""
    match = _SHAPE.fullmatch(header.strip())
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not trace.strip("0") or not span.strip("0"):
        return None
    # In a later version only the lowest bit of the flags has the same meaning.
    return Traceparent(trace, span, flags if version == "00" else f"{int(flags, 16) & 1:02x}")


def is_trace(text: str) -> bool:
    """Whether a trace that came in a frame is safe to write into a log."""
    return _TRACE.fullmatch(text) is not None
