"""yamux, lean: many streams over one connection (https://github.com/hashicorp/yamux/blob/master/spec.md).

libp2p's own muxer waits several times a frame and answers nearly every read with a window update, which doubles the
frames of a round trip; it writes under locks that a cancelled caller can leave with half a frame sent; and it never
misses the pong of a peer that stopped. This one speaks the same protocol with two tasks a connection:

- the reader handles all that came in one go, and hands a stream's data inline to whoever attached to it;
- the writer alone writes. All else appends to a queue, which cannot be cut short. What is queued when the writer comes
  by leaves as one packet, frames of the streams with the smaller `rank` first.

A receive window is given back when half of it was consumed, and a peer that sends more than it was granted loses the
connection. `tick`, once a second, asks a silent peer for a sign of life and gives it up when none comes.
"""

import contextlib
import logging
import struct
from collections import deque
from collections.abc import Callable
from enum import IntEnum, IntFlag
from types import TracebackType

import trio
from libp2p.abc import IMuxedConn, IMuxedStream
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from multiaddr import Multiaddr

from node.swarm.cipher import PLAIN_BYTES_MAX, Cipher, Forged
from node.swarm.wire import Wire

log = logging.getLogger(__name__)

PROTOCOL = "/yamux/1.0.0"
WINDOW = 256 * 1024
"""What each side may send on a new stream before it is granted more, in bytes: the protocol's own figure."""
STREAMS_MAX = 256
"""Streams that the peer opened and that are not done with; further ones are reset."""
QUEUED_BYTES_MAX = 256 * 1024
"""`write` waits while so much of its stream is queued."""
ANSWERS_BYTES_MAX = 64 * 1024
"""Acknowledgements and pongs that a peer provokes and does not read; more than that ends the connection."""
STALL_SECONDS = 10.0
"""A write that makes no way for so long ends its stream, and one that the kernel does not take ends the connection."""
SILENT_TICKS_ASK, SILENT_TICKS_MAX = 2, 5
_RECEIVE_BYTES = 128 * 1024
_FLUSH_BYTES = 512 * 1024
_HEADER = struct.Struct("!BBHII")


class _Type(IntEnum):
    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class _Flag(IntFlag):
    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


_DATA, _UPDATE, _PING, _GO_AWAY = (int(kind) for kind in _Type)
_SYN, _ACK, _FIN, _RST = (int(flag) for flag in _Flag)


class _Broken(Exception):
    """The peer broke the protocol, or its end came; the message says how."""


