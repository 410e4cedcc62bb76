"""The middleware of the API: access control, limits on requests, request ids, traces, metrics, and errors as answers.

It stands between the connections and the router. Every request gets an id and a trace (that of its `traceparent`
header, or a new one), is counted, and is a line in the log (`access_log.py`). Every error leaves as JSON in the UCXL
shape. A request reaches the router only after it was allowed and its whole body was read.

On loopback a browser could send requests for a page of another site, so a `Host` that is not this machine is refused,
and so is an `Origin` that is not this API. With a token, every path needs it except `OPEN_PATHS`.
"""

import hmac
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import structlog
import trio

from node import trace
from node.api.access_log import AccessLog, printable_path
from node.api.connection import App
from node.api.http_metrics import HttpMetrics
from node.api.limits import RequestLimits
from node.api.refusal import TooSlow, refusal
from node.api.request import Request, Response
from node.config import values
from protocols.errors import BzzzError, Forbidden, Internal, TooLarge, TooManyRequests, Unauthenticated
from protocols.traceparent import Traceparent, parse

OPEN_PATHS = frozenset({"/health", "/ready", "/v1/bootstrap"})
READING_METHODS = frozenset({"GET", "HEAD"})
LOCAL_HOSTS_MAX = 64
"""Spellings of this machine's name that are remembered; each of a client's may be another one."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = structlog.get_logger("bzzz.api")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAccess:
    """Who may use the API. `is_loopback`: it listens on loopback only. `token`: the bearer token, or None."""

    is_loopback: bool
    token: str | None = field(repr=False)


class Middleware:
    """`now_ms` is the wall clock in Unix milliseconds."""

    def __init__(
        self,
        app: App,
        access: ApiAccess,
        *,
        now_ms: Callable[[], int],
        limits: RequestLimits | None = None,
        metrics: HttpMetrics | None = None,
    ) -> None:
        self._app = app
        self._access = access
        self._now_ms = now_ms
        self._limits = limits or RequestLimits()
        self._metrics = metrics or HttpMetrics(())
        self._in_progress = {True: 0, False: 0}
        """Requests that read, and that write."""
        self._log = AccessLog()
        self._local_hosts: set[str] = set()
        """Values of `Host` that were found to name this machine."""

    async def __call__(self, request: Request) -> Response:
        """The answer to a request. An error becomes an answer."""
        began = trio.current_time()
        headers = request.headers
        sent_id = headers.get(b"x-request-id", b"").decode("latin-1")
        random = os.urandom(32).hex()
        request.id = sent_id if _REQUEST_ID.fullmatch(sent_id) else random[:16]
        parent = parse(headers.get(b"traceparent", b"").decode("latin-1"))
        own = parent._replace(span=random[16:32]) if parent else Traceparent(random[32:], random[16:32])
        # The task of a connection has a context of its own, and the next request replaces the id.
        structlog.contextvars.bind_contextvars(request_id=request.id)
        with trace.following(own.trace):
            response = await self._answer(request, began)
        response.headers += {
            "X-Request-Id": request.id,
            "Traceparent": str(own),
            "Server-Timing": f"node;dur={(trio.current_time() - began) * 1000:.3f}",
            "X-Content-Type-Options": "nosniff",
        }.items()
        return response

    async def _answer(self, request: Request, began: float) -> Response:
        is_read = request.method in READING_METHODS
        self._in_progress[is_read] += 1
        self._metrics.begun()
        status = 0  # the client left
        try:
            response = await self._serve(request, self._in_progress[is_read])
            status = response.status
        except Exception as problem:
            response = self._refuse(request, problem)
            status = response.status
        finally:
            self._in_progress[is_read] -= 1
            seconds = trio.current_time() - began
            self._metrics.ended(request.path, request.method, status, seconds)
            self._log.note(request.method, request.path, status, seconds * 1000.0)
        return response

    def _refuse(self, request: Request, problem: Exception) -> Response:
        error = _sole(problem)
        if not isinstance(error, BzzzError):
            _log.exception("a request failed", path=printable_path(request.path), method=request.method)
            error = Internal(f"this node failed to answer; its log has the reason under request id {request.id}")
        return refusal(error, path=request.path, request_id=request.id, now_ms=self._now_ms())

    async def _serve(self, request: Request, in_progress: int) -> Response:
        self._check_access(request.path, request.headers)
        if in_progress > self._limits.requests_max and request.path not in OPEN_PATHS:
            raise TooManyRequests(
                f"this node is busy with {self._limits.requests_max} such requests; try again in a second",
                retry_after_ms=1_000,
            )
        await self._read_body(request)
        return await self._app(request)

    def _check_access(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._access.is_loopback:
            self._refuse_foreign(*(headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin")))
        if self._access.token is None or path in OPEN_PATHS:
            return
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._access.token.encode("ascii")):
            raise Unauthenticated(
                "this node needs its token: send 'Authorization: Bearer ...' (bzzz: --api-token-file, BZZZ_API_TOKEN)"
            )

    def _refuse_foreign(self, host: str, origin: str) -> None:
        """Refuse a foreign `Host` (DNS rebinding) or `Origin` (a page of another site); local programs send neither."""
        if host and host not in self._local_hosts:
            if not values.is_loopback(_host_name(host)):
                raise Forbidden(
                    f"this API serves this machine only, and the request names {host}; use 127.0.0.1 or localhost",
                    field="Host", provided=host, expected="127.0.0.1, localhost or [::1]",
                )  # fmt: skip
            if len(self._local_hosts) < LOCAL_HOSTS_MAX:
                self._local_hosts.add(host)
        if origin and origin.lower() != f"http://{host.lower()}":
            raise Forbidden(
                f"a page from {origin} may not use this API", field="Origin", provided=origin, expected=f"http://{host}"
            )

    async def _read_body(self, request: Request) -> None:
        """Read the whole body. A body too long is refused by its `Content-Length` before it is read, or while it is."""
        size_max, headers = self._limits.body_bytes_max, request.headers
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > size_max:
            raise _too_large(size_max, int(announced))
        if not request.is_whole:
            await self._receive_body(request, size_max)
        if request.size_bytes > size_max:
            raise _too_large(size_max, request.size_bytes)

    async def _receive_body(self, request: Request, size_max: int) -> None:
        with trio.move_on_after(self._limits.body_seconds_max) as in_time:
            while not request.is_whole and request.size_bytes <= size_max:
                if not await request.receive():
                    raise TooSlow("the connection ended before the whole request arrived")
        if in_time.cancelled_caught:
            seconds = self._limits.body_seconds_max
            raise TooSlow(f"the body did not arrive within {seconds:g} seconds", received_bytes=request.size_bytes)


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets; '' when it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


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
