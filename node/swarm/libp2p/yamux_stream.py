"""A yamux stream: the bytes that wait to be sent, those that were received, and what each side may still send.

A stream is read and written with waits, as libp2p's protocols do it; or it is attached, as the lanes are: then its data
is handed on by the connection's reader, and no task reads it. A stream writes nothing itself. It tells its connection
that it has something to send, and the connection takes the next frame when there is room for one.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from math import inf
from types import TracebackType

import trio
from libp2p.abc import IMuxedConn, IMuxedStream
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset

from node.swarm.libp2p.yamux_frame import DATA, FIN, HEADER, RST, WINDOW, WINDOW_UPDATE
from node.swarm.limit_counters import LimitCounters

QUEUED_BYTES_MAX = 256 * 1024
"""`write` waits while more bytes of the stream than this are queued."""
STALL_SECONDS = 10.0
"""A `write` that waits longer than this resets the stream."""


class StreamOwner(IMuxedConn):
    """The connection of a stream, as far as the stream uses it. `YamuxConnection` is the one implementation."""

    peer_id: ID
    limit_counters: LimitCounters
    unread: int
    """Bytes that were received on all streams and that are not read yet."""
    want: Callable[["YamuxStream"], None]
    """This stream has something to send."""
    answer: Callable[[int, int, int, int], None]
    """Queue a frame without a body: kind, flags, number of the stream, and length."""

    @abstractmethod
    def forget(self, stream: "YamuxStream") -> None:
        """The stream is over in both directions."""

    @abstractmethod
    def get_remote_address(self) -> tuple[str, int] | None: ...


class YamuxStream(IMuxedStream):
    """Among the streams that have something to send, the one with the smallest `rank` (0 to 2) goes first."""

    def __init__(self, mux: StreamOwner, number: int, rank: int = 1) -> None:
        self.muxed_conn = mux
        self.mux = mux
        self.number = number
        self.rank = rank
        self.queued = 0
        """Bytes that `offer` took and that are not written yet."""
        self.credit = WINDOW
        """Bytes that this side may still send."""
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
        self._is_fin_sent = False
        self._is_reset = False
        self._read_seconds = inf
        self._next_read_seconds = inf

    # For its users.

    def attach(self, sink: Callable[[bytes], None], on_end: Callable[[str], None]) -> None:
        """Call `sink` with all data, what has already come included, and `on_end` once, when the stream is over.

        Neither may wait. An exception of `sink` ends the connection.
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
        """Queue all of these bytes. The caller bounds `queued`, and offers nothing to a stream that is done."""
        for part in parts:
            self._out.append(part)
            self.queued += len(part)
        self.mux.want(self)

    @property
    def is_done(self) -> bool:
        """Nothing more can be sent on it."""
        return self._we_are_done or self._is_reset

    def expect(self, first_seconds: float, next_seconds: float) -> None:
        """How long a read waits for the first bytes, and each later read, before the stream is reset."""
        self._read_seconds, self._next_read_seconds = first_seconds, next_seconds

    async def read(self, n: int | None = None) -> bytes:
        """At least one byte, at most `n`; waits for it. Raises `MuxedStreamEOF` or `MuxedStreamReset`."""
        with trio.move_on_after(self._read_seconds) as scope:
            while not self._in:
                if self._is_reset:
                    raise MuxedStreamReset("the stream was reset")
                if self._peer_is_done:
                    raise MuxedStreamEOF("the stream was closed")
                await self._change()
        if scope.cancelled_caught:
            what = f"said nothing on a stream for {self._read_seconds:g} s"
            self.mux.limit_counters.hit("streams_slow", str(self.mux.peer_id), what)
            await self.reset()
            raise MuxedStreamReset(f"the peer {what}")
        self._read_seconds = self._next_read_seconds
        size = len(self._in) if n is None or n < 0 else n
        data = bytes(self._in[:size])
        del self._in[:size]
        self.mux.unread -= len(data)
        self._give_back(len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Queue `data`, all of it or nothing; waits while too much is queued. Raises `MuxedStreamError`."""
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
        """Write nothing more. Queued bytes still go out, and the peer may go on sending."""
        if not self.is_done:
            self._we_are_done = True
            self.mux.want(self)

    async def reset(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        """End the stream in both directions, at once."""
        if not self._is_reset:
            self.mux.answer(WINDOW_UPDATE, RST, self.number, 0)
            self.mux.forget(self)
            self.broke()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("yamux has no deadlines: the caller of a read or a write bounds its time")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.mux.get_remote_address()

    async def __aenter__(self) -> "YamuxStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # For its connection.

    @property
    def has_frame(self) -> bool:
        """Whether `take` has something that can be sent now."""
        return bool(self.queued and self.credit) or self._is_fin_due

    @property
    def _is_fin_due(self) -> bool:
        """The end has a frame of its own, behind all data: js-libp2p loses what is in one frame with it, and with the
        agreement on the protocol."""
        return self._we_are_done and not self.queued and not self._is_fin_sent

    def take(self, room: int) -> list[bytes | memoryview]:
        """The next frame in at most `room` bytes, header first; an empty list when nothing can be sent now."""
        ends = self._is_fin_due
        size = min(room - HEADER.size, self.credit, self.queued)
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
            self._is_fin_sent = True
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
        """Whether the peer may send so many more bytes."""
        return size <= self.granted and not self._peer_is_done

    def peer_is_done(self) -> None:
        """The peer will send nothing more."""
        self._peer_is_done = True
        self._forget_if_over()
        self._ended("the peer closed it")

    def broke(self) -> None:
        """The stream is over in both directions, by a reset or because its connection ended."""
        self._is_reset = True
        if not self.mux.is_closed:  # after the end of a connection, received data can still be read
            self.mux.unread -= len(self._in)
            self._in.clear()
        self._out.clear()
        self.queued = 0
        self._ended("it was reset")

    def _give_back(self, size: int) -> None:
        """Grant the peer more, but only once half of the window is consumed, because every grant is a frame."""
        self._consumed += size
        if self._consumed >= WINDOW // 2 and not self._peer_is_done and not self._is_reset:
            self.granted += self._consumed
            self.mux.answer(WINDOW_UPDATE, 0, self.number, self._consumed)
            self._consumed = 0

    def _forget_if_over(self) -> None:
        if self._peer_is_done and self._is_fin_sent:
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
