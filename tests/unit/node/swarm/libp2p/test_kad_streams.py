"""The DHT's streams of one host: what happens to a question while the host stops."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import trio

from node.swarm.base import KadFailed
from node.swarm.libp2p.kad_streams import KadStreams
from node.swarm.limits import USUAL
from node.swarm.peer_policy import PeerPolicy


class Swarm:
    """A `SwarmAdapter` that is connected to every peer."""

    def of(self, peer: str) -> list[str]:
        return [peer]


class Library:
    """A `HostAdapter` that opens no stream."""

    def __init__(self) -> None:
        self.counted_elsewhere: set[str] = set()

    def set_stream_handler(self, *_: object) -> None:
        pass

    async def new_stream(self, *_: object) -> Any:
        await trio.sleep_forever()


class Receiver:
    def found(self, peer: str, addresses: tuple[str, ...]) -> None:
        pass

    def stopped(self, peer: str) -> None:
        pass

    async def answer(self, peer: str, remote: str, message: bytes) -> bytes | None:
        return None


async def connect(addresses: Sequence[str], *, timeout: float, needs_lanes: bool) -> str:
    raise AssertionError("every peer is connected")


async def test_a_question_at_any_moment_of_a_stop_fails_and_starts_nothing() -> None:
    swarm: Any = Swarm()
    library: Any = Library()
    kad = KadStreams(swarm, PeerPolicy(), USUAL, connect)
    kad.attach(Receiver())
    async with trio.open_nursery() as nursery:
        stop = trio.CancelScope()
        is_over = trio.Event()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with stop:
                await kad.run(library, task_status=task_status)
            is_over.set()

        await nursery.start(run)
        stop.cancel()
        while not is_over.is_set():
            with suppress(KadFailed), trio.CancelScope() as given_up:
                given_up.cancel()  # so there is a question in every turn of the loop
                await kad.ask("a peer", b"a question")
            if not given_up.cancelled_caught:
                await trio.lowlevel.checkpoint()
    with pytest.raises(KadFailed, match="this node does not run"):
        await kad.ask("a peer", b"a question")
