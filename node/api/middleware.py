"""The middleware of the API: access control, limits on requests, request ids, traces, metrics, and errors as answers.

An ASGI application around the router. Every request gets an id and a trace (that of its `traceparent` header, or a new
one), is counted, and is a line in the log: at level debug, or a warning when this node failed to answer it (for a path
that is polled: when its status is another than before). Every error leaves as JSON in the UCXL shape. A request reaches
the router only after it was allowed and its whole body was read.

On loopback a browser could send requests for a page of another site, so a `Host` that is not this machine is refused,
and so is an `Origin` that is not this API. With a token, every path needs it except `OPEN_PATHS`.
"""

import hmac
import logging
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import structlog
import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node import trace
from node.api import serialize
from node.api.headers import head_tag
from node.api.http_metrics import HttpMetrics
from node.api.limits import RequestLimits
from node.config import values
from protocols.clock import AHEAD_MS_MAX
from protocols.errors import (
    BzzzError,
    ClockAhead,
    Deleted,
    Forbidden,
    Internal,
    Malformed,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
)
from protocols.traceparent import Traceparent, parse

OPEN_PATHS = frozenset({"/health", "/ready", "/v1/bootstrap"})
_POLLED = ("/health", "/ready")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = structlog.get_logger("bzzz.api")
_access = logging.getLogger("bzzz.api.access")


class TooSlow(Malformed):
    """The request did not arrive in time."""

    code = "UCXL-408-REQUEST_TIMEOUT"
    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAccess:
    """Who may use the API. `is_loopback`: it listens on loopback only. `token`: the bearer token, or None."""

    is_loopback: bool
    token: str | None = field(repr=False)


class Middleware:
    """`now_ms` is the wall clock in Unix milliseconds; `new_id` makes request ids, `new_trace` 32 hex digits."""

    def __init__(
        self,
        app: ASGIApp,
        access: ApiAccess,
        *,
        now_ms: Callable[[], int],
        limits: RequestLimits | None = None,
        new_id: Callable[[], str] = lambda: os.urandom(8).hex(),
        new_trace: Callable[[], str] = lambda: os.urandom(16).hex(),
        metrics: HttpMetrics | None = None,
    ) -> None:
        self._app = app
        self._access = access
        self._now_ms = now_ms
        self._limits = limits or RequestLimits()
        self._new_id = new_id
        self._new_trace = new_trace
        self._metrics = metrics or HttpMetrics(())
        self._in_progress = 0
        self._polled = dict.fromkeys(_POLLED, 0)
        """The last status of each path that is polled."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # the server passes on nothing else
        headers = dict(scope["headers"])
        sent_id = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = sent_id if _REQUEST_ID.fullmatch(sent_id) else self._new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        parent = parse(headers.get(b"traceparent", b"").decode("latin-1"))
        span = self._new_trace()[:16]
        own = parent._replace(span=span) if parent else Traceparent(self._new_trace(), span)
        began = trio.current_time()
        response = _Response(send, request_id, own, began=began, is_head=scope["method"] == "HEAD")
        with structlog.contextvars.bound_contextvars(request_id=request_id), trace.following(own.trace):
            await self._answer(scope, headers, receive, response)

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, response: "_Response") -> None:
        self._in_progress += 1
        self._metrics.begun()
        started = trio.current_time()
        try:
            await self._serve(scope, headers, receive, response)
        except Exception as problem:
            error = _sole(problem)
            if not isinstance(error, BzzzError):
                _log.exception("a request failed", path=_printable(scope["path"]), method=scope["method"])
                error = Internal(
                    f"this node failed to answer; its log has the reason under request id {response.request_id}"
                )
            if response.is_started:
                raise
            await self._refuse(scope, response, error)
        finally:
            self._in_progress -= 1
            seconds = trio.current_time() - started
            self._metrics.ended(scope["path"], scope["method"], response.status, seconds)
            is_warned = self._is_news(scope["path"], response.status)
            _log_access(scope["method"], scope["path"], response.status, seconds * 1000.0, is_warned=is_warned)

    def _is_news(self, path: str, status: int) -> bool:
        """Whether the log is to have a warning: this node failed to answer, and not as in the poll before."""
        if path not in self._polled:
            return status >= 500
        before = self._polled[path]
        if status == 200 or status >= 500:
            self._polled[path] = status
        return status >= 500 and status != before

    async def _serve(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, response: "_Response") -> None:
        self._check_access(scope["path"], headers)
        if self._in_progress > self._limits.requests_max and scope["path"] not in OPEN_PATHS:
            raise TooManyRequests(
                f"this node is busy with {self._limits.requests_max} requests; try again in a second",
                retry_after_ms=1_000,
            )
        await self._app(scope, _replay(await self._body(headers, receive), receive), response.send)

    def _check_access(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._access.is_loopback:
            host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
            _refuse_foreign(host, origin)
        if self._access.token is None or path in OPEN_PATHS:
            return
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._access.token.encode("ascii")):
            raise Unauthenticated(
                "this node needs its token: send 'Authorization: Bearer ...' (bzzz: --api-token-file, BZZZ_API_TOKEN)"
            )

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Read the whole body. A body too long is refused by its `Content-Length` before it is read, or while it is."""
        size_max = self._limits.body_bytes_max
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > size_max:
            raise _too_large(size_max, int(announced))
        chunks, size = [], 0
        with trio.move_on_after(self._limits.body_seconds_max) as in_time:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise TooSlow("the connection ended before the whole request arrived")
                if chunk := message.get("body", b""):
                    size += len(chunk)
                    if size > size_max:
                        raise _too_large(size_max, size)
                    chunks.append(chunk)
                if not message.get("more_body", False):
                    break
        if in_time.cancelled_caught:
            seconds = self._limits.body_seconds_max
            raise TooSlow(f"the body did not arrive within {seconds:g} seconds", received_bytes=size)
        return b"".join(chunks)

    async def _refuse(self, scope: Scope, response: "_Response", error: BzzzError) -> None:
        """Answer with an error, and with the headers that belong to its kind."""
        body = serialize.error(error, path=scope["path"], request_id=response.request_id, now_ms=self._now_ms())
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode("ascii"))]
        if (seconds := retry_after(error)) is not None:
            headers.append((b"retry-after", str(seconds).encode("ascii")))
        if isinstance(error, Unauthenticated):
            headers.append((b"www-authenticate", b'Bearer realm="bzzz"'))
        if isinstance(error, TooSlow | TooLarge):
            headers.append((b"connection", b"close"))
        if isinstance(error, Deleted) and (heads := error.details.get("heads")):
            headers.append((b"etag", f'"{head_tag([bytes.fromhex(head) for head in heads])}"'.encode("ascii")))
        if allow := error.details.get("allow"):
            headers.append((b"allow", ", ".join(allow).encode("ascii")))
        await response.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await response.send({"type": "http.response.body", "body": body})


