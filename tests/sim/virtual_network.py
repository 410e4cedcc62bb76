"""A virtual network whose endpoints have receivers that record, and fail on a call that the contract forbids."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from netsim.virtual.endpoint import VirtualEndpoint
from netsim.virtual.links import Link
from netsim.virtual.network import VirtualNetwork
from netsim.virtual.scheduler import run_virtual
from netsim.virtual.trace import Trace
from node.swarm.base import Lane

ROOT = Path(__file__).parents[2]
ALPHA, BETA, GAMMA, DELTA = (f"12D3KooWPeer{letter}" for letter in "ABCD")


class RecordingReceiver:
    """A receiver that records its calls, and fails on a call that the contract forbids."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.frames: dict[str, list[bytes]] = {}
        self.peers: dict[str, None] = {}
        self._called = trio.Event()

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        assert peer not in self.peers, f"{peer} connected twice"
        self.peers[peer] = None
        self._record("connected", peer, "dialled" if dialled else address)

    def disconnected(self, peer: str, reason: str) -> None:
        assert peer in self.peers, f"{peer} disconnected before it connected"
        del self.peers[peer]
        self._record("disconnected", peer, reason)

    def received(self, peer: str, lane: Lane, frame: bytes) -> None:
        assert peer in self.peers, f"a frame of {peer}, which is not connected"
        self.frames.setdefault(peer, []).append(frame)
        self._record("received", peer, lane.name)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self._called.wait()

    async def until_called(self, *what: str) -> None:
        await self.until(lambda: any(call[: len(what)] == what for call in self.calls))

    def _record(self, *what: str) -> None:
        self.calls.append(what)
        self._called.set()
        self._called = trio.Event()


class ReceiverNetwork:
    """A virtual network whose nodes have a receiver, and nothing else of a node."""

    def __init__(self, seed: int, nursery: trio.Nursery, link: Link | None) -> None:
        self.seed = seed
        self.trace = Trace()
        self.net = VirtualNetwork(seed, self.trace, link=link)
        self.nursery = nursery
        self.receivers: dict[str, RecordingReceiver] = {}
        self.scopes: dict[str, trio.CancelScope] = {}

    async def attach(self, peer: str) -> VirtualEndpoint:
        """The endpoint of a node's next process; it runs."""
        endpoint = self.net.attach(peer)
        receiver = self.receivers[peer] = RecordingReceiver()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with trio.CancelScope() as self.scopes[peer]:
                await endpoint.run(receiver, task_status=task_status)

        await self.nursery.start(run)
        return endpoint

    async def pair(self) -> tuple[VirtualEndpoint, VirtualEndpoint, RecordingReceiver, RecordingReceiver]:
        """Alpha and beta, connected: alpha has dialled. Their endpoints, then their receivers."""
        alpha, beta = await self.attach(ALPHA), await self.attach(BETA)
        await alpha.dial(beta.addresses, timeout=5)
        await self.receivers[BETA].until_called("connected", ALPHA)
        return alpha, beta, self.receivers[ALPHA], self.receivers[BETA]

    def crash(self, peer: str) -> None:
        self.net.crash(peer)
        self.scopes[peer].cancel()


@asynccontextmanager
async def network_of(seed: int = 1, *, link: Link | None = None) -> AsyncIterator[ReceiverNetwork]:
    async with trio.open_nursery() as nursery:
        network = ReceiverNetwork(seed, nursery, link)
        await nursery.start(network.net.run)
        yield network
        nursery.cancel_scope.cancel()


def run_in_network(
    program: Callable[[ReceiverNetwork], Awaitable[None]], *, seed: int = 1, link: Link | None = None
) -> None:
    """Run a program on a new network."""

    async def run() -> None:
        async with network_of(seed, link=link) as network:
            await program(network)

    run_virtual(seed, run, limit_seconds=3600)


def numbered(count: int) -> list[bytes]:
    return [b"frame %d" % number for number in range(count)]


def put(sender: VirtualEndpoint, peer: str, frames: Sequence[bytes], lane: Lane = Lane.SMALL) -> None:
    for frame in frames:
        assert sender.send(peer, lane, frame)
