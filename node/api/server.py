"""The HTTP server: accepts connections and serves each in a task of its own, in the node's own process and nursery.

- An error in one connection ends that connection only, and no client can keep a node from stopping.
- Idle connections do not keep new clients out: at the limit, the connection that has waited longest is closed.
- Sockets have a hard limit, those that close included: beyond it new connections wait to be accepted.
- The socket is bound earlier (`listen.py`), so that a port in use is an error before the rest of the node starts.
"""

import socket
from collections.abc import Callable
from contextlib import closing

import trio

from node.api.connection import App, Connection, Connections
from node.api.limits import ServerLimits
from node.api.listen import Acceptor, url_of
from protocols.errors import Unavailable


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

        async def serve_connection(client: socket.socket, address: str) -> None:
            try:
                refused = None
                if len(connections) >= limits.connections_max and not _make_room(connections):
                    refused = Unavailable("this node has too many connections; try again later")
                connection = Connection(app, client, limits, now_ms, connections, address=address)
                await connection.run(refused=refused)
            finally:
                sockets.closed()

        async def accept_forever() -> None:
            acceptor = Acceptor(listening)
            while True:
                for client, address in await acceptor.accept(await sockets.room()):
                    sockets.opened()
                    nursery.start_soon(serve_connection, client, address)

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
        if connection.is_waiting or connection.is_left:
            connection.give_way()
            return True
    return False
