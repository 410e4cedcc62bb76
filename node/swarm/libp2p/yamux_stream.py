"""A yamux stream: what is queued to go out, what came in, and what each side may still send.

Read and written with waits, as libp2p's protocols do it, or attached to, as the lanes are: then its data is handed on
inline, and it has no reader. Nothing here writes: a stream tells its connection that it wants to, and is asked for its
next frame when there is room for one.
"""

import struct
from collections import deque
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset

if TYPE_CHECKING:
    from node.swarm.libp2p.yamux import YamuxConnection

WINDOW = 256 * 1024
"""What each side may send on a new stream before it is granted more, in bytes: the protocol's own figure."""
QUEUED_BYTES_MAX = 256 * 1024
"""`write` waits while so much of its stream is queued."""
STALL_SECONDS = 10.0
"""A write that makes no way for so long ends its stream."""

HEADER = struct.Struct("!BBHII")
"""Of every frame: version (0), kind, flags, the stream's number, and a length or what stands for one."""
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


class YamuxStream(IMuxedStream):
    """Of those that want to send, the stream with the smallest `rank` (0 to 2) goes first."""

    def __init__(self, mux: "YamuxConnection", number: int, rank: int = 1) -> None:
        self.muxed_conn = mux
        self.mux = mux
        self.number = number
        self.rank = rank
        self.queued = 0
        """Bytes that `offer` took and that are not written yet."""
        self.credit = WINDOW
        """Bytes that we may still send."""
        self.granted = WINDOW
        """Bytes that the peer may still send."""
        self._out: deque[bytes] = deque()
        self._offset = 0
        self._consumed = 0
        self._in = bytearray()
        self._sink: Callable[[bytes], None] | None = None
        self._on_end: Callable[[str], None] | None = None
        self._changed: trio.Event | None = None
        self._peer_is_done = False
        self._we_are_done = False
        self._said_so = False
        self._is_reset = False
        self._patience = inf
        self._patience_later = inf

    # For whoever uses it.

    def attach(self, sink: Callable[[bytes], None], on_end: Callable[[str], None]) -> None:
        """Give all data, what is here already included, to `sink` as it comes; `on_end` hears once that it is over.

        Neither may wait. An exception that `sink` raises ends the connection.
        """
        self._sink, self._on_end = sink, on_end
        if self._in:
            data = bytes(self._in)
            self._in.clear()
            self.mux.unread -= len(data)
            self.deliver(data)
        if self._peer_is_done or self._is_reset:
            self._ended("the peer closed it")

    def offer(self, *parts: bytes) -> None:
        """Queue bytes, whole, and return. The caller keeps `queued` within its bounds, and off a stream that ended."""
        for part in parts:
            self._out.append(part)
            self.queued += len(part)
        self.mux.want(self)

    @property
    def is_done(self) -> bool:
        """Nothing can be sent on it any more."""
        return self._we_are_done or self._is_reset

    def expect(self, first_seconds: float, then_seconds: float) -> None:
        """How long a reader waits for the next bytes, and for those after them, before the stream is reset."""
        self._patience, self._patience_later = first_seconds, then_seconds

    async def read(self, n: int | None = None) -> bytes:
        """What is here, at most `n` bytes; waits for at least one. Raises `MuxedStreamEOF` or `MuxedStreamReset`."""
        with trio.move_on_after(self._patience) as scope:
            while not self._in:
                if self._is_reset:
                    raise MuxedStreamReset("the stream was reset")
                if self._peer_is_done:
                    raise MuxedStreamEOF("the stream was closed")
                await self._change()
        if scope.cancelled_caught:
            what = f"said nothing on a stream for {self._patience:g} s"
            self.mux.limit_counters.hit("streams_slow", str(self.mux.peer_id), what)
            await self.reset()
            raise MuxedStreamReset(f"the peer {what}")
        self._patience = self._patience_later
        size = len(self._in) if n is None or n < 0 else n
        data = bytes(self._in[:size])
        del self._in[:size]
        self.mux.unread -= len(data)
        self._give_back(len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Queue `data`, whole or not at all; waits while too much is queued. Raises `MuxedStreamError`."""
        with trio.move_on_after(STALL_SECONDS) as scope:
            while self.queued > QUEUED_BYTES_MAX and not self.is_done:
                await self._change()
        if self._is_reset:
            raise MuxedStreamReset("the stream was reset")
        if self._we_are_done:
            raise MuxedStreamError("the stream is closed for writing")
        if scope.cancelled_caught:
            what = f"read nothing on a stream for {STALL_SECONDS:g} s"
            self.mux.limit_counters.hit("streams_slow", str(self.mux.peer_id), what)
            await self.reset()
            raise MuxedStreamReset(f"the peer {what}")
        self.offer(data)

    async def close(self) -> None:
        """No more will be written; what is queued still goes out, and the peer may go on sending."""
        if not self.is_done:
            self._we_are_done = True
            self.mux.want(self)

    async def reset(self) -> None:
        """Forget the stream, both ways, at once."""
        if not self._is_reset:
            self.mux.answer(WINDOW_UPDATE, RST, self.number, 0)
            self.mux.forget(self)
            self.broke()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("yamux has no deadlines: whoever waits on a stream bounds the wait")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.mux.wire.get_remote_address()

    async def __aenter__(self) -> "YamuxStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # For its connection.

    def take(self, room: int) -> list[bytes | memoryview]:
        """The next frame, header first, in at most `room` bytes; nothing when there is nothing that may be sent."""
        size = min(room - HEADER.size, self.credit, self.queued)
        ends = self._we_are_done and size == self.queued and not self._said_so
        if size <= 0 and not ends:
            return []
        frame: list[bytes | memoryview] = [HEADER.pack(0, DATA, FIN if ends else 0, self.number, size)]
        left = size
        while left:
            first = self._out[0]
            rest = len(first) - self._offset
            if rest <= left:
                frame.append(memoryview(first)[self._offset :] if self._offset else first)
                self._out.popleft()
                self._offset = 0
                left -= rest
            else:
                frame.append(memoryview(first)[self._offset : self._offset + left])
                self._offset += left
                left = 0
        self.credit -= size
        self.queued -= size
        self._wake()
        if ends:
            self._said_so = True
            self._forget_if_over()
        return frame

    def deliver(self, data: bytes) -> None:
        """Data came, within what was granted."""
        if self._sink is None:
            self._in += data
            self.mux.unread += len(data)
            self._wake()
        else:
            self._give_back(len(data))
            self._sink(data)

    def accepts(self, size: int) -> bool:
        """Whether the peer may send so much more."""
        return size <= self.granted and not self._peer_is_done

    def peer_is_done(self) -> None:
        """The peer will send no more."""
        self._peer_is_done = True
        self._forget_if_over()
        self._ended("the peer closed it")

    def broke(self) -> None:
        """The stream is over, both ways, by a reset or by the end of its connection."""
        self._is_reset = True
        if not self.mux.is_closed:  # else a reader may still have what came before the end
            self.mux.unread -= len(self._in)
            self._in.clear()
        self._out.clear()
        self.queued = 0
        self._ended("it was reset")

    def _give_back(self, size: int) -> None:
        """Grant the peer more, but only once half of the window is consumed: every grant is a frame."""
        self._consumed += size
        if self._consumed >= WINDOW // 2 and not self._peer_is_done and not self._is_reset:
            self.granted += self._consumed
            self.mux.answer(WINDOW_UPDATE, 0, self.number, self._consumed)
            self._consumed = 0

    def _forget_if_over(self) -> None:
        if self._peer_is_done and self._said_so:
            self.mux.forget(self)

    def _ended(self, how: str) -> None:
        self._wake()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(how)

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
