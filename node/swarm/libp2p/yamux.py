"""yamux: many streams over one connection (https://github.com/hashicorp/yamux/blob/master/spec.md).

libp2p's own muxer waits several times for each frame and answers nearly every read with a window update, which doubles
the frames of a round trip; it writes under locks that a cancelled caller can leave with half a frame sent; and it never
notices that the pong of a stopped peer is missing. This one speaks the same protocol with two tasks for a connection:

- the reader (here) handles all that came in one read, hands the data of attached streams on inline, and then at once
  writes what was queued in answer;
- the writer (`yamux_writer.py`) writes what other tasks queue, and waits when the kernel has no room.

A receive window is given back when half of it is consumed. A peer that sends more than it was granted loses the
connection. `tick`, once a second, pings a silent peer, and closes the connection when no answer comes.
"""

import logging

import trio
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from multiaddr import Multiaddr

from node.swarm.libp2p.noise import DecryptFailed, NoiseSession
from node.swarm.libp2p.tcp import TcpConnection
from node.swarm.libp2p.yamux_frame import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    PING,
    RST,
    SYN,
    WINDOW,
    WINDOW_UPDATE,
)
from node.swarm.libp2p.yamux_stream import StreamOwner, YamuxStream
from node.swarm.libp2p.yamux_writer import Stalled, YamuxWriter
from node.swarm.limit_counters import LimitCounters
from node.swarm.limits import USUAL, SwarmLimits

log = logging.getLogger(__name__)

PROTOCOL = "/yamux/1.0.0"
SILENT_TICKS_PING, SILENT_TICKS_MAX = 5, 8
"""Seconds without a byte from the peer until it is pinged, and until the connection is closed."""
REFUSED_MAX = 1024
"""Streams that were reset because there were too many; a peer that opens more of them on one connection breaks the
rules."""
TURN_SECONDS = 0.005
"""How long frames of a peer may be handled before other tasks get their turn, as far as that can be estimated."""
_CHUNK_BYTES_MIN, _CHUNK_BYTES, _CHUNK_BYTES_MAX = 2 * 1024, 32 * 1024, 1024 * 1024
_RECEIVE_BYTES = 128 * 1024


class _Ended(Exception):
    """The peer ended the connection; the message says how."""


class _BrokeRules(Exception):
    """The peer broke the protocol; the message says how."""


