"""Dialling: all addresses of a peer side by side, and the first that proves to be the peer wins.

libp2p tries one TCP address a peer, blocks the peer for a minute if that one is dead, and waits a quarter of a second
on every success. Here a dead address costs nothing but itself.
"""

import os
import socket
from collections.abc import Callable, Sequence

import trio

from node.swarm.address import DNS, Endpoint
from node.swarm.upgrade import Upgrader
from node.swarm.wire import Wire, connect
from node.swarm.yamux import Mux

ADDRESSES_MAX = 32
"""Of one peer, tried at once; further ones are not tried."""

_FAMILY = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}


class Refused(Exception):
    """An address led to somebody, and we do not want that one; the message says why."""


async def race(
    endpoints: Sequence[Endpoint], upgrader: Upgrader, is_welcome: Callable[[str], str]
) -> tuple[Endpoint, Mux] | dict[Endpoint, str]:
    """The first connection that is up, or why each address failed. Its caller bounds the time.

    `is_welcome` says of a peer id what stands against it, or ''.
    """
    won: list[tuple[Endpoint, Mux]] = []
    failed: dict[Endpoint, str] = {}

    async def attempt(endpoint: Endpoint, scope: trio.CancelScope) -> None:
        try:
            won.append((endpoint, await _attempt(endpoint, upgrader, is_welcome)))
            scope.cancel()
        except Exception as error:
            failed[endpoint] = _why(error)

    try:
        async with trio.open_nursery() as nursery:
            for endpoint in endpoints[:ADDRESSES_MAX]:
                nursery.start_soon(attempt, endpoint, nursery.cancel_scope)
    except BaseException:
        _drop(won)
        raise
    _drop(won[1:])
    return won[0] if won else failed


def _drop(connections: Sequence[tuple[Endpoint, Mux]]) -> None:
    for _, mux in connections:
        mux.abort("it is not needed")


async def _attempt(endpoint: Endpoint, upgrader: Upgrader, is_welcome: Callable[[str], str]) -> Mux:
    wire = await _connect(endpoint)
    try:
        mux = await upgrader.outbound(wire)
        peer = str(mux.peer_id)
        if endpoint.peer is not None and peer != endpoint.peer:
            raise Refused(f"another peer answers there, {peer}")
        if complaint := is_welcome(peer):
            raise Refused(complaint)
        return mux
    except BaseException:
        wire.abort()
        raise


async def _connect(endpoint: Endpoint) -> Wire:
    if endpoint.kind not in DNS:
        return await connect(_FAMILY[endpoint.kind], endpoint.host, endpoint.port)
    error: OSError = OSError(f"{endpoint.host} has no address")
    family = _FAMILY.get(endpoint.kind, socket.AF_UNSPEC)
    for kind, _, _, _, place in await trio.socket.getaddrinfo(endpoint.host, endpoint.port, family, socket.SOCK_STREAM):
        try:
            return await connect(kind, str(place[0]), endpoint.port)
        except OSError as failure:
            error = failure
    raise error


def _why(error: Exception) -> str:
    """In words, without libp2p's wrappings."""
    if isinstance(error, Refused):
        return str(error)
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else str(error)
    return str(error) or type(error).__name__
