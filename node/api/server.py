"""The HTTP server: hypercorn's trio worker, in the node's own process and nursery.

Only this file, `connection.py` and `http1.py` import hypercorn. The server is built from hypercorn's parts instead of
`hypercorn.trio.serve`, because a node needs more than that function:

- an error in one connection ends that connection only; in hypercorn it would end the nursery, and with it the node;
- a client that never sends its headers, or never reads its answer, is disconnected. hypercorn shields the writing of an
  answer from cancellation, so one client that does not read would keep a node from stopping;
- idle connections do not keep new clients out: at the limit, the connection that has waited longest is closed;
- sockets have a hard limit, those that close included: beyond it new connections wait to be accepted;
- after an early answer, such as 413, the socket lingers until the client has read it. Closing the socket while the
  client still sends would cause a reset, and the client would lose the answer;
- the socket is bound earlier (`listen.py`), so that a port in use is an error before the rest of the node starts;
- HTTP/1.1 only: the other protocols of hypercorn are not needed here.
"""

import logging
import math
import socket
from collections.abc import Callable
from contextlib import closing
from typing import cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework
from starlette.types import ASGIApp

from node.api.connection import Connection, Connections
from node.api.limits import HEADERS_BYTES_MAX, ServerLimits
from node.api.listen import Acceptor, url_of


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
    connections: Connections = {}
    sockets = _OpenSockets(limits.connections_max + limits.surplus_max)
    async with trio.open_nursery() as nursery:

        async def serve_connection(stream: trio.SocketStream) -> None:
            try:
                is_over_limit = len(connections) >= limits.connections_max and not _make_room(connections)
                connection = Connection(
                    wrapped, config, context, stream, limits, now_ms, connections, is_over_limit=is_over_limit
                )
                await connection.run()
            finally:
                sockets.closed()

        async def accept_forever() -> None:
            acceptor = Acceptor(listening)
            while True:
                for stream in await acceptor.accept(await sockets.room()):
                    sockets.opened()
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


class _OpenSockets:
    """Counts the open sockets of all connections, those that close included, so that they stay below a limit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._closed = trio.Event()

    def opened(self) -> None:
        self._count += 1

    def closed(self) -> None:
        self._count -= 1
        self._closed.set()

    async def room(self) -> int:
        """How many more there may be; waits until there may be one."""
        while self._count >= self._most:
            self._closed = trio.Event()
            await self._closed.wait()
        return self._most - self._count


def _make_room(connections: Connections) -> bool:
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
