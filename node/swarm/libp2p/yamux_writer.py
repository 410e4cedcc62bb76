"""The sending half of a yamux connection: frames of all streams, packed into noise packets and written to the socket.

Only `flush` writes, and it never waits, so that no cancelled caller can cut a frame short. All that is queued at a
flush leaves in as few packets as possible, frames of the streams with the smaller `rank` first.
"""

import contextlib
from collections.abc import Callable

import trio

from node.swarm.libp2p.noise import PLAIN_BYTES_MAX, NoiseSession
from node.swarm.libp2p.tcp import TcpConnection
from node.swarm.libp2p.yamux_frame import HEADER
from node.swarm.libp2p.yamux_stream import YamuxStream

STALL_SECONDS = 10.0
"""How long the kernel may take no byte before the connection ends."""
_PROMPT_BYTES = 4 * 1024
"""From this size on, the bytes of a stream are written at once, so that the peer works on them while other tasks here
have their turn."""
_FLUSH_BYTES = 512 * 1024
"""Bytes written in one flush, before other tasks have their turn."""


class Stalled(Exception):
    """The kernel took no byte for `STALL_SECONDS`."""


class YamuxWriter:
    """`want` and `answer` queue, `flush` writes. `run` writes what was queued when the kernel has room again."""

    def __init__(self, tcp: TcpConnection, noise: NoiseSession, is_over: Callable[[], bool]) -> None:
        self.is_held = False
        """While the reader handles frames, nothing is written; it flushes itself when it is done."""
        self.answers = bytearray()
        """Frames without a body, which go before all data."""
        self._tcp = tcp
        self._noise = noise
        self._is_over = is_over
        self._wanting: tuple[dict[YamuxStream, None], ...] = ({}, {}, {})
        """Streams that have something to send, by rank."""
        self._packet: memoryview | bytes = b""
        """What is left of the packet that is being written."""
        self._has_work = False
        self._idle = trio.lowlevel.ParkingLot()

    def want(self, stream: YamuxStream) -> None:
        """This stream has something to send. A packet's worth is written at once, smaller amounts together later."""
        self._wanting[stream.rank][stream] = None
        is_prompt = _PROMPT_BYTES <= stream.queued <= PLAIN_BYTES_MAX and not self.is_held and not self._packet
        if not is_prompt or not self.flush_quietly():
            self.wake()

    def answer(self, kind: int, flags: int, number: int, length: int) -> None:
        """Queue a frame without a body."""
        self.answers += HEADER.pack(0, kind, flags, number, length)
        self.wake()

    def forget(self, stream: YamuxStream) -> None:
        self._wanting[stream.rank].pop(stream, None)

    def wake(self) -> None:
        """Have `run` write."""
        if not self.is_held and not self._has_work:
            self._has_work = True
            self._idle.unpark()

    async def run(self) -> None:
        """Write until the connection is over. Raises `Stalled`, OSError or `trio.ClosedResourceError`."""
        while not self._is_over():
            if not self._has_work:
                await self._idle.park()
            self._has_work = False
            while not self.flush():
                self._has_work = True
                with trio.move_on_after(STALL_SECONDS) as scope:
                    await self._tcp.writable()
                if scope.cancelled_caught:
                    raise Stalled(f"took no byte for {STALL_SECONDS:g} s")
                self._has_work = False

    def flush(self) -> bool:
        """Write what is queued, in order of rank. False when some is left: the kernel has no room, or it is too much.

        It does not wait, so that no cancelled task can cut it short. That is why nothing else may write.
        """
        budget = _FLUSH_BYTES
        while budget > 0:
            if not self._packet:
                plain = self._gather()
                if not plain:
                    return True
                self._packet = memoryview(self._noise.encrypt(plain))
            taken = self._tcp.transmit(self._packet)
            if not taken:
                return False
            self._packet = self._packet[taken:]
            budget -= taken
        return False

    def flush_quietly(self) -> bool:
        """The same; an error is ignored, because the next flush of `run` or of the reader meets it again."""
        with contextlib.suppress(OSError, trio.ClosedResourceError):
            return self.flush()
        return False

    def _gather(self) -> bytes:
        """The frames of the next packet."""
        parts: list[bytes | memoryview] = [bytes(self.answers[:PLAIN_BYTES_MAX])] if self.answers else []
        room = PLAIN_BYTES_MAX - (len(parts[0]) if parts else 0)
        del self.answers[:PLAIN_BYTES_MAX]
        for rank in self._wanting:
            for stream in list(rank) if rank else ():
                if room <= HEADER.size:
                    break
                frame = stream.take(room)
                room -= sum(map(len, frame))
                parts += frame
                rank.pop(stream, None)
                if stream.has_frame:
                    rank[stream] = None
        return b"".join(parts)
