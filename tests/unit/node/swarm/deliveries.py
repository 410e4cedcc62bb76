"""A `Delivery` to test: the peers' side of its network, envelopes to deliver, and the outcome of each delivery."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from node.swarm.delivery import Delivery
from protocols.envelope import Envelope, decode, seal
from protocols.errors import BzzzError
from protocols.keys import PrivateKey
from protocols.message_codec import Frame
from protocols.messages import Merge, MergeReply, Refusal, Reply
from tests.unit.one_end import OneEnd, RecordingService, rpc_over

Clock = trio.testing.MockClock
KEY = PrivateKey.from_seed(b"\5" * 32)
_ENVELOPES: dict[tuple[str, int, int], Envelope] = {}


def envelope(thing: str, version: int = 1, size_bytes: int = 0) -> Envelope:
    """A version of a thing; made once, because signing takes time."""
    if (thing, version, size_bytes) not in _ENVELOPES:
        _ENVELOPES[thing, version, size_bytes] = seal(
            KEY, address=f"ucxl://a:b@c:d/*^/{thing}", content=b"x" * size_bytes, content_type="text/plain",
            version=version, parents=(),
        )  # fmt: skip
    return _ENVELOPES[thing, version, size_bytes]


class Rig:
    """A `Delivery` that runs, the peers' side of its network, and the outcome of each delivery."""

    def __init__(self, net: OneEnd, service: RecordingService, delivery: Delivery) -> None:
        self.net = net
        self.service = service
        self.delivery = delivery
        self.outcomes: dict[str, list[BzzzError | None]] = {}
        self.order: list[str] = []

    def deliver(self, peer: str, item: Envelope, name: str = "") -> bool:
        name = name or f"{item.address.rpartition('/')[2]}{item.version}"

        def on_done(error: BzzzError | None) -> None:
            self.outcomes.setdefault(name, []).append(error)
            self.order.append(name)

        return self.delivery.deliver(peer, item, on_done)

    def batches(self, peer: str = "a") -> list[list[str]]:
        return [names_in(frame) for frame in self.net.requests(peer)]

    def answer(self, at: int, *refusals: tuple[int, BzzzError], peer: str = "a") -> None:
        """Acknowledge the batch with this index, with these refusals."""
        frame = self.net.requests(peer)[at]
        refused = tuple((at, Refusal.of(error)) for at, error in refusals)
        self.net.answer(peer, frame.id, MergeReply(len(names_in(frame)), refused))

    def reply(self, at: int, reply: Reply, peer: str = "a") -> None:
        self.net.answer(peer, self.net.requests(peer)[at].id, reply)

    @property
    def is_empty(self) -> bool:
        """Nothing is left of finished deliveries. Private members: nothing but memory depends on them."""
        return not self.delivery._queues and not self.delivery._to_send


def names_in(frame: Frame) -> list[str]:
    assert isinstance(frame.message, Merge)
    found = [decode(encoded) for encoded in frame.message.envelopes]
    return [f"{item.address.rpartition('/')[2]}{item.version}" for item in found]


@asynccontextmanager
async def running(*peers: str) -> AsyncIterator[Rig]:
    net, service = OneEnd(), RecordingService()
    async with rpc_over(net, service) as rpc, trio.open_nursery() as nursery:
        net.come(*peers)
        delivery = Delivery(rpc, timeout_seconds=1.0)
        nursery.start_soon(delivery.run)
        yield Rig(net, service, delivery)
        nursery.cancel_scope.cancel()


settled = trio.testing.wait_all_tasks_blocked
