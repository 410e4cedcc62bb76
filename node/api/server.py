"""The HTTP server: hypercorn's trio worker, in the node's own process and nursery. Only this file imports hypercorn.

It is built from hypercorn's parts instead of `hypercorn.trio.serve`, because a node needs more than that function:

- an error in one connection ends that connection only; in hypercorn it would end the nursery, and with it the node;
- a client that never sends its headers, or never reads its answer, is disconnected. hypercorn shields the writing of an
  answer from cancellation, so one client that does not read would keep a node from stopping;
- idle connections do not keep new clients out: at the limit, the connection that has waited longest is closed;
- after an early answer, such as 413, the socket lingers until the client has read it. Closing the socket while the
  client still sends would cause a reset, and the client would lose the answer;
- the socket is bound earlier (`listen.py`), so that a port in use is an error before the rest of the node starts;
- HTTP/1.1 only: the other protocols of hypercorn are not needed here.
"""

import logging
import math
import os
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import h11
import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState, H11SendableEvent
from starlette.types import ASGIApp

from node.api import serialize
from node.api.listen import Acceptor, url_of
from node.api.middleware import TooSlow
from protocols.errors import BzzzError, InvalidPayload, Unavailable

HEADERS_BYTES_MAX = 64 * 1024
"""The request line and the headers of a request, together."""

_log = structlog.get_logger("bzzz.api")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    connections_max: int = 512
    """At this limit a new connection closes the one that has waited longest for a request, or for the rest of one."""
    header_seconds_max: float = 10.0
    """How long a new connection may take to send the headers of its first request."""
    idle_seconds_max: float = 60.0
    """How long a connection may wait for its next request."""
    write_seconds_max: float = 20.0
    """How long a client may take to read one piece of an answer."""
    linger_seconds_max: float = 1.0
    """How long the server reads and drops what a client still sends after its answer."""
    grace_seconds: float = 0.5
    """How long requests in progress may take to end when the node stops."""


