"""One TCP connection of the HTTP server: reads requests and sends their answers, one after the other.

Every wait has a limit. One task serves the connection, and an error in it ends this connection only.
"""

import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from math import inf

import structlog
import trio

from node.api.http1 import Http1
from node.api.limits import ServerLimits
from node.api.refusal import TooSlow, refusal
from node.api.request import Request, Response
from protocols.errors import BzzzError

RECEIVE_BYTES = 65_536

_log = structlog.get_logger("bzzz.api")

App = Callable[[Request], Awaitable[Response]]
"""What answers requests. It turns its errors into answers by itself."""
Connections = dict["Connection", None]
"""All connections, in the order in which they began to wait."""


class Connection:
    """Made for a socket that was accepted; `run` serves and closes it."""

    def __init__(
        self,
        app: App,
        client: socket.socket,
        limits: ServerLimits,
        now_ms: Callable[[], int],
        connections: Connections,
        *,
        address: str,
    ) -> None:
        self._app = app
        self._socket = client
        self._limits = limits
        self._now_ms = now_ms
        self._connections = connections
        self._connections[self] = None
        self.waits_since = trio.current_time()
        """When it was accepted, or had sent its last answer."""
        self._http = Http1(self._receive_body, address)
        self._request: Request | None = None
        """The request that is answered."""
        self._scope = trio.CancelScope()
        """Cancelled when it waits for too long, or gives way. Its deadline is that of the wait for a request."""
        self._is_closing = False
        """No further request is answered."""
        self._expects_continue = False
        """The client sends the body only after an answer with status 100."""

    # -- what the server asks of it ---------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a request, or for the rest of one."""
        return not self._is_closing and (self._request is None or not self._request.is_whole)

    @property
    def has_begun(self) -> bool:
        """Whether a part of a request was read."""
        return self._request is not None or self._http.has_part

    def may_give_way(self) -> bool:
        """Whether it waits and nothing of its client has arrived, or its client has left. This asks the system."""
        try:
            arrived = self._peek()
        except OSError:
            return True
        return self.is_waiting if arrived is None else not arrived

    def _peek(self) -> bytes | None:
        """The next byte of the client; b'' when it sends no more, None when nothing has arrived yet.

        Raises `OSError` when the client has reset the connection, and reads no answer.
        """
        try:
            return self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return None

    def give_way(self) -> None:
        """Close it for a new connection. Its client loses nothing: it has no request in progress, or has left."""
        self._connections.pop(self, None)
        self._is_closing = True
        self._scope.cancel()

    def terminate(self) -> None:
        """The node stops: close the connection if it waits for a request, else once the request is answered."""
        if self._request is None and not self._is_closing:
            self._scope.cancel()
        self._is_closing = True

    # -- its task ---------------------------------------------------------------------------------------------

    async def run(self, *, refused: BzzzError | None = None) -> None:
        """Serve the connection until it ends; with `refused`, answer that and end it."""
        try:
            if refused is not None:
                await self._refuse(refused)
                return
            with self._scope:
                await self._serve()
            if self._scope.cancelled_caught and not self._is_closing and self._http.has_part:
                await self._refuse(TooSlow("the headers of the request did not arrive in time"))
        except OSError:
            pass  # the client left
        except Exception:
            _log.exception("a connection to the API failed")
        finally:
            self._connections.pop(self, None)
            self._socket.close()

    async def _serve(self) -> None:
        self._scope.deadline = trio.current_time() + self._limits.header_seconds_max
        while (request := await self._next_request()) is not None:
            self._scope.deadline, self._request = inf, request
            headers = request.headers
            self._expects_continue = headers.get(b"expect", b"").lower() == b"100-continue"
            self._peek()  # the connection ends here when the client has reset it
            response = await self._app(request)
            if not (request.is_whole and request.is_kept_alive):
                self._is_closing = True
            await self._send(request.method, response)
            if self._is_closing:
                await self._close(lingers=not request.is_whole or self._http.has_more)
                return
            self._request = None
            self.waits_since = trio.current_time()
            self._scope.deadline = self.waits_since + self._limits.idle_seconds_max
            self._connections[self] = self._connections.pop(self, None)  # all others have waited longer now

    async def _next_request(self) -> Request | None:
        """The next request, once its head has arrived; None when there will be none."""
        requests = self._http.requests
        if requests:
            await trio.lowlevel.checkpoint()  # a client that sends many at once does not keep others waiting
        while not requests:
            if self._http.refusal is not None:
                await self._refuse(self._http.refusal)
                return None
            if not await self._receive():
                return None
        return requests.popleft()

    async def _receive(self) -> bool:
        """Wait for more from the client, and parse it. False: the client sends no more."""
        try:
            if self._expects_continue:
                self._expects_continue = False
                await self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await trio.lowlevel.wait_readable(self._socket)
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._http.feed(data)
        return bool(data)

    async def _receive_body(self) -> bool:
        """The same for a request whose body arrives. Raises `InvalidPayload` for a body that cannot be read."""
        if self._http.refusal is not None:
            raise self._http.refusal
        return await self._receive()

    async def _refuse(self, error: BzzzError) -> None:
        """Answer a client whose bytes never became a request, and close the connection."""
        self._is_closing = True
        request_id = os.urandom(8).hex()
        response = refusal(error, path="", request_id=request_id, now_ms=self._now_ms())
        response.headers += {"X-Request-Id": request_id, "X-Content-Type-Options": "nosniff"}.items()
        await self._send("", response)
        await self._close(lingers=True)

    async def _send(self, method: str, response: Response) -> None:
        await self._write(response.encoded(is_head=method == "HEAD", closes=self._is_closing, date=_date()))

    async def _write(self, data: bytes) -> None:
        """Send it all. Raises `OSError` when the client left, or does not read in time."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        with trio.move_on_after(self._limits.write_seconds_max):
            while rest:
                await trio.lowlevel.wait_writable(self._socket)
                with suppress(BlockingIOError):
                    rest = rest[self._socket.send(rest) :]
            return
        _log.info("a client did not read its answer in time and was disconnected")
        raise TimeoutError("the client does not read")

    async def _close(self, *, lingers: bool) -> None:
        """Close our side. A client that still sends gets a moment to read the answer before the socket is closed:
        closing it earlier would cause a reset, and the client would lose the answer."""
        self._socket.shutdown(socket.SHUT_WR)
        if not lingers:
            return
        with trio.move_on_after(self._limits.linger_seconds_max):
            await trio.lowlevel.wait_readable(self._socket)
            while self._socket.recv(RECEIVE_BYTES):
                await trio.lowlevel.wait_readable(self._socket)


_dated: tuple[int, str] = (0, "")


def _date() -> str:
    """The time for the header `Date`, made once a second."""
    global _dated
    second = int(time.time())
    if _dated[0] != second:
        _dated = second, formatdate(second, usegmt=True)
    return _dated[1]
