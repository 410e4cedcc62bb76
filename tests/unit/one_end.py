"""One end of a network in memory: the node under test has it, and the test plays everybody else.

Nothing is delivered by itself. The test says who comes and goes, reads what was sent, and answers when it likes.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from node.swarm.base import DialFailed, Lane, Network, Receiver
from node.swarm.limits import SwarmLimits
from node.swarm.rpc import DeferredReply, Rpc, RpcService
from protocols import message_codec
from protocols.errors import Forbidden
from protocols.message_codec import Frame
from protocols.messages import Reply, Request


class Sent(NamedTuple):
    peer: str
    lane: Lane
    frame: Frame
    size_bytes: int


class OneEnd:
    """A `Network` with nothing behind it."""

    peer_id = "own"
    addresses = ("/memory/1/p2p/own",)

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.given_up: list[tuple[str, str]] = []
        self.is_full = False
        self._here: dict[str, None] = {}
        self._receiver: Receiver | None = None
        self._news = trio.Event()

    # -- the contract ---------------------------------------------------------------------------------------------

    async def run(self, receiver: Receiver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._receiver = receiver
        task_status.started()
        await trio.sleep_forever()

    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        raise DialFailed("there is nobody behind this network")

    def send(self, peer: str, lane: Lane, frame: bytes) -> bool:
        if peer not in self._here or self.is_full:
            return False
        self.sent.append(Sent(peer, lane, message_codec.decode(frame), len(frame)))
        self._news.set()
        return True

    def disconnect(self, peer: str, reason: str) -> None:
        self.given_up.append((peer, reason))
        if peer in self._here:
            self.go(peer, reason)

    def connected_peers(self) -> tuple[str, ...]:
        return tuple(self._here)

    # -- what the others do ---------------------------------------------------------------------------------------

    @property
    def receiver(self) -> Receiver:
        assert self._receiver is not None, "it does not run"
        return self._receiver

    def come(self, *peers: str) -> None:
        for peer in peers:
            self._here[peer] = None
            self.receiver.connected(peer, f"/memory/2/p2p/{peer}", True)

    def go(self, peer: str, reason: str = "gone") -> None:
        del self._here[peer]
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
        """The requests to a peer, once there are so many."""
        while len(self.requests(peer)) < count:
            self._news = trio.Event()
            await self._news.wait()
        return self.requests(peer)


class Told:
    """A `RpcService` that writes down what it is told, and answers what the test has put there."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []
        self.answers: dict[type[object], Reply | DeferredReply | Awaitable[Reply] | Exception] = {}
        self.traces: list[str] = []

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self.told.append(("connected", peer))

    def disconnected(self, peer: str, reason: str) -> None:
        self.told.append(("disconnected", peer))

    def heard(self, peer: str) -> None:
        self.told.append(("heard", peer))

    def missed(self, peer: str, evidence: str) -> None:
        self.told.append(("missed", peer))

    def serve(self, peer: str, request: Request, trace: str) -> Reply | DeferredReply | Awaitable[Reply]:
        self.traces.append(trace)
        answer = self.answers.get(type(request), Forbidden("nobody said what to answer"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def missed_peers(self) -> list[str]:
        return [what[1] for what in self.told if what[0] == "missed"]


@asynccontextmanager
async def calls_over(net: OneEnd, served: RpcService, *, limits: SwarmLimits | None = None) -> AsyncIterator[Rpc]:
    """`Rpc` that run over a network until the block ends."""
    rpc = Rpc(net, limits=limits)
    async with trio.open_nursery() as nursery:
        await nursery.start(rpc.run, served)
        yield rpc
        nursery.cancel_scope.cancel()


def _keeps_the_contract(net: OneEnd, told: Told) -> tuple[Network, RpcService]:
    return net, told
