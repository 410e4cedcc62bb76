"""Dialling: all addresses of a peer at the same time; the first that proves to be the peer wins.

libp2p tries one TCP address of a peer, blocks the peer for a minute when that one is dead, and waits a quarter of a
second on every success. Here a dead address delays no other one.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import trio

from node.swarm.libp2p.address import DNS, TcpAddress
from node.swarm.libp2p.tcp import connect
from node.swarm.libp2p.upgrade import Upgrader, describe
from node.swarm.libp2p.yamux import YamuxConnection
from protocols.policy.peer_events import ITSELF

ADDRESSES_MAX = 32
"""Addresses tried at the same time; further ones follow when these fail."""
RESOLVED_MAX = 8
"""Addresses of one DNS name that are tried."""

_FAMILY = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}


class Refused(Exception):
    """The peer that answered at an address is not accepted; the message says why."""

    def __init__(self, message: str, other: str = "") -> None:
        """`other` is the peer that proved to be there, when it is another one than was wanted."""
        super().__init__(message)
        self.other = other


@dataclass(slots=True)
class Failures:
    """What became of the addresses of a dial that did not win."""

    reasons: dict[str, str] = field(default_factory=dict)
    """By address, or by its name and what it was resolved to. An address that is still tried is here too."""
    others: dict[str, str] = field(default_factory=dict)
    """By address, who else proved to be there."""


async def race(
    endpoints: Sequence[TcpAddress],
    upgrader: Upgrader,
    complaint: Callable[[YamuxConnection], str],
    failures: Failures,
    *,
    silent: str,
    sockets: trio.CapacityLimiter,
    no_room: Callable[[], str] = lambda: "",
) -> tuple[TcpAddress, YamuxConnection] | None:
    """The first connection that is up, or None when every address failed. The caller bounds the time.

    `sockets` has a place for each socket of a dial, over all dials of the node, and `no_room` gives the reason why one
    more may not become a connection, or ''. `complaint` gives the reason not to accept a peer, or ''. `failures`
    are filled in place, so that they are complete when the caller's time is over: `silent` is the reason of an address
    that is still tried.
    """
    won: list[tuple[TcpAddress, YamuxConnection]] = []
    (failed := failures.reasons).update({str(endpoint): silent for endpoint in endpoints})
    slots = trio.CapacityLimiter(ADDRESSES_MAX)

    async def begin(endpoint: TcpAddress) -> None:
        if endpoint.kind not in DNS:
            await attempt(endpoint, endpoint, str(endpoint))
            return
        failed[str(endpoint)] = f"its name was not resolved: {silent}"
        try:
            async with sockets:
                resolved = await _resolve(endpoint)
        except Exception as error:  # not OSError alone: a resolver raises UnicodeError for a label that is too long
            failed[str(endpoint)] = describe(error)
            return
        del failed[str(endpoint)]
        for address in resolved:
            nursery.start_soon(attempt, endpoint, address, f"{endpoint} ({address.host})")

    async def attempt(endpoint: TcpAddress, resolved: TcpAddress, name: str) -> None:
        failed[name] = f"not tried: {ADDRESSES_MAX} other addresses took all the time"
        async with slots, sockets:
            failed[name] = silent
            try:
                if why := no_room():
                    raise Refused(why)
                won.append((endpoint, await _attempt(resolved, upgrader, complaint)))
                del failed[name]
                nursery.cancel_scope.cancel()
            except Exception as error:
                failed[name] = str(error) if isinstance(error, Refused) else describe(error)
                if isinstance(error, Refused) and error.other:
                    failures.others[str(endpoint)] = error.other

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


async def _attempt(
    endpoint: TcpAddress, upgrader: Upgrader, complaint: Callable[[YamuxConnection], str]
) -> YamuxConnection:
    tcp = await connect(_FAMILY[endpoint.kind], endpoint.host, endpoint.port, upgrader.connection)
    try:
        mux = await upgrader.outbound(tcp)
        peer = str(mux.peer_id)
        why = complaint(mux)
        if endpoint.peer is not None and peer != endpoint.peer:
            raise Refused(f"another peer answers there, {peer}", peer)
        if why:
            raise Refused(why, peer if why == ITSELF else "")
        return mux
    except BaseException:
        tcp.abort()
        raise


async def _resolve(endpoint: TcpAddress) -> list[TcpAddress]:
    """The addresses of a DNS name. Raises OSError."""
    family = _FAMILY.get(endpoint.kind, socket.AF_UNSPEC)
    found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, family, socket.SOCK_STREAM)
    kinds = {socket.AF_INET: "ip4", socket.AF_INET6: "ip6"}
    resolved = {
        replace(endpoint, kind=kinds[kind], host=str(address[0])): None
        for kind, _, _, _, address in found
        if kind in kinds
    }
    if not resolved:
        raise OSError(f"{endpoint.host} has no address")
    return list(resolved)[:RESOLVED_MAX]
