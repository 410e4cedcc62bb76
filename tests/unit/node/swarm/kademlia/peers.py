"""A `Kad` in memory whose peers answer as a test says, or not at all."""

from collections.abc import Callable, Sequence

import trio

from node.swarm.base import DialFailed, KadFailed, KadReceiver
from protocols.kademlia.message_codec import decode_request, encode_answer
from protocols.kademlia.messages import AddProvider, KadAnswer, KadRequest

Answering = Callable[[KadRequest], KadAnswer | bytes | None]
"""The answer to a request: bytes are sent as they are; None is silence."""


class Peers:
    """`answering` has what each peer answers; a peer that is `away` cannot be dialled."""

    def __init__(self) -> None:
        self.answering: dict[str, Answering] = {}
        self.connected: set[str] = set()
        self.away: set[str] = set()
        self.asked: list[tuple[str, KadRequest]] = []
        self.dialled: list[tuple[str, tuple[str, ...]]] = []
        self.dial_seconds = 0.0

    def attach(self, receiver: KadReceiver) -> None: ...

    def is_connected(self, peer: str) -> bool:
        return peer in self.connected

    async def connect(self, peer: str, addresses: Sequence[str], *, timeout: float) -> None:
        self.dialled.append((peer, tuple(addresses)))
        await trio.sleep(min(timeout, self.dial_seconds))
        if peer in self.away or self.dial_seconds > timeout:
            raise DialFailed("nobody is there")
        self.connected.add(peer)

    async def ask(self, peer: str, *messages: bytes) -> bytes:
        if peer not in self.connected:
            raise KadFailed("it is not connected")
        requests = [decode_request(message) for message in messages]
        self.asked += [(peer, request) for request in requests]
        assert all(isinstance(request, AddProvider) for request in requests[:-1])
        answering = self.answering.get(peer)
        answer = answering(requests[-1]) if answering is not None else KadAnswer()
        await trio.sleep(0.001)
        if answer is None:
            await trio.sleep_forever()
        return answer if isinstance(answer, bytes) else encode_answer(requests[-1], answer)
