"""Dialling: all addresses of a peer side by side, and the first that proves to be the peer wins.

libp2p tries one TCP address a peer, blocks the peer for a minute if that one is dead, and waits a quarter of a second
on every success. Here a dead address costs nothing but itself.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace

import trio

from node.swarm.libp2p.address import DNS, TcpAddress
from node.swarm.libp2p.tcp import connect
from node.swarm.libp2p.upgrade import Upgrader, in_words
from node.swarm.libp2p.yamux import YamuxConnection

ADDRESSES_MAX = 32
"""Of one peer, tried at once; further ones follow as these fail."""
PLACES_MAX = 8
"""Addresses behind one name that are tried."""

_FAMILY = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}


class Refused(Exception):
    """An address led to somebody, and we do not want that one; the message says why."""


async def race(
    endpoints: Sequence[TcpAddress],
    upgrader: Upgrader,
    is_welcome: Callable[[str], str],
    failed: dict[str, str],
    *,
    silent: str,
) -> tuple[TcpAddress, YamuxConnection] | None:
    """The first connection that is up, or None when every address failed. Its caller bounds the time.

    `is_welcome` says of a peer id what stands against it, or ''. `failed` is told why each address leads nowhere, as
    soon as that is known, so that it holds when the time is over: `silent` is what is said of one that is still tried.
    """
    won: list[tuple[TcpAddress, YamuxConnection]] = []
    failed.update({str(endpoint): silent for endpoint in endpoints})
    slots = trio.CapacityLimiter(ADDRESSES_MAX)

    async def begin(endpoint: TcpAddress) -> None:
        if endpoint.kind not in DNS:
            await attempt(endpoint, endpoint, str(endpoint))
            return
        failed[str(endpoint)] = f"its name was not looked up: {silent}"
        try:
            places = await _look_up(endpoint)
        except OSError as error:
            failed[str(endpoint)] = in_words(error)
            return
        del failed[str(endpoint)]
        for place in places:
            nursery.start_soon(attempt, endpoint, place, f"{endpoint} ({place.host})")

    async def attempt(endpoint: TcpAddress, place: TcpAddress, name: str) -> None:
        failed[name] = f"not tried: {ADDRESSES_MAX} others were, and took all the time"
        async with slots:
            failed[name] = silent
            try:
                won.append((endpoint, await _attempt(place, upgrader, is_welcome)))
                del failed[name]
                nursery.cancel_scope.cancel()
            except Exception as error:
                failed[name] = str(error) if isinstance(error, Refused) else in_words(error)

    try:
        async with trio.open_nursery() as nursery:
            for endpoint in endpoints:
                nursery.start_soon(begin, endpoint)
    except BaseException:
        _drop(won)
        raise
    _drop(won[1:])
    return won[0] if won else None


def _drop(connections: Sequence[tuple[TcpAddress, YamuxConnection]]) -> None:
    for _, mux in connections:
        mux.abort("it is not needed")


async def _attempt(endpoint: TcpAddress, upgrader: Upgrader, is_welcome: Callable[[str], str]) -> YamuxConnection:
    wire = await connect(_FAMILY[endpoint.kind], endpoint.host, endpoint.port)
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


async def _look_up(endpoint: TcpAddress) -> list[TcpAddress]:
    """The addresses behind a name, each of which is tried. Raises OSError."""
    family = _FAMILY.get(endpoint.kind, socket.AF_UNSPEC)
    found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, family, socket.SOCK_STREAM)
    kinds = {socket.AF_INET: "ip4", socket.AF_INET6: "ip6"}
    places = {
        replace(endpoint, kind=kinds[kind], host=str(place[0])): None for kind, _, _, _, place in found if kind in kinds
    }
    if not places:
        raise OSError(f"{endpoint.host} has no address")
    return list(places)[:PLACES_MAX]
