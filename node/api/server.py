"""The HTTP server: accepts connections and serves each in a task of its own, in the node's own process and nursery.

- An error in one connection ends that connection only, and no client can keep a node from stopping.
- Idle connections do not keep new clients out: at the limit, the connection that has waited longest is closed.
- Sockets have a hard limit, those that close included: beyond it new connections wait to be accepted.
- The socket is bound earlier (`listen.py`), so that a port in use is an error before the rest of the node starts.
"""

import socket
from collections import deque
from collections.abc import Callable
from contextlib import closing
from math import inf

import trio

from node.api.connection import App, Connection, Connections
from node.api.limits import ServerLimits
from node.api.listen import Acceptor, url_of
from protocols.errors import BzzzError, Unavailable

YOUNG_SECONDS = 0.05
"""How long a connection may wait for the first bytes of its first or next request, whatever comes."""


async def serve(
    app: App,
    listening: socket.socket,
    *,
    now_ms: Callable[[], int],
    stopping: trio.Event,
    limits: ServerLimits | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stopping`, then give the requests in progress the grace to end. Reports its URL once it serves."""
    limits = limits or ServerLimits()
    url = url_of(listening)
    connections: Connections = {}
    sockets = _OpenSockets(limits.connections_max + limits.surplus_max)
    async with trio.open_nursery() as nursery:

        async def serve_connection(connection: Connection, refused: BzzzError | None) -> None:
            try:
                await connection.run(refused=refused)
            finally:
                sockets.closed()

        async def accept_forever() -> None:
            acceptor = Acceptor(listening)
            while True:
                accepted = deque(await acceptor.accept(await sockets.room()))
                sockets.opened(len(accepted))
                try:
                    while accepted:
                        refused = None
                        if not await _make_room(connections, limits.connections_max):
                            refused = Unavailable("this node has too many connections; try again later")
                        client, address = accepted.popleft()
                        connection = Connection(app, client, limits, now_ms, connections, address=address)
                        nursery.start_soon(serve_connection, connection, refused)
                finally:
                    for client, _ in accepted:
                        client.close()

        with closing(listening):
            async with trio.open_nursery() as accepting:
                accepting.start_soon(accept_forever)
                task_status.started(url)
                await stopping.wait()
                accepting.cancel_scope.cancel()
        for connection in connections:
            connection.terminate()
        nursery.cancel_scope.deadline = trio.current_time() + limits.grace_seconds


class _OpenSockets:
    """Counts the open sockets of all connections, those that close included, so that they stay below a limit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._closed = trio.Event()

    def opened(self, count: int) -> None:
        self._count += count

    def closed(self) -> None:
        self._count -= 1
        self._closed.set()

    async def room(self) -> int:
        """How many more there may be; waits until there may be one."""
        while self._count >= self._most:
            self._closed = trio.Event()
            await self._closed.wait()
        return self._most - self._count


async def _make_room(connections: Connections, most: int) -> bool:
    """Close the connection that has waited longest if there are so many. False when none waits: all have requests in
    progress.

    One that waits for less than `YOUNG_SECONDS` is given that time to begin its request: otherwise a crowd of new
    connections would close each one before it is used. One that stops in the middle of a request is not.
    """
    while len(connections) >= most:
        now, young = trio.current_time(), inf
        for connection in connections:
            until = now if connection.has_begun else connection.waits_since + YOUNG_SECONDS
            if until > now:
                young = min(young, until)
            elif connection.may_give_way():
                connection.give_way()
                break
        else:
            if young < inf:
                await trio.sleep_until(young)
            elif any(connection.is_waiting for connection in connections):
                await trio.lowlevel.checkpoint()  # for each that waits something has arrived, and is read now
            else:
                return False
    return True
