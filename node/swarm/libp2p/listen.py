"""Listening: sockets that no other process shares. Without libp2p.

libp2p sets SO_REUSEPORT, so that a second process on the same port starts without an error and the kernel distributes
the connections between the two. These sockets do not set it: a port on which any other process listens is an error,
and no process can share the port later.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Sequence

import trio

from node.swarm.base import ListenFailed
from node.swarm.libp2p.address import IP, parse

BACKLOG = 1024
_HINTS = {
    errno.EADDRINUSE: "another program or node listens there: stop it, or choose another port (0 is any free one)",
    errno.EADDRNOTAVAIL: "this machine does not have that address: name one of its own, or /ip4/0.0.0.0 for all",
    errno.EACCES: "this user may not listen there: choose a port from 1024 on",
}


def bind(listen: Sequence[str]) -> list[socket.socket]:
    """Sockets that listen at these multiaddrs, in their order, or none of them. Raises `ListenFailed`."""
    sockets: list[socket.socket] = []
    try:
        for text in listen:
            sockets.append(_bind(text))
    except BaseException:
        close(sockets)
        raise
    return sockets


def require_free(listen: Sequence[str]) -> None:
    """Raise `ListenFailed` when this process cannot listen at all of these multiaddrs now."""
    close(bind(listen))


def close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        with contextlib.suppress(RuntimeError):  # outside trio no task waits on it either
            trio.lowlevel.notify_closing(sock)
        sock.close()


def _bind(text: str) -> socket.socket:
    try:
        endpoint = parse(text)
    except ValueError as error:
        raise ListenFailed(f"cannot listen on {text}: {error}") from error
    if endpoint.kind not in IP:
        raise ListenFailed(f"cannot listen on {text}: a name is for dialling; write /ip4/<address>/tcp/<port>, or ip6")
    sock = socket.socket(socket.AF_INET6 if endpoint.kind == "ip6" else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.kind == "ip6":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((endpoint.host, endpoint.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        why = os.strerror(error.errno) if error.errno else str(error)
        hint = _HINTS.get(error.errno or 0, "choose another address")
        raise ListenFailed(f"cannot listen on {text}: {why}; {hint}") from error
    return sock
