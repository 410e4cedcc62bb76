"""Errors as answers: JSON in the UCXL shape, with the headers that belong to each kind of error."""

import math

from node.api import serialize
from node.api.headers import head_tag
from node.api.media import JSON_TYPE
from node.api.request import Response
from protocols.clock import AHEAD_MS_MAX
from protocols.errors import BzzzError, ClockAhead, Deleted, Malformed, Unauthenticated


class TooSlow(Malformed):
    """The request did not arrive in time."""

    code = "UCXL-408-REQUEST_TIMEOUT"
    retryable = True


def refusal(error: BzzzError, *, path: str, request_id: str, now_ms: int) -> Response:
    """The answer to a request that ended with an error."""
    body = serialize.error(error, path=path, request_id=request_id, now_ms=now_ms)
    headers = {"Content-Type": JSON_TYPE}
    if (seconds := retry_after(error)) is not None:
        headers["Retry-After"] = str(seconds)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="bzzz"'
    if isinstance(error, Deleted) and (heads := error.details.get("heads")):
        headers["ETag"] = f'"{head_tag([bytes.fromhex(head) for head in heads])}"'
    if allow := error.details.get("allow"):
        headers["Allow"] = ", ".join(allow)
    return Response(body, error.status, list(headers.items()))


def retry_after(error: BzzzError) -> int | None:
    """The whole seconds after which the same call may succeed, or None where that is unknown."""
    wait_ms = error.details.get("retry_after_ms")
    if isinstance(error, ClockAhead) and isinstance(ahead := error.details.get("ahead_ms"), int):
        wait_ms = ahead - AHEAD_MS_MAX
    return max(1, math.ceil(wait_ms / 1000)) if isinstance(wait_ms, int | float) else None