class YamuxConnection(StreamOwner):
    """One connection to one peer. `start` runs it; `abort` ends it from anywhere, at once."""

    def __init__(
        self,
        tcp: TcpConnection,
        noise: NoiseSession,
        peer_id: ID,
        *,
        is_initiator: bool,
        early: bytes = b"",
        limits: SwarmLimits = USUAL,
        limit_counters: LimitCounters | None = None,
    ) -> None:
        """`early` holds the bytes that came right after the handshake, decrypted."""
        self.tcp = tcp
        self.noise = noise
        self.peer_id = peer_id
        self.session_key = b""
        """The noise key of the other process, which is new at each of its starts."""
        self.limits = limits
        self.limit_counters = limit_counters or LimitCounters()
        self.unread = 0
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.reason = ""
        """Why it ended."""
        self.broke_rules = False
        """It ended because the peer broke the rules."""
        self.writer = YamuxWriter(tcp, noise, self.event_closed.is_set)
        self.want = self.writer.want
        self.answer = self.writer.answer
        self._initiator = is_initiator
        self._streams: dict[int, YamuxStream] = {}
        self._next = 1 if is_initiator else 2
        self._new_in, self._new_out = trio.open_memory_channel[YamuxStream](limits.streams_max)
        self._rest = early
        self._body: YamuxStream | None = None
        self._body_left = 0
        self._body_flags = 0
        self._chunk_bytes = _CHUNK_BYTES
        self._refused = 0
        self._has_heard = True
        self._silent_ticks = 0
        self._pings = 0
        self._pongs: dict[int, trio.Event] = {}

    # The interface of libp2p's muxed connections.

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
        return [Multiaddr(self.tcp.remote)] if self.tcp.remote else []

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.tcp.get_remote_address()

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT

    async def close(self) -> None:
        self.abort("closed by this side")

    async def open_stream(self, rank: int = 1) -> YamuxStream:
        """A new stream, usable at once; the peer may still reset it. Raises `MuxedConnUnavailable`."""
        if self.is_closed:
            raise MuxedConnUnavailable(self.reason)
        stream = YamuxStream(self, self._next, rank)
        self._next += 2
        self._streams[stream.number] = stream
        self.answer(WINDOW_UPDATE, SYN, stream.number, 0)
        return stream

    async def accept_stream(self) -> YamuxStream:
        """The next stream that the peer opened. Raises `MuxedConnUnavailable` when no more can come."""
        try:
            return await self._new_out.receive()
        except trio.EndOfChannel:
            raise MuxedConnUnavailable(self.reason) from None

    async def start(self) -> None:
        """Read and write until the connection ends. Raises nothing but `trio.Cancelled`."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                self.event_started.set()
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self.abort("this node stops")

    def abort(self, reason: str, *, broke_rules: bool = False) -> None:
        """End it now, without a wait, even when the peer does not read: close the socket and break all streams."""
        if self.is_closed:
            return
        self.reason = reason
        self.broke_rules = broke_rules
        self.event_closed.set()
        if not self.tcp.is_closed:
            self.answer(GO_AWAY, 0, 0, 0)
            self.writer.flush_quietly()
            self.tcp.abort()
        self._new_in.close()
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.broke()
        for pong in self._pongs.values():
            pong.set()

    def forget(self, stream: YamuxStream) -> None:
        self._streams.pop(stream.number, None)
        self.writer.forget(stream)

    # Keepalive.

    def tick(self) -> None:
        """Called once a second. It counts ticks, not seconds: when this process was frozen, the peer is not blamed."""
        self._silent_ticks = 0 if self._has_heard else self._silent_ticks + 1
        self._has_heard = False
        if self._silent_ticks >= SILENT_TICKS_MAX:
            self.abort(f"gave no sign of life for {SILENT_TICKS_MAX} s")
        elif self._silent_ticks >= SILENT_TICKS_PING:
            self._send_ping()

    async def ping(self, timeout: float) -> bool:
        """Whether the peer's end of the connection answers within `timeout` seconds."""
        number = self._send_ping()
        pong = self._pongs[number] = trio.Event()
        try:
            with trio.move_on_after(timeout):
                await pong.wait()
        finally:
            del self._pongs[number]
        return pong.is_set() and not self.is_closed

    def _send_ping(self) -> int:
        self._pings = (self._pings + 1) & 0xFFFFFFFF
        self.answer(PING, SYN, 0, self._pings)
        return self._pings

    # Writing.

    async def _write(self) -> None:
        try:
            await self.writer.run()
        except Stalled as error:
            self.limit_counters.hit("connections_stalled", str(self.peer_id), f"{error}, and loses its connection")
            self.abort(str(error))
        except (OSError, trio.ClosedResourceError) as error:
            self.abort(f"could not be written to: {error}")

    # Reading.

    async def _read(self) -> None:
        try:
            if self._rest:
                early, self._rest = self._rest, b""
                self._handle(early)
            while not self.is_closed:
                await self.tcp.readable()
                data = self.tcp.receive(_RECEIVE_BYTES)
                if data is None:
                    continue
                if not data:
                    raise _Ended("closed by the peer")
                self._has_heard = True
                await self._handle_in_chunks(self.noise.decrypt(data))
        except (_BrokeRules, DecryptFailed) as error:
            self.abort(str(error), broke_rules=True)
        except _Ended as error:
            self.abort(str(error))
        except (OSError, trio.ClosedResourceError) as error:
            self.abort(f"broke: {error}")
        except Exception:
            log.exception("what came from %s could not be handled", self.peer_id)
            self.abort("what came from it could not be handled")

    async def _handle_in_chunks(self, data: bytes) -> None:
        """Handle all of it, in chunks that shrink while one takes too long: one packet can hold ten thousand pings."""
        start = 0
        while start < len(data) and not self.is_closed:
            if start:
                await trio.lowlevel.checkpoint()
            began = trio.current_time()
            chunk = data[start : start + self._chunk_bytes]
            self._handle(chunk)
            start += len(chunk)
            seconds = trio.current_time() - began
            if seconds > TURN_SECONDS:
                self._chunk_bytes = max(_CHUNK_BYTES_MIN, len(chunk) // 2)
            elif seconds < TURN_SECONDS / 4:
                self._chunk_bytes = min(_CHUNK_BYTES_MAX, self._chunk_bytes * 2)

    def _handle(self, data: bytes) -> None:
        """Handle all frames in these bytes, and then write at once what was queued in answer to them."""
        writer = self.writer
        writer.is_held = True
        try:
            self._split(data)
        finally:
            writer.is_held = False
        if self.is_closed:
            return
        if len(writer.answers) > self.limits.answers_bytes_max:
            self.limit_counters.count("answers_unread")
            raise _BrokeRules("asks for more answers than it reads")
        if self.unread > self.limits.unread_bytes_max:
            self.limit_counters.count("unread_bytes")
            raise _BrokeRules(f"sent {self.unread:,} bytes that are not read yet")
        if not writer.flush():
            writer.wake()

    def _split(self, data: bytes) -> None:
        if self._rest:
            data, self._rest = self._rest + data, b""
        start, end = 0, len(data)
        while True:
            if self._body_left:
                stop = min(start + self._body_left, end)
                self._body_left -= stop - start
                if self._body is not None and stop > start:
                    self._body.deliver(data[start:stop] if start or stop < end else data)
                start = stop
                if self._body_left or self.is_closed:
                    return
                self._finish_frame()
            if end - start < HEADER.size:
                self._rest = data[start:]
                return
            version, kind, flags, number, length = HEADER.unpack_from(data, start)
            start += HEADER.size
            if version:
                raise _BrokeRules(f"speaks version {version} of yamux")
            if kind == DATA:
                self._begin_data(flags, number, length)
            elif kind == WINDOW_UPDATE:
                self._update_window(flags, number, length)
            elif kind == PING:
                self._pinged(flags, length)
            elif kind == GO_AWAY:
                raise _Ended("closed by the peer" if not length else f"closed by the peer with yamux code {length}")
            else:
                raise _BrokeRules(f"sent a yamux frame of type {kind}")

    def _begin_data(self, flags: int, number: int, length: int) -> None:
        stream = self._stream(flags, number)
        if stream is None:
            if length > WINDOW:
                raise _BrokeRules("sent more than a window on a stream that is not open")
        else:
            if not stream.accepts(length):
                raise _BrokeRules("sent more than it was granted")
            stream.granted -= length
        self._body, self._body_left, self._body_flags = stream, length, flags
        if not length:
            self._finish_frame()

    def _finish_frame(self) -> None:
        stream, flags = self._body, self._body_flags
        self._body = None
        if stream is not None and flags & (FIN | RST):
            self._end_stream(stream, flags)

    def _update_window(self, flags: int, number: int, length: int) -> None:
        stream = self._stream(flags, number)
        if stream is None:
            return
        stream.credit += length
        if stream.credit > 0xFFFFFFFF:
            raise _BrokeRules("grants more than a window can hold")
        if stream.queued:
            self.want(stream)
        if flags & (FIN | RST):
            self._end_stream(stream, flags)

    def _end_stream(self, stream: YamuxStream, flags: int) -> None:
        if flags & RST:
            self.forget(stream)
            stream.broke()
        else:
            stream.peer_is_done()

    def _stream(self, flags: int, number: int) -> YamuxStream | None:
        """The stream that a frame is about, opened now if the frame says so. None when it is gone or refused."""
        if not flags & SYN:
            return self._streams.get(number)
        if number in self._streams or number == 0 or bool(number & 1) == self._initiator:
            raise _BrokeRules(f"opened stream {number}, which is not its to open")
        stream = YamuxStream(self, number)
        try:
            if self._is_full():
                raise trio.WouldBlock
            self._new_in.send_nowait(stream)
        except trio.WouldBlock:
            self.limit_counters.hit(
                "streams_refused", str(self.peer_id), f"has {self.limits.streams_max} streams open already"
            )
            self._refused += 1
            if self._refused > REFUSED_MAX:
                raise _BrokeRules(f"opened {REFUSED_MAX:,} streams more than it may") from None
            self.answer(WINDOW_UPDATE, RST, number, 0)
            return None
        self._streams[number] = stream
        self.answer(WINDOW_UPDATE, ACK, number, 0)
        return stream

    def _is_full(self) -> bool:
        """Whether the peer has as many streams open as it may."""
        if len(self._streams) < self.limits.streams_max:
            return False
        theirs = sum(bool(number & 1) != self._initiator for number in self._streams)
        return theirs >= self.limits.streams_max

    def _pinged(self, flags: int, number: int) -> None:
        if flags & SYN:
            self.answer(PING, ACK, 0, number)
        elif (pong := self._pongs.get(number)) is not None:
            pong.set()
