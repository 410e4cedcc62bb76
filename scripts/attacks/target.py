"""The target of the attacks: a node on this machine, found by its multiaddr or by its API."""

import ipaddress
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from attacks.connections import TargetFailed
from attacks.http_client import get
from node.swarm.libp2p.address import parse

NETWORK = "bzzz"
"""The network of a target without a known API."""


class NoTarget(Exception):
    """There is no node to attack; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackTarget:
    """A node that listens on loopback. `api` is None when no API was found, `pid` when its process was not."""

    host: str
    port: int
    peer: str
    network: str = NETWORK
    api: tuple[str, int] | None = None
    pid: int | None = None

    @property
    def swarm(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def multiaddr(self) -> str:
        return f"/{'ip6' if ':' in self.host else 'ip4'}/{self.host}/tcp/{self.port}/p2p/{self.peer}"


async def find(text: str) -> AttackTarget:
    """Find a node by a multiaddr that ends in /p2p/<peer id>, or by the `host:port` or URL of its API.

    Raises `NoTarget`, also for a node that is not on this machine.
    """
    return await (_by_multiaddr(text) if text.startswith("/") else _by_api(*_host_and_port(text)))


async def _by_multiaddr(text: str) -> AttackTarget:
    try:
        endpoint = parse(text)
    except ValueError as error:
        raise NoTarget(f"{text}: {error}") from error
    if endpoint.peer is None:
        raise NoTarget(f"{text} does not name a peer: it must end in /p2p/<peer id>")
    _check_local(endpoint.host)
    listening = _listening()
    pid = listening.get(endpoint.port)
    for port in [port for port, owner in listening.items() if owner == pid and port != endpoint.port]:
        try:
            found = await _by_api(endpoint.host, port)
        except NoTarget:
            continue
        if found.peer == endpoint.peer:
            return found
    return AttackTarget(host=endpoint.host, port=endpoint.port, peer=endpoint.peer, pid=pid)


async def _by_api(host: str, port: int) -> AttackTarget:
    _check_local(host)
    try:
        _, body = await get((host, port), "/v1/bootstrap", seconds=5)
        data = json.loads(body)["response"]["data"]
        endpoints = [parse(address) for address in data["multiaddrs"]]
        local = next(endpoint for endpoint in endpoints if _is_local(endpoint.host))
    except (TargetFailed, ValueError, KeyError, TypeError) as error:
        raise NoTarget(f"{host}:{port} is not the API of a node: {error}") from error
    except StopIteration:
        raise NoTarget(f"the node behind {host}:{port} does not listen on loopback") from None
    return AttackTarget(
        host=local.host,
        port=local.port,
        peer=data["peer_id"],
        network=data["network"],
        api=(host, port),
        pid=_listening().get(port),
    )


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(text if "//" in text else f"//{text}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise NoTarget(f"{text} is neither a multiaddr nor the host:port of an API")
    return host, port


def _check_local(host: str) -> None:
    if not _is_local(host):
        raise NoTarget(f"{host} is not this machine: only a node on loopback may be attacked")


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening() -> dict[int, int]:
    """The process that listens on each port of this machine, as far as this user may know."""
    try:
        found = psutil.net_connections("tcp")
    except psutil.Error:
        return {}
    return {
        each.laddr.port: each.pid for each in found if each.status == psutil.CONN_LISTEN and each.laddr and each.pid
    }
