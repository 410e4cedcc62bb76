"""The DHT's messages in the virtual network: they travel over the connections, with the faults of the links.

Each message has a number, where libp2p has a stream whose answers come in order: so a message that a link loses or
doubles is one that was lost or came twice, and no answer reaches the wrong question.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import trio

from node.swarm.base import KadFailed, KadReceiver
from protocols.errors import BzzzError

SERVED_MAX = 64
"""Messages of one peer that are being answered; further ones are dropped."""


class KadMessage(NamedTuple):
    number: int
    is_answer: bool
    data: bytes
    is_expected: bool = True
    """Whether an answer to it is awaited."""
    failure: str = ""


class _Question:
    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.answer: bytes | None = None
        self.why = ""
        self.over = trio.Event()


class VirtualKad:
    """The `Kad` of one endpoint. `send` hands a peer a message, and says whether it could; `dial` connects to one of
    these addresses; `is_connected` knows the peers."""

    def __init__(
        self,
        send: Callable[[str, KadMessage], bool],
        dial: Callable[[Sequence[str], float], Awaitable[str]],
        is_connected: Callable[[str], bool],
    ) -> None:
        self._send = send
        self._dial = dial
        self.is_connected = is_connected
        self._receiver: KadReceiver | None = None
        self._nursery: trio.Nursery | None = None
        self._number = 0
        self._questions: dict[int, _Question] = {}
        self._serving: dict[str, int] = {}

    @property
    def is_spoken(self) -> bool:
        return self._receiver is not None

    def attach(self, receiver: KadReceiver) -> None:
        assert self._receiver is None, "attached already"
        self._receiver = receiver

    def run_in(self, nursery: trio.Nursery) -> None:
        """Answer peers by tasks of this nursery from now on."""
        self._nursery = nursery

    async def ask(self, peer: str, *messages: bytes) -> bytes:
        question = _Question(peer)
        for at, data in enumerate(messages, start=1):
            self._number += 1
            if at == len(messages):
                self._questions[self._number] = question
            if not self._send(peer, KadMessage(self._number, False, data, at == len(messages))):
                self._questions.pop(self._number, None)
                raise KadFailed("it is not connected, or too much waits for it already")
        number = self._number
        try:
            await question.over.wait()
        finally:
            self._questions.pop(number, None)
        if question.answer is None:
            raise KadFailed(question.why)
        return question.answer

    async def connect(self, peer: str, addresses: Sequence[str], *, timeout: float) -> None:
        if not self.is_connected(peer):
            await self._dial([address for address in addresses if address.endswith(f"/p2p/{peer}")], timeout)

    # -- called by the endpoint ---------------------------------------------------------------------------------

    def found(self, peer: str, addresses: tuple[str, ...]) -> None:
        """The identity of a peer that speaks the protocol has arrived."""
        if self._receiver is not None:
            self._receiver.found(peer, addresses)

    def disconnected(self, peer: str) -> None:
        for question in self._questions.values():
            if question.peer == peer:
                question.why = "the connection ended"
                question.over.set()

    def arrived(self, peer: str, remote: str, message: KadMessage) -> None:
        if message.is_answer:
            if (question := self._questions.get(message.number)) is not None and question.peer == peer:
                question.answer = None if message.failure else message.data
                question.why = message.failure
                question.over.set()
        elif self._nursery is not None and self._serving.get(peer, 0) < SERVED_MAX:
            self._serving[peer] = self._serving.get(peer, 0) + 1
            self._nursery.start_soon(self._serve, peer, remote, message)

    async def _serve(self, peer: str, remote: str, message: KadMessage) -> None:
        answer, failure = None, "the stream ended"
        try:
            if self._receiver is not None:
                answer = await self._receiver.answer(peer, remote, message.data)
        except BzzzError as error:
            failure = f"the stream ended: {error.message}"
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]
        if message.is_expected:
            failure = "" if answer is not None else failure
            self._send(peer, KadMessage(message.number, True, answer or b"", failure=failure))
