"""The door of the API: who may come in, how much they may bring and how long they may take, and what they hear.

An ASGI application round another one. Every request gets an id and a trace (that of its `traceparent`, or a new one),
is counted, and leaves a line in the log: at level debug, or as a warning when this node failed at it. Every refusal and
every error leaves in the UCXL shape, and nothing behind it is reached by a request that has not been let in and read
whole. On loopback, where a browser could be made to speak for a stranger's page, a `Host` that is not this machine or
an `Origin` that is not this API is refused; with a token set, all but the open paths need it.
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
from node.api.http_metrics import HttpMetrics
from node.config import values
from protocols.clock import AHEAD_MS_MAX
from protocols.envelope import ENCODED_BYTES_MAX
from protocols.errors import (
    BzzzError,
    ClockAhead,
    Forbidden,
    Internal,
    Malformed,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
)
from protocols.traceparent import Traceparent, parse

OPEN_PATHS = frozenset({"/health", "/ready", "/v1/bootstrap"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = structlog.get_logger("bzzz.api")
_access = logging.getLogger("bzzz.api.access")


class TooSlow(Malformed):
    """The request did not arrive in time."""

    code = "UCXL-408-REQUEST_TIMEOUT"
    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    body_bytes_max: int = ENCODED_BYTES_MAX
    body_seconds_max: float = 15.0
    """How long the whole body may take to arrive."""
    requests_max: int = 256
    """Requests that are being read or answered at one time; what comes beyond is asked to come back. A probe is not:
    that a node has much to do is no reason to take it for dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAccess:
    """Who is let in. `is_loopback`: the API listens on this machine alone."""

    is_loopback: bool
    token: str | None = field(repr=False)


