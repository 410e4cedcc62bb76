"""Topics in the virtual network: a message reaches everyone once, over a bounded number of sends."""

from collections.abc import Awaitable, Callable

import trio

from netsim.virtual.endpoint import VirtualEndpoint
from netsim.virtual.network import VirtualNetwork
from netsim.virtual.pubsub import FAN_OUT
from netsim.virtual.scheduler import run_virtual
from netsim.virtual.trace import Trace
from node.swarm.base import Lane
from tests.until import until

TOPIC = "news"


class NoReceiver:
    """A receiver that needs no frames."""

    def connected(self, peer: str, address: str, dialled: bool) -> None: ...

    def disconnected(self, peer: str, reason: str) -> None: ...

    def received(self, peer: str, lane: Lane, frame: bytes) -> None: ...


class Listeners:
    """Endpoints on one topic, and what each of them has heard."""

    def __init__(self) -> None:
        self.net = VirtualNetwork(1, Trace())
        self.endpoints: list[VirtualEndpoint] = []
        self.heard: dict[str, list[bytes]] = {}
        self.refuse: Callable[[bytes], bool | None] = lambda data: True

    def add(self, nursery: trio.Nursery) -> VirtualEndpoint:
        peer = f"12D3KooWPeer{len(self.endpoints)}"
        endpoint = self.net.attach(peer)
        self.heard[peer] = []
        endpoint.pubsub.subscribe(
            TOPIC, lambda author, data: self.heard[peer].append(data), lambda author, data, _: self.refuse(data)
        )
        self.endpoints.append(endpoint)
        nursery.start_soon(endpoint.run, NoReceiver())
        return endpoint

    def have_heard(self, data: bytes) -> int:
        return sum(data in heard for heard in self.heard.values())


def with_line(count: int, program: Callable[[Listeners], Awaitable[None]]) -> None:
    """Run a program over endpoints of which each is connected to the next one."""

    async def run() -> None:
        listeners = Listeners()
        async with trio.open_nursery() as nursery:
            await nursery.start(listeners.net.run)
            for number in range(count):
                listeners.add(nursery)
                await trio.lowlevel.checkpoint()
                if number:
                    await listeners.endpoints[number].dial(listeners.endpoints[number - 1].addresses, timeout=5)
            await until(lambda: all(each.pubsub.peers(TOPIC) for each in listeners.endpoints))
            await program(listeners)
            nursery.cancel_scope.cancel()

    run_virtual(1, run, limit_seconds=3600)


def test_a_message_is_passed_on_to_peers_of_peers_and_heard_once() -> None:
    async def program(listeners: Listeners) -> None:
        await listeners.endpoints[0].pubsub.publish(TOPIC, b"hello")
        await until(lambda: listeners.have_heard(b"hello") == 3)
        await listeners.endpoints[3].pubsub.publish(TOPIC, b"answer")
        await until(lambda: listeners.have_heard(b"answer") == 3)
        assert all(len(heard) == len(set(heard)) for heard in listeners.heard.values())

    with_line(4, program)


def test_what_a_node_does_not_accept_goes_no_further() -> None:
    async def program(listeners: Listeners) -> None:
        listeners.refuse = lambda data: data != b"lie"
        await listeners.endpoints[0].pubsub.publish(TOPIC, b"lie")
        await listeners.endpoints[0].pubsub.publish(TOPIC, b"truth")
        await until(lambda: listeners.have_heard(b"truth") == 3)
        assert listeners.have_heard(b"lie") == 0

    with_line(4, program)


def test_a_node_with_many_peers_sends_a_message_to_a_few() -> None:
    async def program(listeners: Listeners) -> None:
        hub = listeners.endpoints[0]
        for endpoint in listeners.endpoints[2:]:
            await hub.dial(endpoint.addresses, timeout=5)
        await until(lambda: len(hub.pubsub.peers(TOPIC)) == 39)
        await hub.pubsub.publish(TOPIC, b"hello")
        await until(lambda: listeners.have_heard(b"hello") == 39)
        assert max(endpoint.pubsub.sent for endpoint in listeners.endpoints) <= FAN_OUT

    with_line(40, program)