class MuxStream(IMuxedStream):
    """One stream. Read and written with waits, as libp2p's protocols do, or attached to, as the lanes are."""

    def __init__(self, mux: "Mux", number: int, rank: int = 1) -> None:
        self.muxed_conn = mux
        self.mux = mux
        self.number = number
        self.rank = rank
        self.queued = 0
        """Bytes that `offer` took and that are not written yet."""
        self._out: deque[bytes] = deque()
        self._offset = 0
        self._credit = WINDOW
        self._granted = WINDOW
        self._consumed = 0
        self._in = bytearray()
        self._sink: Callable[[bytes], None] | None = None
        self._on_end: Callable[[str], None] | None = None
        self._changed = trio.Event()
        self._no_more_in = False
        self._no_more_out = False
        self._told_no_more = False
        self._reset = False

    def attach(self, sink: Callable[[bytes], None], on_end: Callable[[str], None]) -> None:
        """Give all data, what is here already included, to `sink` as it comes; `on_end` hears once that it is over.

        Neither may wait. An exception that `sink` raises ends the connection.
        """
        self._sink, self._on_end = sink, on_end
        if self._in:
            data = bytes(self._in)
            self._in.clear()
            self._deliver(data)
        if self._no_more_in or self._reset:
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
        return self._no_more_out or self._reset

    async def read(self, n: int | None = None) -> bytes:
        """What is here, at most `n` bytes; waits for at least one. Raises `MuxedStreamEOF` or `MuxedStreamReset`."""
        while not self._in:
            if self._reset:
                raise MuxedStreamReset("the stream was reset")
            if self._no_more_in:
                raise MuxedStreamEOF("the stream was closed")
            await self._changed.wait()
        size = len(self._in) if n is None or n < 0 else n
        data = bytes(self._in[:size])
        del self._in[:size]
        self._give_back(len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Queue `data`, whole or not at all; waits while too much is queued. Raises `MuxedStreamError`."""
        with trio.move_on_after(STALL_SECONDS) as scope:
            while self.queued > QUEUED_BYTES_MAX and not self.is_done:
                await self._changed.wait()
        if self._reset:
            raise MuxedStreamReset("the stream was reset")
        if self._no_more_out:
            raise MuxedStreamError("the stream is closed for writing")
        if scope.cancelled_caught:
            await self.reset()
            raise MuxedStreamReset(f"the peer read nothing for {STALL_SECONDS:g} s")
        self.offer(data)

    async def close(self) -> None:
        """No more will be written; what is queued still goes out, and the peer may go on sending."""
        if not self.is_done:
            self._no_more_out = True
            self.mux.want(self)

    async def reset(self) -> None:
        """Forget the stream, both ways, at once."""
        if not self._reset:
            self.mux.answer(_UPDATE, _RST, self.number, 0)
            self.mux.forget(self)
            self._break()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("yamux has no deadlines: whoever waits on a stream bounds the wait")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.mux.wire.get_remote_address()

    async def __aenter__(self) -> "MuxStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # What the connection does with it.

    def _take(self, room: int) -> list[bytes | memoryview]:
        """The next frame, header first, in at most `room` bytes; nothing when there is nothing that may be sent."""
        size = min(room - _HEADER.size, self._credit, self.queued)
        ends = self._no_more_out and size == self.queued and not self._told_no_more
        if size <= 0 and not ends:
            return []
        frame: list[bytes | memoryview] = [_HEADER.pack(0, _DATA, _FIN if ends else 0, self.number, size)]
        left = size
        while left:
            head = self._out[0]
            rest = len(head) - self._offset
            if rest <= left:
                frame.append(memoryview(head)[self._offset :] if self._offset else head)
                self._out.popleft()
                self._offset = 0
                left -= rest
            else:
                frame.append(memoryview(head)[self._offset : self._offset + left])
                self._offset += left
                left = 0
        self._credit -= size
        self.queued -= size
        if size:
            self._wake()
        if ends:
            self._told_no_more = True
            self._forget_if_over()
        return frame

    def _deliver(self, data: bytes) -> None:
        if self._sink is None:
            self._in += data
            self._wake()
        else:
            self._give_back(len(data))
            self._sink(data)

    def _give_back(self, size: int) -> None:
        self._consumed += size
        if self._consumed >= WINDOW // 2 and not self._no_more_in and not self._reset:
            self._granted += self._consumed
            self.mux.answer(_UPDATE, 0, self.number, self._consumed)
            self._consumed = 0

    def _closed_by_peer(self) -> None:
        self._no_more_in = True
        self._forget_if_over()
        self._ended("the peer closed it")

    def _forget_if_over(self) -> None:
        if self._no_more_in and self._told_no_more:
            self.mux.forget(self)

    def _break(self) -> None:
        self._reset = True
        self._out.clear()
        self.queued = 0
        self._ended("it was reset")

    def _ended(self, how: str) -> None:
        self._wake()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(how)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class Mux(IMuxedConn):
    """One connection to one peer. `start` is its life; `abort` ends it from anywhere, at once."""

    def __init__(self, wire: Wire, cipher: Cipher, peer_id: ID, *, is_initiator: bool, early: bytes = b"") -> None:
        """`early` is what came behind the handshake, opened already."""
        self.wire = wire
        self.peer_id = peer_id
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.reason = ""
        """Why it ended."""
        self._cipher = cipher
        self._initiator = is_initiator
        self._streams: dict[int, MuxStream] = {}
        self._next = 1 if is_initiator else 2
        self._new_in, self._new_out = trio.open_memory_channel[MuxStream](STREAMS_MAX)
        self._rest = early
        self._body: MuxStream | None = None
        self._body_left = 0
        self._body_flags = 0
        self._answers = bytearray()
        self._wanting: tuple[dict[MuxStream, None], ...] = ({}, {}, {})
        self._sealed: memoryview | bytes = b""
        self._is_handling = False
        self._has_work = False
        self._idle_writer = trio.lowlevel.ParkingLot()
        self._has_heard = True
        self._silent_ticks = 0
        self._pings = 0
        self._pongs: dict[int, trio.Event] = {}

    # What libp2p asks of a muxed connection.

    @property
    def is_initiator(self) -> bool:
        return self._initiator

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self.is_closed

    @property
    def is_closed(self) -> bool:
        return self.event_closed.is_set()

    def get_transport_addresses(self) -> list[Multiaddr]:
        return [Multiaddr(self.wire.remote)] if self.wire.remote else []

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT

    async def close(self) -> None:
        self.abort("closed by this side")

    async def open_stream(self, rank: int = 1) -> MuxStream:
        """A stream of our own, usable at once; the peer may still reset it. Raises `MuxedConnUnavailable`."""
        if self.is_closed:
            raise MuxedConnUnavailable(self.reason)
        stream = MuxStream(self, self._next, rank)
        self._next += 2
        self._streams[stream.number] = stream
        self.answer(_UPDATE, _SYN, stream.number, 0)
        return stream

    async def accept_stream(self) -> MuxStream:
        """The next stream that the peer opened. Raises `MuxedConnUnavailable` when there will be none."""
        try:
            return await self._new_out.receive()
        except trio.EndOfChannel:
            raise MuxedConnUnavailable(self.reason) from None

    async def start(self) -> None:
        """Read and write until it ends; never raises but when cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                self.event_started.set()
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self.abort("this node stops")

    def abort(self, reason: str) -> None:
        """End it now, without a wait, even if the peer does not read: the socket closes, all streams break."""
        if self.is_closed:
            return
        self.reason = reason
        self.event_closed.set()
        if not self.wire.is_closed:
            self.answer(_GO_AWAY, 0, 0, 0)
            self._flush_quietly()
            self.wire.abort()
        self._new_in.close()
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream._break()
        for pong in self._pongs.values():
            pong.set()

    # Signs of life.

    def tick(self) -> None:
        """Called once a second. Ticks are counted, not seconds: were we frozen ourselves, nobody else is blamed."""
        self._silent_ticks = 0 if self._has_heard else self._silent_ticks + 1
        self._has_heard = False
        if self._silent_ticks >= SILENT_TICKS_MAX:
            self.abort(f"gave no sign of life for {SILENT_TICKS_MAX} s")
        elif self._silent_ticks >= SILENT_TICKS_ASK:
            self._ask()

    async def ping(self, timeout: float) -> bool:
        """Whether the peer's end of the connection answers within `timeout` seconds."""
        number = self._ask()
        pong = self._pongs[number] = trio.Event()
        try:
            with trio.move_on_after(timeout):
                await pong.wait()
        finally:
            del self._pongs[number]
        return pong.is_set() and not self.is_closed

    def _ask(self) -> int:
        self._pings = (self._pings + 1) & 0xFFFFFFFF
        self.answer(_PING, _SYN, 0, self._pings)
        return self._pings

    # Writing.

    def want(self, stream: MuxStream) -> None:
        """This stream has something to send."""
        self._wanting[stream.rank][stream] = None
        self._work()

    def answer(self, kind: int, flags: int, number: int, length: int) -> None:
        """Queue a frame without a body; these go before all data."""
        self._answers += _HEADER.pack(0, kind, flags, number, length)
        self._work()

    def forget(self, stream: MuxStream) -> None:
        """The stream is over, both ways."""
        self._streams.pop(stream.number, None)
        self._wanting[stream.rank].pop(stream, None)

    def _work(self) -> None:
        if not self._is_handling and not self._has_work:
            self._has_work = True
            self._idle_writer.unpark()

    async def _write(self) -> None:
        while not self.is_closed:
            if not self._has_work:
                await self._idle_writer.park()
            self._has_work = False
            try:
                while not self._flush():
                    self._has_work = True
                    with trio.move_on_after(STALL_SECONDS) as scope:
                        await self.wire.writable()
                    if scope.cancelled_caught:
                        self.abort(f"took no byte for {STALL_SECONDS:g} s")
                        return
                    self._has_work = False
            except (OSError, trio.ClosedResourceError) as error:
                self.abort(f"could not be written to: {error}")

    def _flush(self) -> bool:
        """Write what is queued, in order of rank. False when there is more, because the kernel has no room or for now.

        It is never cut short by a cancelled task, for it does not wait: that is why nobody else may write.
        """
        budget = _FLUSH_BYTES
        while budget > 0:
            if not self._sealed:
                plain = self._gather()
                if not plain:
                    return True
                self._sealed = memoryview(self._cipher.seal(plain))
            taken = self.wire.transmit(self._sealed)
            if not taken:
                return False
            self._sealed = self._sealed[taken:]
            budget -= taken
        return False

    def _flush_quietly(self) -> None:
        with contextlib.suppress(OSError):
            self._flush()

    def _gather(self) -> bytes:
        """What goes into the next packet: at most one packet's worth."""
        parts: list[bytes | memoryview] = [bytes(self._answers[:PLAIN_BYTES_MAX])] if self._answers else []
        room = PLAIN_BYTES_MAX - (len(parts[0]) if parts else 0)
        del self._answers[:PLAIN_BYTES_MAX]
        for rank in self._wanting:
            for stream in list(rank) if rank else ():
                if room <= _HEADER.size:
                    break
                frame = stream._take(room)
                room -= sum(map(len, frame))
                parts += frame
                rank.pop(stream, None)
                if stream.queued and stream._credit:
                    rank[stream] = None
        return b"".join(parts)

    # Reading.

    async def _read(self) -> None:
        try:
            if self._rest:
                early, self._rest = self._rest, b""
                self._handle(early)
            while not self.is_closed:
                await self.wire.readable()
                data = self.wire.receive(_RECEIVE_BYTES)
                if data is None:
                    continue
                if not data:
                    raise _Broken("closed by the peer")
                self._has_heard = True
                self._handle(self._cipher.open(data))
        except (_Broken, Forged) as error:
            self.abort(str(error))
        except (OSError, trio.ClosedResourceError) as error:
            self.abort(f"broke: {error}")
        except Exception:
            log.exception("what came from %s could not be handled", self.peer_id)
            self.abort("what came from it could not be handled")

    def _handle(self, data: bytes) -> None:
        """All frames in these bytes, and then at once whatever was queued in answer to them."""
        self._is_handling = True
        try:
            self._split(data)
        finally:
            self._is_handling = False
        if self.is_closed:
            return
        if len(self._answers) > ANSWERS_BYTES_MAX:
            raise _Broken("asks for more answers than it reads")
        if not self._flush():
            self._work()

    def _split(self, data: bytes) -> None:
        if self._rest:
            data, self._rest = self._rest + data, b""
        start, end = 0, len(data)
        while True:
            if self._body_left:
                stop = min(start + self._body_left, end)
                self._body_left -= stop - start
                if self._body is not None and stop > start:
                    self._body._deliver(data[start:stop] if start or stop < end else data)
                start = stop
                if self._body_left or self.is_closed:
                    return
                self._finish_frame()
            if end - start < _HEADER.size:
                self._rest = data[start:]
                return
            version, kind, flags, number, length = _HEADER.unpack_from(data, start)
            start += _HEADER.size
            if version:
                raise _Broken(f"speaks version {version} of yamux")
            if kind == _DATA:
                self._begin_data(flags, number, length)
            elif kind == _UPDATE:
                self._update(flags, number, length)
            elif kind == _PING:
                self._pinged(flags, length)
            elif kind == _GO_AWAY:
                raise _Broken("closed by the peer" if not length else f"closed by the peer with yamux code {length}")
            else:
                raise _Broken(f"sent a yamux frame of type {kind}")

    def _begin_data(self, flags: int, number: int, length: int) -> None:
        stream = self._stream(flags, number)
        if stream is None:
            if length > WINDOW:
                raise _Broken("sent more than a window on a stream that is not open")
        else:
            if length > stream._granted or stream._no_more_in:
                raise _Broken("sent more than it was granted")
            stream._granted -= length
        self._body, self._body_left, self._body_flags = stream, length, flags
        if not length:
            self._finish_frame()

    def _finish_frame(self) -> None:
        stream, flags = self._body, self._body_flags
        self._body = None
        if stream is not None and flags & (_FIN | _RST):
            self._ends(stream, flags)

    def _update(self, flags: int, number: int, length: int) -> None:
        stream = self._stream(flags, number)
        if stream is None:
            return
        stream._credit += length
        if stream._credit > 0xFFFFFFFF:
            raise _Broken("grants more than a window can hold")
        if stream.queued:
            self.want(stream)
        if flags & (_FIN | _RST):
            self._ends(stream, flags)

    def _ends(self, stream: MuxStream, flags: int) -> None:
        if flags & _RST:
            self.forget(stream)
            stream._break()
        else:
            stream._closed_by_peer()

    def _stream(self, flags: int, number: int) -> MuxStream | None:
        """The stream a frame is about, opened now if it says so. None when it is gone, or refused."""
        if not flags & _SYN:
            return self._streams.get(number)
        if number in self._streams or number == 0 or bool(number & 1) == self._initiator:
            raise _Broken(f"opened stream {number}, which is not its to open")
        stream = MuxStream(self, number)
        try:
            if sum(1 for open_ in self._streams if bool(open_ & 1) != self._initiator) >= STREAMS_MAX:
                raise trio.WouldBlock
            self._new_in.send_nowait(stream)
        except trio.WouldBlock:
            self.answer(_UPDATE, _RST, number, 0)
            return None
        self._streams[number] = stream
        self.answer(_UPDATE, _ACK, number, 0)
        return stream

    def _pinged(self, flags: int, number: int) -> None:
        if flags & _SYN:
            self.answer(_PING, _ACK, 0, number)
        elif (pong := self._pongs.get(number)) is not None:
            pong.set()