class _Response:
    """Sends one answer: adds the headers that every answer has, and drops the body when the method is HEAD.

    The headers are the request id, the trace, the milliseconds that this node took (`Server-Timing`, from the request's
    headers to the answer's) and the order not to guess the media type. `status` is 0 until the answer begins.
    """

    def __init__(self, send: Send, request_id: str, traceparent: Traceparent, *, began: float, is_head: bool) -> None:
        self._send = send
        self.request_id = request_id
        self._traceparent = str(traceparent)
        self._began = began
        self._is_head = is_head
        self.status = 0

    @property
    def is_started(self) -> bool:
        return self.status != 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode("ascii")),
                (b"traceparent", self._traceparent.encode("ascii")),
                (b"server-timing", b"node;dur=%.3f" % ((trio.current_time() - self._began) * 1000)),
                (b"x-content-type-options", b"nosniff"),
            ]
        elif self._is_head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body in one piece, and then the next messages (that the client disconnected)."""
    is_replayed = False

    async def replay() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _log_access(method: str, path: str, status: int, ms: float, *, is_warned: bool) -> None:
    """Log one line for a request, without its query and headers, which may hold secrets."""
    level = logging.WARNING if is_warned else logging.DEBUG
    if _access.isEnabledFor(level):
        fields = {"method": method, "path": _printable(path), "status": status, "ms": round(ms, 3)}
        _access.log(level, "%(method)s %(path)s: %(status)d", fields, extra=fields)


def _printable(path: str) -> str:
    """A path for the log: one line of ASCII, at most 200 characters."""
    return ascii(path)[1:-1][:200]


def _refuse_foreign(host: str, origin: str) -> None:
    """Refuse a foreign `Host` (DNS rebinding) or `Origin` (a page of another site); local programs send neither."""
    if host and not values.is_loopback(_host_name(host)):
        raise Forbidden(
            f"this API serves this machine only, and the request names {host}; use 127.0.0.1 or localhost",
            field="Host", provided=host, expected="127.0.0.1, localhost or [::1]",
        )  # fmt: skip
    if origin and origin.lower() != f"http://{host.lower()}":
        raise Forbidden(
            f"a page from {origin} may not use this API", field="Origin", provided=origin, expected=f"http://{host}"
        )


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets; '' when it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def retry_after(error: BzzzError) -> int | None:
    """The whole seconds after which the same call may succeed, or None where that is unknown."""
    wait_ms = error.details.get("retry_after_ms")
    if isinstance(error, ClockAhead) and isinstance(ahead := error.details.get("ahead_ms"), int):
        wait_ms = ahead - AHEAD_MS_MAX
    return max(1, math.ceil(wait_ms / 1000)) if isinstance(wait_ms, int | float) else None


def _too_large(size_max: int, size: int) -> TooLarge:
    return TooLarge(
        f"the body has {size} bytes or more; an envelope has at most {size_max} bytes, so split the content",
        size_bytes=size, size_bytes_max=size_max,
    )  # fmt: skip


def _sole(error: Exception) -> Exception:
    """The single error inside exception groups of one, which nurseries make around it."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
