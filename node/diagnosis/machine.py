"""The findings about a machine on which no node runs: what one that is started here and now would meet."""

import os
import random

import trio

from discovery.finder import FinderHealth
from discovery.mdns_finder import MdnsFinder
from node.config.settings import Settings
from node.config.values import is_loopback
from node.diagnosis.finding import Finding, bad, note, ok
from node.swarm.base import ListenFailed
from node.swarm.libp2p import listen
from node.swarm.libp2p.interfaces import own_hosts
from node.version import agent
from protocols.keys import PrivateKey
from protocols.policy.sighting import Sighting, Source

LISTEN_SECONDS = 3.5
"""Questions are sent at once, after one second and after three."""


def findings(settings: Settings) -> list[Finding]:
    """Takes some seconds where multicast is tried."""
    found = [
        ok("network", f"the swarm would be named {settings.network!r}, this node {settings.name!r}"),
        *_interfaces(),
        *_ports(settings),
    ]
    if settings.is_on_network and settings.discovery_mdns:
        return [*found, *trio.run(_multicast, settings.network)]
    return [*found, note("multicast", "mDNS would be off: the node would listen on loopback alone, or not search")]


def _interfaces() -> list[Finding]:
    try:
        hosts = [host for host in own_hosts() if not is_loopback(host)]
    except OSError as error:
        return [bad("addresses", f"the interfaces of this machine cannot be read: {error}")]
    if not hosts:
        return [bad("addresses", "this machine has loopback addresses alone", "connect it to a network")]
    return [ok("addresses", f"this machine has {', '.join(hosts)}")]


def _ports(settings: Settings) -> list[Finding]:
    if settings.backend == "mock":
        return [note("ports", "backend mock has no swarm")]
    found = []
    for address in settings.listen:
        try:
            listen.close(listen.bind([address]))
            found.append(ok("ports", f"{address} is free"))
        except ListenFailed as error:
            found.append(bad("ports", str(error)))
    return found


class _Listener:
    """What a finder tells others in its own network, and sees. Without addresses it is not seen itself."""

    name = "doctor"

    def __init__(self, network: str, addresses: tuple[str, ...] = ()) -> None:
        self.peer_id = PrivateKey.from_seed(os.urandom(32)).peer_id
        self.network = network
        self.agent = agent()
        self.seen: set[str] = set()
        self._addresses = tuple(f"{address}/p2p/{self.peer_id}" for address in addresses)

    def capabilities(self) -> tuple[str, ...]:
        return ()

    def addresses(self, *, on_this_machine: bool = False) -> tuple[str, ...]:
        return self._addresses

    async def changed(self) -> None:
        await trio.sleep_forever()

    def saw(self, sighting: Sighting) -> None:
        self.seen.add(sighting.peer)

    def lost(self, peer: str, source: Source) -> None:
        self.seen.discard(peer)


async def _multicast(network: str) -> list[Finding]:
    """Listen for nodes of the network, and for messages of this machine itself in a network that nobody else has."""
    others, alone = _Listener(network), _Listener(f"doctor-{os.urandom(8).hex()}", ("/ip4/192.0.2.1/tcp/4001",))
    finders = [
        MdnsFinder(listener, instance=os.urandom(16).hex(), chance=random.random) for listener in (others, alone)
    ]
    async with trio.open_nursery() as nursery:
        for finder, listener in zip(finders, (others, alone), strict=True):
            nursery.start_soon(finder.run, listener)
        await trio.sleep(LISTEN_SECONDS)
        heard, own = (finder.health() for finder in finders)
        nursery.cancel_scope.cancel()
    return [_judge(heard, own, len(others.seen))]


def _judge(heard: FinderHealth, own: FinderHealth, seen: int) -> Finding:
    for fault in (*own.faults, *heard.faults):
        return bad("multicast", fault, "see 'On a LAN' in docs/operations.md")
    where = ", ".join(own.interfaces) or "no interface"
    if not own.counts["own_heard"]:
        text = f"what this machine sends to UDP port 5353 on {where} does not come back"
        return bad("multicast", text, "allow UDP port 5353, in and out")
    text = f"mDNS on {where}: own messages come back, {seen} nodes were seen within {LISTEN_SECONDS:g} s"
    if seen:
        return ok("multicast", text)
    return note("multicast", text, "if there are nodes on this LAN, multicast is blocked between them")
