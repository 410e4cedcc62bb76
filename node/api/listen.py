"""The API's listening socket: held before anything else of a node begins, so that a port in use is an early error."""

import errno
import socket
from typing import Any

from node.settings import values


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
        listening.listen(128)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise BindFailed(f"the API cannot listen on {address}: {_why(error)}") from error
    return listening


def _resolved(host: str, port: int) -> tuple[Any, ...]:
    """The first address a name has, IPv4 before IPv6, so that localhost is 127.0.0.1 everywhere."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return min(found, key=lambda one: one[0] != socket.AF_INET)


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process holds that port; stop it, or choose another with --api (port 0: any free one)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "that is no address of this machine; choose another with --api"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this user may not listen on that port; choose one above 1023 with --api"
    return error.strerror or str(error)


def url_of(listening: socket.socket) -> str:
    """`http://host:port` as it was bound, with the real port."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
