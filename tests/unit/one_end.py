"""One end of a network in memory: the node under test has it, and the test plays all of its peers.

Nothing is delivered by itself. The test connects and disconnects peers, reads what was sent to them, and answers in
their place.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from node.swarm.base import DialFailed, KadFailed, KadReceiver, Lane, Network, Receiver, TopicHandler, TopicValidator
from node.swarm.deferred_reply import DeferredReply
from node.swarm.limits import SwarmLimits
from node.swarm.rpc import Rpc, RpcService
from protocols import message_codec
from protocols.errors import Forbidden
from protocols.message_codec import Frame
from protocols.messages import Reply, Request


class Sent(NamedTuple):
    peer: str
    lane: Lane
    frame: Frame
    size_bytes: int


class OneTopicEnd:
    """A `PubSub` with nothing behind it."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []

    def subscribe(self, topic: str, handler: TopicHandler, validator: TopicValidator | None = None) -> None:
        pass

    async def publish(self, topic: str, data: bytes) -> None:
        self.published.append((topic, data))

    def peers(self, topic: str) -> tuple[str, ...]:
        return ()


class OneKadEnd:
    """A `Kad` with nothing behind it."""

    def attach(self, receiver: KadReceiver) -> None:
        pass

    async def ask(self, peer: str, *messages: bytes) -> bytes:
        raise KadFailed("nobody is connected")

    def is_connected(self, peer: str) -> bool:
        return False

    async def connect(self, peer: str, addresses: Sequence[str], *, timeout: float) -> None:
        raise DialFailed("nobody is there")


class OneEnd:
    """A `Network` with nothing behind it."""

    peer_id = "own"
    addresses: tuple[str, ...] = ("/memory/1/p2p/own",)

    def __init__(self) -> None:
        self.pubsub = OneTopicEnd()
        self.kad = OneKadEnd()
        self.sent: list[Sent] = []
        self.given_up: list[tuple[str, str]] = []
        """Peers that the node disconnected, and why."""
        self.is_full = False
        """No frame is taken."""
        self._connected: dict[str, None] = {}
        self._receiver: Receiver | None = None
        self._sent_more = trio.Event()

    # -- the contract ---------------------------------------------------------------------------------------------

    async def run(self, receiver: Receiver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._receiver = receiver
        task_status.started()
        await trio.sleep_forever()

    async def addresses_changed(self) -> None:
        await trio.sleep_forever()

    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        raise DialFailed("no peer is behind this network")

    def send(self, peer: str, lane: Lane, frame: bytes) -> bool:
        if peer not in self._connected or self.is_full:
            return False
        self.sent.append(Sent(peer, lane, message_codec.decode(frame), len(frame)))
        self._sent_more.set()
        return True

    def disconnect(self, peer: str, reason: str) -> None:
        self.given_up.append((peer, reason))
        if peer in self._connected:
            self.go(peer, reason)

    twin = ""
    """There is no other node with the same identity."""

    def twin_reported(self, log_id: str, address: str, *, yields: bool) -> None:
        pass

    async def look_for_twin(self, addresses: Sequence[str]) -> None:
        pass

    def address_fault(self, address: str) -> str:
        return ""

    def connected_peers(self) -> tuple[str, ...]:
        return tuple(self._connected)

    # -- what the peers do ---------------------------------------------------------------------------------------

    @property
    def receiver(self) -> Receiver:
        assert self._receiver is not None, "the network does not run"
        return self._receiver

    def come(self, *peers: str) -> None:
        for peer in peers:
            self._connected[peer] = None
            self.receiver.connected(peer, f"/memory/2/p2p/{peer}", True)

    def go(self, peer: str, reason: str = "gone") -> None:
        del self._connected[peer]
        self.receiver.disconnected(peer, reason)

    def ask(self, peer: str, number: int, request: Request, trace: str = "") -> None:
        self.receiver.received(peer, Lane.SMALL, message_codec.encode_request(number, request, trace))

    def answer(self, peer: str, number: int, reply: Reply) -> None:
        self.receiver.received(peer, Lane.SMALL, message_codec.encode_reply(number, reply))

    def garble(self, peer: str, frame: bytes) -> None:
        self.receiver.received(peer, Lane.SMALL, frame)

    # -- what the node did ----------------------------------------------------------------------------------------

    def requests(self, peer: str) -> list[Frame]:
        return [sent.frame for sent in self.sent if sent.peer == peer and not sent.frame.is_reply]

    def replies(self, peer: str) -> list[tuple[int, Reply]]:
        return [(s.frame.id, s.frame.message) for s in self.sent if s.peer == peer and s.frame.is_reply]  # type: ignore[misc]

    async def until_sent(self, peer: str, count: int) -> list[Frame]:
        """The requests to a peer, once there are `count`."""
        while len(self.requests(peer)) < count:
            self._sent_more = trio.Event()
            await self._sent_more.wait()
        return self.requests(peer)


class RecordingService:
    """An `RpcService` that records its calls, and answers requests with what the test has put into `answers`."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        """(name of the method, peer), in order."""
        self.idle: dict[str, str] = {}
        """Peers that are idle, and what comes of a dial: '' when it connects them, or why not."""
        self.answers: dict[type[object], Reply | DeferredReply | Awaitable[Reply] | Exception] = {}
        self.traces: list[str] = []
        self.dial_over = trio.Event()
        """Set it to end all dials."""

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self.events.append(("connected", peer))

    def disconnected(self, peer: str, reason: str) -> None:
        self.events.append(("disconnected", peer))

    def heard(self, peer: str) -> None:
        self.events.append(("heard", peer))

    def missed(self, peer: str, evidence: str) -> None:
        self.events.append(("missed", peer))

    def is_idle(self, peer: str) -> bool:
        return peer in self.idle

    async def connect_idle(self, peer: str) -> str:
        self.events.append(("dialled", peer))
        await self.dial_over.wait()
        return self.idle.pop(peer)

    def serve(self, peer: str, request: Request, trace: str) -> Reply | DeferredReply | Awaitable[Reply]:
        self.traces.append(trace)
        answer = self.answers.get(type(request), Forbidden("the test gave no answer"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def missed_peers(self) -> list[str]:
        return [peer for name, peer in self.events if name == "missed"]


@asynccontextmanager
async def rpc_over(net: OneEnd, service: RpcService, *, limits: SwarmLimits | None = None) -> AsyncIterator[Rpc]:
    """An `Rpc` that runs over a network until the block ends."""
    rpc = Rpc(net, limits=limits)
    async with trio.open_nursery() as nursery:
        await nursery.start(rpc.run, service)
        yield rpc
        nursery.cancel_scope.cancel()


def unanswered(rpc: Rpc) -> int:
    """How many requests wait for a reply. Reads a private member: only tests need this number."""
    return sum(len(waiting) for waiting in rpc._waiting.values())


def _checked_by_mypy(net: OneEnd, service: RecordingService) -> tuple[Network, RpcService]:
    """Both classes implement their protocols."""
    return net, service
