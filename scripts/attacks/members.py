"""Attackers within the store protocol: members that say hello, and then send arbitrary messages."""

from collections.abc import Callable
from typing import Any

import trio
from libp2p.custom_types import TProtocol

from attacks.connections import TargetFailed, scaled_by_load
from attacks.honest_peers import make_envelope, now_ms
from attacks.intruders import HANDSHAKE_SECONDS, Intruder
from attacks.target import AttackTarget
from node.swarm.base import Lane
from node.swarm.libp2p.frame_splitter import FrameSplitter
from node.swarm.libp2p.host import PROTOCOL
from node.swarm.libp2p.lanes import RANK, name_lane, read_lane
from node.swarm.libp2p.multistream import propose
from node.swarm.libp2p.yamux_stream import YamuxStream
from protocols import message_codec
from protocols.envelope import Envelope
from protocols.keys import PrivateKey
from protocols.messages import (
    EnvelopesReply,
    GetByDigest,
    GetHeads,
    GetMembers,
    GetVersions,
    HeadsReply,
    Hello,
    MembersReply,
    Merge,
    MergeReply,
    Ping,
    Pong,
    Reply,
    Request,
    VersionsReply,
)

_PROTOCOL = TProtocol(PROTOCOL)
MakeReply = Callable[[Request, Reply | None], Reply | None]
"""The reply of a member to a request, given the honest reply; None sends no reply."""

REQUEST_SECONDS = 5.0


class AttackMember:
    """An intruder with both lanes. Its peer id comes before the target's, so that it has to open them."""

    def __init__(
        self, intruder: Intruder, key: PrivateKey, target: AttackTarget, make_reply: MakeReply | None = None
    ) -> None:
        """The muxer of `intruder` must run."""
        self.intruder = intruder
        self.key = key
        self.replies = 0
        """How many replies have come."""
        self._target = target
        self._make_reply = make_reply or (lambda request, honest: honest)
        self._lanes: dict[Lane, YamuxStream] = {}
        self._number = 0
        self._answers: dict[int, Reply] = {}
        self._received_more = trio.Event()

    @property
    def is_over(self) -> bool:
        return self.intruder.mux.is_closed

    async def open_lanes(self, *, is_reading: bool = True) -> None:
        """Open both lanes. Without `is_reading` nothing is read from them. Raises `TargetFailed`."""
        try:
            with trio.fail_after(scaled_by_load(HANDSHAKE_SECONDS)):
                for lane in Lane:
                    stream = await self.intruder.mux.open_stream(RANK[lane])
                    await propose(stream, _PROTOCOL)
                    await name_lane(stream, lane)
                    if await read_lane(stream) is not lane:
                        raise TargetFailed("the target named another lane than this side")
                    self._lanes[lane] = stream
        except TargetFailed:
            raise
        except Exception as error:
            raise TargetFailed(f"the lanes of a member were not opened: {error!r}") from error
        if is_reading:
            for stream in self._lanes.values():
                stream.attach(FrameSplitter(self._received, lambda why: None).feed, lambda how: self._wake())

    async def say_hello(self) -> None:
        """Say hello. Raises `TargetFailed` when the answer is no hello."""
        reply = await self.ask(self.hello())
        if not isinstance(reply, Hello):
            raise TargetFailed(f"hello was answered with {reply}")

    def hello(self, *, network: str = "", name: str = "member", addresses: tuple[str, ...] = ()) -> Hello:
        return Hello(network or self._target.network, name, "", now_ms(), addresses)

    async def send(self, data: bytes, lane: Lane = Lane.SMALL) -> bool:
        """Send a frame with this body, valid or not; waits while much is queued. False when the lane is over."""
        return await self.send_raw(len(data).to_bytes(4, "big") + data, lane)

    async def send_raw(self, data: bytes, lane: Lane = Lane.SMALL) -> bool:
        """Send bytes on a lane, frames or not. False when the lane is over."""
        try:
            await self._lanes[lane].write(data)
        except Exception:
            return False
        return True

    async def ask(self, request: Request, lane: Lane = Lane.SMALL) -> Reply:
        """Send a request and wait for its reply. Raises `TargetFailed` when none comes within five seconds."""
        self._number += 1
        number = self._number
        await self.send(message_codec.encode_request(number, request), lane)
        await self.until(lambda: number in self._answers, f"a {type(request).__name__} was not answered")
        return self._answers.pop(number)

    async def write(self, content: bytes, *, parents: tuple[bytes, ...] = ()) -> Envelope:
        """Write a version and return it, committed by the target. Raises `TargetFailed`."""
        envelope = make_envelope(self.key, content, path=f"of/{self._number}", parents=parents)
        reply = await self.ask(Merge((envelope.encoded,)), Lane.BULK)
        if not isinstance(reply, MergeReply) or reply[:2] != (1, ()):
            raise TargetFailed(f"a member's version was not accepted: {reply}")
        return envelope

    def stop_reading(self, *, socket_too: bool) -> None:
        """Read nothing more from the lanes, and with `socket_too` nothing from the socket."""
        self.intruder.tcp.is_paused = socket_too
        for stream in self._lanes.values():
            stream.attach(lambda data: None, lambda how: None)
            # Private: no honest code receives data and grants no window for it.
            stream._give_back = lambda size: None  # type: ignore[method-assign]

    async def until(self, condition: Callable[[], bool], what: str, *, seconds: float = REQUEST_SECONDS) -> None:
        """Wait for a condition. Raises `TargetFailed` with `what` after `seconds`, or when the connection ends."""
        with trio.move_on_after(scaled_by_load(seconds)):
            while not condition():
                if self.is_over:
                    raise TargetFailed(f"{what}: {self.intruder.mux.reason}")
                await self._received_more.wait()
            return
        raise TargetFailed(f"{what} within {seconds:g} s")

    async def until_answered(self, count: int, *, seconds: float = REQUEST_SECONDS) -> None:
        """Wait until so many replies have come in all. Raises `TargetFailed`."""
        await self.until(lambda: self.replies >= count, f"no {count} answers came", seconds=seconds)

    async def until_over(self, seconds: float = 5.0) -> None:
        """Wait until the target closes the connection. Raises `TargetFailed` when it does not in time."""
        with trio.move_on_after(seconds):
            await self.intruder.mux.event_closed.wait()
            return
        raise TargetFailed(f"a member that broke the rules was still connected after {seconds:g} s")

    def _honest(self, request: Request) -> Reply | None:
        match request:
            case Hello():
                return self.hello()
            case Ping():
                return Pong(now_ms(), 0, 0)
            case GetMembers():
                return MembersReply(())
            case GetHeads():
                return HeadsReply((), ())
            case GetVersions():
                return VersionsReply((), 0, 0)
            case GetByDigest():
                return EnvelopesReply(())
            case _:
                return None

    def _received(self, data: bytes) -> None:
        decoded = message_codec.decode(data)
        if decoded.is_reply:
            self.replies += 1
            if decoded.id <= self._number:
                self._answers[decoded.id] = decoded.message  # type: ignore[assignment]  # what is_reply is a Reply
        else:
            request: Any = decoded.message
            reply = self._make_reply(request, self._honest(request))
            stream = self._lanes[Lane.SMALL]
            if reply is not None and not stream.is_done:
                body = message_codec.encode_reply(decoded.id, reply)
                stream.offer(len(body).to_bytes(4, "big"), body)
        self._wake()

    def _wake(self) -> None:
        self._received_more.set()
        self._received_more = trio.Event()
