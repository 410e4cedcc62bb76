"""The way to a peer, hop by hop: the name of the host, the route and port, the handshake that proves who is there."""

import errno
import os
import socket

import trio

from node.diagnosis.finding import Finding, bad, note, ok
from node.swarm.libp2p.address import IP, TcpAddress, parse
from node.swarm.libp2p.pnet import WrongNetworkKey
from node.swarm.libp2p.tcp import TcpConnection, connect
from node.swarm.libp2p.upgrade import Upgrader, describe

HOP_SECONDS = 3.0

_HINTS = {
    errno.ECONNREFUSED: ("nothing listens there", "is the node running, on this port, and not on loopback alone?"),
    errno.EHOSTUNREACH: ("the machine does not answer on its network", "is it on, and on this network?"),
    errno.ENETUNREACH: ("this machine has no route there", "check the route and the address family"),
    errno.EPERM: ("a firewall of this machine forbids it", "allow it"),
    errno.EACCES: ("a firewall of this machine forbids it", "allow it"),
}
_NO_KEY = "the network is private, and this command does not know its key: no handshake was possible"
_SILENT = ("no answer within 3 s", "a firewall drops it on the way, or the machine is off")


async def walk(address: str, *, network_key: bytes | None = None, lacks_key: bool = False) -> list[Finding]:
    """A finding for each hop of the way to a multiaddr, up to the first one that fails.

    `network_key` is that of a private network. `lacks_key` says that the network is private and its key is not known
    here, so that a node which refuses the handshake may be well.
    """
    upgrader = Upgrader(os.urandom(32), network_key=network_key)  # an identity that no node remembers
    try:
        endpoint = parse(address)
    except ValueError as error:
        return [bad("address", f"{address}: {error}")]
    hops: list[Finding] = []
    try:
        with trio.fail_after(HOP_SECONDS):
            family, host = await _resolve(endpoint)
    except (OSError, UnicodeError, trio.TooSlowError) as error:
        why, _ = _words(error)
        return [
            bad("name", f"{endpoint.host} cannot be resolved: {why}", "check the name, and this machine's resolver")
        ]
    if endpoint.kind not in IP:
        hops.append(ok("name", f"{endpoint.host} is {host}"))
    try:
        with trio.fail_after(HOP_SECONDS):
            tcp = await connect(family, host, endpoint.port, upgrader.connection)
    except (OSError, trio.TooSlowError) as error:
        why, advice = _words(error)
        return [*hops, bad("port", f"{host} port {endpoint.port}: {why}", advice)]
    hops.append(ok("port", f"{host} port {endpoint.port} accepts connections"))
    return [*hops, await _identity(upgrader, tcp, endpoint, lacks_key=lacks_key)]


async def _identity(upgrader: Upgrader, tcp: TcpConnection, endpoint: TcpAddress, *, lacks_key: bool) -> Finding:
    """The handshake proves who is there, and joins nothing."""
    try:
        with trio.fail_after(HOP_SECONDS):
            there = str((await upgrader.outbound(tcp)).peer_id)
    except WrongNetworkKey as error:
        if lacks_key:
            return note("handshake", _NO_KEY, "name the file with the join phrase: --join-file FILE")
        return bad("handshake", str(error), "use one join phrase for both, and the port of the swarm, not the API's")
    except Exception as error:  # libp2p raises what it likes
        why = f"no answer within {HOP_SECONDS:g} s" if isinstance(error, trio.TooSlowError) else describe(error)
        return bad(
            "handshake", f"what answers there is no node: {why}", "is it the port of the swarm, and not the API's?"
        )
    finally:
        tcp.abort()
    if endpoint.peer not in (None, there):
        return bad("identity", f"another node is there, {there}", f"look for the address of {endpoint.peer}")
    return ok("identity", f"{there} is there")


async def _resolve(endpoint: TcpAddress) -> tuple[socket.AddressFamily, str]:
    """The family and the first address of a host. Raises OSError."""
    families = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}
    family = families.get(endpoint.kind, socket.AF_UNSPEC)
    found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, family, socket.SOCK_STREAM)
    return socket.AddressFamily(found[0][0]), str(found[0][4][0])


def _words(error: BaseException) -> tuple[str, str]:
    """What an error of the network means, and what to do."""
    if isinstance(error, trio.TooSlowError):
        return _SILENT
    number = getattr(error, "errno", None) or 0
    return _HINTS.get(number, (getattr(error, "strerror", None) or str(error), ""))