class Middleware:
    """`now_ms` is the wall clock in Unix milliseconds; `new_id` makes request ids, `new_trace` 32 hex digits."""

    def __init__(
        self,
        app: ASGIApp,
        door: ApiAccess,
        *,
        now_ms: Callable[[], int],
        limits: RequestLimits | None = None,
        new_id: Callable[[], str] = lambda: os.urandom(8).hex(),
        new_trace: Callable[[], str] = lambda: os.urandom(16).hex(),
        traffic: HttpMetrics | None = None,
    ) -> None:
        self._app = app
        self._door = door
        self._now_ms = now_ms
        self._limits = limits or RequestLimits()
        self._new_id = new_id
        self._new_trace = new_trace
        self._traffic = traffic or HttpMetrics(())
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # the server brings nothing else
        headers = dict(scope["headers"])
        asked = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else self._new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        asked_for = parse(headers.get(b"traceparent", b"").decode("latin-1"))
        span = self._new_trace()[:16]
        own = asked_for._replace(span=span) if asked_for else Traceparent(self._new_trace(), span)
        began = trio.current_time()
        answer = _Answer(send, request_id, own, began=began, is_head=scope["method"] == "HEAD")
        with structlog.contextvars.bound_contextvars(request_id=request_id), trace.following(own.trace):
            await self._answer(scope, headers, receive, answer)

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, answer: "_Answer") -> None:
        self._under_way += 1
        self._traffic.begun()
        started = trio.current_time()
        try:
            await self._serve(scope, headers, receive, answer)
        except Exception as problem:
            error = _sole(problem)
            if not isinstance(error, BzzzError):
                _log.exception("a request failed", path=_printable(scope["path"]), method=scope["method"])
                error = Internal(
                    f"something failed inside this node; its log says what, under request id {answer.request_id}"
                )
            if answer.is_started:
                raise
            await self._refuse(scope, answer, error)
        finally:
            self._under_way -= 1
            seconds = trio.current_time() - started
            self._traffic.ended(scope["path"], scope["method"], answer.status, seconds)
            _say(scope["method"], scope["path"], answer.status, seconds * 1000.0)

    async def _serve(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, answer: "_Answer") -> None:
        self._admit(scope["path"], headers)
        if self._under_way > self._limits.requests_max and scope["path"] not in OPEN_PATHS:
            raise TooManyRequests(
                f"{self._limits.requests_max} requests are under way already; come back in a second",
                retry_after_ms=1_000,
            )
        await self._app(scope, _replay(await self._body(headers, receive), receive), answer.send)

    # -- who may come in ----------------------------------------------------------------------------------------------

    def _admit(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._door.is_loopback:
            host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
            _refuse_strangers(host, origin)
        if self._door.token is None or path in OPEN_PATHS:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._door.token.encode("ascii")):
            raise Unauthenticated(
                "this node wants its token: send 'Authorization: Bearer ...' (bzzz: --api-token-file, BZZZ_API_TOKEN)"
            )

    # -- what they bring ----------------------------------------------------------------------------------------------

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body. Refused by its announced length before a byte of it is read, or as soon as it is too long."""
        most = self._limits.body_bytes_max
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most:
            raise _too_large(most, int(announced))
        chunks, size = [], 0
        with trio.move_on_after(self._limits.body_seconds_max) as in_time:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise TooSlow("the connection ended before the whole request was there")
                if chunk := message.get("body", b""):
                    size += len(chunk)
                    if size > most:
                        raise _too_large(most, size)
                    chunks.append(chunk)
                if not message.get("more_body", False):
                    break
        if in_time.cancelled_caught:
            seconds = self._limits.body_seconds_max
            raise TooSlow(f"the body did not arrive within {seconds:g} seconds", received_bytes=size)
        return b"".join(chunks)

    # -- what they hear -----------------------------------------------------------------------------------------------

    async def _refuse(self, scope: Scope, answer: "_Answer", error: BzzzError) -> None:
        body = serialize.error(error, path=scope["path"], request_id=answer.request_id, now_ms=self._now_ms())
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode("ascii"))]
        if (seconds := retry_after(error)) is not None:
            headers.append((b"retry-after", str(seconds).encode("ascii")))
        if isinstance(error, Unauthenticated):
            headers.append((b"www-authenticate", b'Bearer realm="bzzz"'))
        if isinstance(error, TooSlow | TooLarge):
            headers.append((b"connection", b"close"))
        if allow := error.details.get("allow"):
            headers.append((b"allow", ", ".join(allow).encode("ascii")))
        await answer.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await answer.send({"type": "http.response.body", "body": body})


class _Answer:
    """The way out: every answer carries its request id, its trace and how many milliseconds this node took
    (`Server-Timing`, from the request's headers to the answer's), may not be sniffed, and has no body when HEAD asked.

    `status` is 0 until it has begun.
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
    """A `receive` that brings the body in one piece, and after it whatever comes next (that the caller is gone)."""
    brought = False

    async def bring() -> Message:
        nonlocal brought
        if brought:
            return await receive()
        brought = True
        return {"type": "http.request", "body": body, "more_body": False}

    return bring


def _say(method: str, path: str, status: int, ms: float) -> None:
    """One line a request. Neither the query nor a header is in it: there are the secrets."""
    level = logging.WARNING if status >= 500 else logging.DEBUG
    if _access.isEnabledFor(level):
        told = {"method": method, "path": _printable(path), "status": status, "ms": round(ms, 3)}
        _access.log(level, "%(method)s %(path)s: %(status)d", told, extra=told)


def _printable(path: str) -> str:
    """A path as it may stand in a log: one line, and not too long."""
    return ascii(path)[1:-1][:200]


def _refuse_strangers(host: str, origin: str) -> None:
    """DNS rebinding brings a foreign `Host`, a foreign page its own `Origin`; a program on this machine has neither."""
    if host and not values.is_loopback(_host_name(host)):
        raise Forbidden(
            f"this API serves this machine alone, and was asked for as {host}; use 127.0.0.1 or localhost",
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
    """After how many whole seconds the same call may succeed, where that is known."""
    wait_ms = error.details.get("retry_after_ms")
    if isinstance(error, ClockAhead) and isinstance(ahead := error.details.get("ahead_ms"), int):
        wait_ms = ahead - AHEAD_MS_MAX
    return max(1, math.ceil(wait_ms / 1000)) if isinstance(wait_ms, int | float) else None


def _too_large(most: int, size: int) -> TooLarge:
    return TooLarge(
        f"the body has {size} bytes or more; an envelope is at most {most} bytes, so split the content",
        size_bytes=size, size_bytes_max=most,
    )  # fmt: skip


def _sole(error: Exception) -> Exception:
    """The one error inside groups of one: a nursery on the way puts them round it."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
