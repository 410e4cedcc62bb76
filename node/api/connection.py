"""One TCP connection of the HTTP server, with a limit on every wait; an error in it ends this connection only."""

import math
import socket
from collections.abc import Callable
from typing import Any, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from node.api.http1 import Http1
from node.api.limits import ServerLimits
from node.api.middleware import TooSlow
from protocols.errors import Unavailable

_log = structlog.get_logger("bzzz.api")

Connections = dict["Connection", None]
"""All connections, in the order in which they began to wait."""


class Connection(TCPServer):
    """One TCP connection: hypercorn's, but with a limit on every wait, and no error leaves it."""

    def __init__(
        self,
        app: ASGIWrapper,
        config: Config,
        context: WorkerContext,
        stream: trio.SocketStream,
        limits: ServerLimits,
        now_ms: Callable[[], int],
        connections: Connections,
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
        self._idle_timer = IdleTimer(self._idle_seconds)
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
                self._http = Http1(
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


class IdleTimer:
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