async def serve(
    app: ASGIApp,
    listening: socket.socket,
    *,
    now_ms: Callable[[], int],
    stopping: trio.Event,
    limits: ServerLimits | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stopping`, then give the requests in progress the grace to end. Reports its URL once it serves."""
    limits = limits or ServerLimits()
    config = _config(limits)
    context = WorkerContext(None)
    wrapped = ASGIWrapper(cast(ASGIFramework, app))
    url = url_of(listening)
    connections: _Connections = {}
    async with trio.open_nursery() as nursery:

        async def serve_connection(stream: trio.SocketStream) -> None:
            is_over_limit = len(connections) >= limits.connections_max and not _make_room(connections)
            connection = _Connection(
                wrapped, config, context, stream, limits, now_ms, connections, is_over_limit=is_over_limit
            )
            await connection.run()

        async def accept_forever() -> None:
            acceptor = Acceptor(listening)
            while True:
                for stream in await acceptor.accept():
                    nursery.start_soon(serve_connection, stream)

        with closing(listening):
            async with trio.open_nursery() as accepting:
                accepting.start_soon(accept_forever)
                task_status.started(url)
                await stopping.wait()
                accepting.cancel_scope.cancel()
        await context.terminated.set()
        for connection in connections:
            connection.terminate()
        nursery.cancel_scope.deadline = trio.current_time() + limits.grace_seconds


def _make_room(connections: "_Connections") -> bool:
    """Close the connection that has waited longest. False when none waits: all have requests in progress."""
    for connection in connections:
        if connection.is_waiting:
            connection.give_way()
            return True
    return False


def _config(limits: ServerLimits) -> Config:
    config = Config()
    config.errorlog = logging.getLogger("bzzz.api.server")
    config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = HEADERS_BYTES_MAX
    config.keep_alive_max_requests = 1_000_000
    config.keep_alive_timeout = limits.idle_seconds_max
    # The middleware reads each body at once and refuses one that grows too long, so this queue stays short. With a
    # bound, an answer before the end of the body would wait forever for room to report that the connection closes.
    config.max_app_queue_size = cast(int, math.inf)
    return config


_Connections = dict["_Connection", None]
"""All connections, in the order in which they began to wait."""


class _Connection(TCPServer):
    """One TCP connection: hypercorn's, but with a limit on every wait, and no error leaves it."""

    def __init__(
        self,
        app: ASGIWrapper,
        config: Config,
        context: WorkerContext,
        stream: trio.SocketStream,
        limits: ServerLimits,
        now_ms: Callable[[], int],
        connections: "_Connections",
        *,
        is_over_limit: bool,
    ) -> None:
        super().__init__(app, config, context, ConnectionState({}), cast(Any, stream))
        self._limits = limits
        self._now_ms = now_ms
        self._connections = connections
        self._is_over_limit = is_over_limit
        self._reading = trio.CancelScope()
        self._has_begun = False
        self._is_closing = False
        self._idle_timer = _IdleTimer(self._idle_seconds)
        self.idle_task = cast(Any, self._idle_timer)
        self._is_over = False
        """Nothing is read any more."""

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a request, or for the rest of one."""
        return self._has_begun and not self._is_closing and not self._http.has_unanswered_request()

    def give_way(self) -> None:
        """Close it for a new connection. It has no request in progress, so its client loses nothing."""
        self._connections.pop(self, None)
        self._reading.cancel()

    def _wait_anew(self) -> None:
        """Move to the end of the order: every other connection has waited longer now."""
        self._connections.pop(self, None)
        self._connections[self] = None

    async def run(self) -> None:
        self._connections[self] = None
        try:
            async with TaskGroup() as self._task_group:
                self._http = _Http1(
                    self.app, self.config, self.context, self._task_group, self.protocol_send, self._now_ms
                )
                self.protocol = cast(Any, self._http)
                self._has_begun = True
                if self._is_over_limit:
                    await self._http.refuse(Unavailable("this node has too many connections; try again later"))
                    await self.protocol_send(Closed())
                else:
                    self._task_group.spawn(self._end_when_idle)
                    await self._idle_timer.restart()
                await self._read_data()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client left
        except* Exception:
            _log.exception("a connection to the API failed")
        finally:
            self._connections.pop(self, None)
            self.stream.socket.close()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self._start_closing()
            with trio.CancelScope(shield=True):  # the reading task may call this, and its scope may be cancelled by now
                await self.protocol.handle(Closed())
        elif not self._is_over:  # otherwise the last answer would begin a wait for a request that cannot come
            self._wait_anew()
            await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        async with self.send_lock:
            with trio.move_on_after(self._limits.write_seconds_max) as in_time:
                try:
                    await self.stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._reading.cancel()
            if in_time.cancelled_caught:
                _log.info("a client did not read its answer in time and was disconnected")
                self.stream.socket.close()

    def _start_closing(self) -> None:
        """Close our side. A client that still sends gets a moment to read the answer before the socket is closed."""
        if self._is_closing:
            return
        self._is_closing = True
        self._reading.deadline = trio.current_time() + self._limits.linger_seconds_max
        try:
            self.stream.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._reading.cancel()
        if self._http.expects_nothing():
            self._reading.cancel()

    async def _read_data(self) -> None:
        with self._reading:
            while True:
                try:
                    data = await self.stream.receive_some(MAX_RECV)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    break
                if not self._is_closing:
                    await self.protocol.handle(RawData(bytes(data)))
                if not data:
                    break
        self._is_over = True
        await self.protocol.handle(Closed())
        self._idle_timer.end()

    def terminate(self) -> None:
        """The node stops: close the connection if it waits, or once its request is answered."""
        self._idle_timer.terminate()

    def _idle_seconds(self) -> float:
        return self._limits.idle_seconds_max if self._http.keep_alive_requests else self._limits.header_seconds_max

    async def _end_when_idle(self) -> None:
        if not await self._idle_timer.expired():
            return
        if not self.context.terminated.is_set() and self._http.has_part_of_a_request():
            await self._http.refuse(TooSlow("the headers of the request did not arrive in time"))
        with trio.CancelScope(shield=True):
            await self.protocol_send(Closed())


class _IdleTimer:
    """Finds out when a connection has waited too long, with one task for its whole life.

    hypercorn starts a task for each request instead. It calls `restart` and `stop`; `seconds` says how long to wait.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._deadline = math.inf
        self._has_terminated = False
        self._is_over = False
        self._scope = trio.CancelScope()

    async def restart(self, *_: object) -> None:
        self._set(-math.inf if self._has_terminated else trio.current_time() + self._seconds())

    async def stop(self) -> None:
        self._set(math.inf)

    def terminate(self) -> None:
        """Expire at once if the connection waits, and from now on whenever it would begin to wait."""
        self._has_terminated = True
        if self._deadline < math.inf:
            self._set(-math.inf)

    def end(self) -> None:
        """The connection is closed: `expired` returns False."""
        self._is_over = True
        self._scope.cancel()

    def _set(self, deadline: float) -> None:
        self._deadline = self._scope.deadline = deadline

    async def expired(self) -> bool:
        """Wait; True once the connection has waited too long, False after `end`."""
        while not self._is_over:
            with trio.CancelScope(deadline=self._deadline) as self._scope:
                await trio.sleep_forever()
            if trio.current_time() >= self._deadline and not self._is_over:
                return True
        return False


class _Http1(H11Protocol):
    """HTTP/1.1 only. It ignores an upgrade to HTTP/2 or WebSocket, as RFC 9110 (7.8) allows."""

    def __init__(
        self,
        app: Any,
        config: Config,
        context: WorkerContext,
        task_group: TaskGroup,
        send: Any,
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(app, config, context, task_group, ConnectionState({}), False, None, None, send)
        self._now_ms = now_ms
        self._head = b""

    def expects_nothing(self) -> bool:
        """Whether no more bytes are expected: the request arrived whole, or none has begun."""
        state = self.connection.their_state
        return state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED) or (
            state is h11.IDLE and not self.has_part_of_a_request()
        )

    def has_unanswered_request(self) -> bool:
        """Whether a whole request arrived and its answer is not complete."""
        return self.connection.their_state is h11.DONE

    def has_part_of_a_request(self) -> bool:
        return bool(self.connection.trailing_data[0])

    async def refuse(self, error: BzzzError) -> None:
        """Answer a client whose bytes never became a request."""
        body = serialize.error(error, path="", request_id=os.urandom(8).hex(), now_ms=self._now_ms())
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"connection", b"close"),
        ]
        await self._send_h11_event(h11.Response(status_code=error.status, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())

    async def _send_error_response(self, status_code: int) -> None:
        why = "its headers are too long" if status_code == 431 else "it is not HTTP/1.1"
        await self.refuse(InvalidPayload(f"the request cannot be read: {why}"))

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """As in hypercorn, but the headers of an answer wait for its body: one write instead of three."""
        try:
            data = self._head + (self.connection.send(event) or b"")
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        self._head = b""
        if isinstance(event, h11.Response):
            self._head = data
        elif data:
            await self.send(RawData(data=data))

    async def _check_protocol(self, event: h11.Request) -> None:
        pass

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = HTTPStream(
            self.app, self.config, self.context, self.task_group, False, None, None, self.stream_send, STREAM_ID
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode("ascii"),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
