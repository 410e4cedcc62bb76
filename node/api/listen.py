"""The API's listening socket. It is bound before the rest of a node starts, so that a port in use is an early error."""

import errno
import math
import socket
from typing import Any

import structlog
import trio

from node.accept_errors import NO_ROOM
from node.config import values

BACKLOG = 1024
"""Connections that may wait to be accepted. The system drops further ones, and a dropped client tries again only after
a second, which is longer than a probe waits."""
AT_ONCE = 64
"""Connections accepted in one turn of the loop; one a turn would make them wait for hundreds of turns."""
_WARN_EVERY_SECONDS = 60.0

_log = structlog.get_logger("bzzz.api")


class BindFailed(Exception):
    """The API cannot listen there; the message says why and what to do."""


def bind(address: str) -> socket.socket:
    """Listen on `host:port` (port 0: any free one). Raises `BindFailed`."""
    host, port = values.split_host_port(address)
    try:
        family, kind, protocol, _, where = _resolved(host, port)
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BindFailed(f"the API cannot listen on {address}: {error.strerror or error}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise BindFailed(f"the API cannot listen on {address}: {_why(error)}") from error
    return listening


class Acceptor:
    """Accepts the connections that wait at a listening socket; the caller closes that socket."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._warned_at = -math.inf

    async def accept(self, most: int = AT_ONCE) -> list[tuple[socket.socket, str]]:
        """Accept the waiting connections, at most `most` and `AT_ONCE`; each with the address of its client.

        Waits for the first, and for room for it.
        """
        accepted: list[tuple[socket.socket, str]] = []
        while not accepted:
            await trio.lowlevel.wait_readable(self._listening)
            try:
                while len(accepted) < min(most, AT_ONCE):
                    connection, where = self._listening.accept()
                    connection.setblocking(False)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                    accepted.append((connection, where[0]))
            except OSError as error:  # none waits any more, or one left before it was accepted
                if not accepted and (why := NO_ROOM.get(error.errno or 0)):
                    self._warn(why)
                    await trio.sleep(0.1)
        return accepted

    def _warn(self, why: str) -> None:
        if trio.current_time() < self._warned_at + _WARN_EVERY_SECONDS:
            return
        self._warned_at = trio.current_time()
        _log.warning(f"the API cannot accept another connection now, and tries again: {why}")


def _resolved(host: str, port: int) -> tuple[Any, ...]:
    """The first address of a name, IPv4 before IPv6, so that localhost is 127.0.0.1 everywhere."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return min(found, key=lambda address: address[0] != socket.AF_INET)


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process uses that port; stop it, or choose another port with --api (port 0: any free one)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address; choose another with --api"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this user may not listen on that port; choose a port above 1023 with --api"
    return error.strerror or str(error)


def url_of(listening: socket.socket) -> str:
    """`http://host:port` of a bound socket, with its real port."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
