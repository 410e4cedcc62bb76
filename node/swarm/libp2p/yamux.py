"""yamux, lean: many streams over one connection (https://github.com/hashicorp/yamux/blob/master/spec.md).

libp2p's own muxer waits several times a frame and answers nearly every read with a window update, which doubles the
frames of a round trip; it writes under locks that a cancelled caller can leave with half a frame sent; and it never
misses the pong of a peer that stopped. This one speaks the same protocol with two tasks a connection:

- the reader handles all that came in one go, hands a stream's data inline to whoever attached to it, and then at once
  writes what was queued in answer;
- the writer writes what others queue, and waits for the kernel when that has no room.

Only `_flush` writes, and it never waits, so that no cancelled caller can cut a frame short. What is queued when it
comes by leaves as one packet, frames of the streams with the smaller `rank` first.

A receive window is given back when half of it was consumed, and a peer that sends more than it was granted loses the
connection. `tick`, once a second, asks a silent peer for a sign of life and gives it up when none comes.
"""

import contextlib
import logging

import trio
from libp2p.abc import IMuxedConn
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from multiaddr import Multiaddr

from node.swarm.libp2p.noise import PLAIN_BYTES_MAX, Forged, NoiseCipher
from node.swarm.libp2p.tcp import TcpConnection
from node.swarm.libp2p.yamux_stream import (
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
    YamuxStream,
)
from node.swarm.limit_counters import LimitCounters
from node.swarm.limits import USUAL, SwarmLimits

log = logging.getLogger(__name__)

PROTOCOL = "/yamux/1.0.0"
STALL_SECONDS = 10.0
"""A connection whose kernel takes no byte for so long is over."""
SILENT_TICKS_ASK, SILENT_TICKS_MAX = 2, 5
"""Seconds without a byte from the peer after which it is asked for a sign of life, and given up."""
REFUSED_MAX = 1024
"""Streams that were reset for there being too many; more in one connection's life is no oversight."""
TURN_SECONDS = 0.005
"""How long a peer's frames may be handled before others get their turn, as far as that can be told beforehand."""
_BITE_BYTES_MIN, _BITE_BYTES, _BITE_BYTES_MAX = 2 * 1024, 32 * 1024, 1024 * 1024
_RECEIVE_BYTES = 128 * 1024
_PROMPT_BYTES = 4 * 1024
"""Not to be waited with: whoever gets it may work on it while others here have their turn."""
_FLUSH_BYTES = 512 * 1024


class _Over(Exception):
    """The connection's end came; the message says how."""


class _Broken(Exception):
    """The peer broke the protocol; the message says how."""


class YamuxConnection(IMuxedConn):
    """One connection to one peer. `start` is its life; `abort` ends it from anywhere, at once."""

    def __init__(
        self,
        wire: TcpConnection,
        cipher: NoiseCipher,
        peer_id: ID,
        *,
        is_initiator: bool,
        early: bytes = b"",
        limits: SwarmLimits = USUAL,
        limit_counters: LimitCounters | None = None,
    ) -> None:
        """`early` is what came behind the handshake, opened already."""
        self.wire = wire
        self.peer_id = peer_id
        self.limits = limits
        self.limit_counters = limit_counters or LimitCounters()
        self.unread = 0
        """Bytes that came on its streams and that nobody read yet."""
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.reason = ""
        """Why it ended."""
        self.is_broken = False
        """It ended because the peer broke the rules."""
        self._cipher = cipher
        self._initiator = is_initiator
        self._streams: dict[int, YamuxStream] = {}
        self._next = 1 if is_initiator else 2
        self._new_in, self._new_out = trio.open_memory_channel[YamuxStream](limits.streams_max)
        self._rest = early
        self._body: YamuxStream | None = None
        self._body_left = 0
        self._body_flags = 0
        self._bite_bytes = _BITE_BYTES
        self._refused = 0
        self._answers = bytearray()
        self._wanting: tuple[dict[YamuxStream, None], ...] = ({}, {}, {})
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

    async def open_stream(self, rank: int = 1) -> YamuxStream:
        """A stream of our own, usable at once; the peer may still reset it. Raises `MuxedConnUnavailable`."""
        if self.is_closed:
            raise MuxedConnUnavailable(self.reason)
        stream = YamuxStream(self, self._next, rank)
        self._next += 2
        self._streams[stream.number] = stream
        self.answer(WINDOW_UPDATE, SYN, stream.number, 0)
        return stream

    async def accept_stream(self) -> YamuxStream:
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

    def abort(self, reason: str, *, is_broken: bool = False) -> None:
        """End it now, without a wait, even if the peer does not read: the socket closes, all streams break."""
        if self.is_closed:
            return
        self.reason = reason
        self.is_broken = is_broken
        self.event_closed.set()
        if not self.wire.is_closed:
            self.answer(GO_AWAY, 0, 0, 0)
            self._flush_quietly()
            self.wire.abort()
        self._new_in.close()
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.broke()
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
        self.answer(PING, SYN, 0, self._pings)
        return self._pings

    # Writing.

    def want(self, stream: YamuxStream) -> None:
        """This stream has something to send: at once what is a good packet by itself, the rest together in a moment."""
        self._wanting[stream.rank][stream] = None
        is_good = _PROMPT_BYTES <= stream.queued <= PLAIN_BYTES_MAX and not self._is_handling and not self._sealed
        if not is_good or not self._flush_quietly():
            self._work()

    def answer(self, kind: int, flags: int, number: int, length: int) -> None:
        """Queue a frame without a body; these go before all data."""
        self._answers += HEADER.pack(0, kind, flags, number, length)
        self._work()

    def forget(self, stream: YamuxStream) -> None:
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
                        why = f"took no byte for {STALL_SECONDS:g} s"
                        self.limit_counters.hit(
                            "connections_stalled", str(self.peer_id), f"{why}, and loses its connection"
                        )
                        self.abort(why)
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

    def _flush_quietly(self) -> bool:
        """The same; an error is found again by whoever flushes next."""
        with contextlib.suppress(OSError, trio.ClosedResourceError):
            return self._flush()
        return False

    def _gather(self) -> bytes:
        """What goes into the next packet: at most one packet's worth."""
        parts: list[bytes | memoryview] = [bytes(self._answers[:PLAIN_BYTES_MAX])] if self._answers else []
        room = PLAIN_BYTES_MAX - (len(parts[0]) if parts else 0)
        del self._answers[:PLAIN_BYTES_MAX]
        for rank in self._wanting:
            for stream in list(rank) if rank else ():
                if room <= HEADER.size:
                    break
                frame = stream.take(room)
                room -= sum(map(len, frame))
                parts += frame
                rank.pop(stream, None)
                if stream.queued and stream.credit:
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
                    raise _Over("closed by the peer")
                self._has_heard = True
                await self._take(self._cipher.open(data))
        except (_Broken, Forged) as error:
            self.abort(str(error), is_broken=True)
        except _Over as error:
            self.abort(str(error))
        except (OSError, trio.ClosedResourceError) as error:
            self.abort(f"broke: {error}")
        except Exception:
            log.exception("what came from %s could not be handled", self.peer_id)
            self.abort("what came from it could not be handled")

    async def _take(self, data: bytes) -> None:
        """Handle all of it, in bites that shrink while one takes too long: ten thousand pings fit into one packet."""
        start = 0
        while start < len(data) and not self.is_closed:
            if start:
                await trio.lowlevel.checkpoint()
            began = trio.current_time()
            bite = data[start : start + self._bite_bytes]
            self._handle(bite)
            start += len(bite)
            seconds = trio.current_time() - began
            if seconds > TURN_SECONDS:
                self._bite_bytes = max(_BITE_BYTES_MIN, len(bite) // 2)
            elif seconds < TURN_SECONDS / 4:
                self._bite_bytes = min(_BITE_BYTES_MAX, self._bite_bytes * 2)

    def _handle(self, data: bytes) -> None:
        """All frames in these bytes, and then at once whatever was queued in answer to them."""
        self._is_handling = True
        try:
            self._split(data)
        finally:
            self._is_handling = False
        if self.is_closed:
            return
        if len(self._answers) > self.limits.answers_bytes_max:
            self.limit_counters.count("answers_unread")
            raise _Broken("asks for more answers than it reads")
        if self.unread > self.limits.unread_bytes_max:
            self.limit_counters.count("unread_bytes")
            raise _Broken(f"sent {self.unread:,} bytes that nobody read yet")
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
                raise _Broken(f"speaks version {version} of yamux")
            if kind == DATA:
                self._begin_data(flags, number, length)
            elif kind == WINDOW_UPDATE:
                self._update(flags, number, length)
            elif kind == PING:
                self._pinged(flags, length)
            elif kind == GO_AWAY:
                raise _Over("closed by the peer" if not length else f"closed by the peer with yamux code {length}")
            else:
                raise _Broken(f"sent a yamux frame of type {kind}")

    def _begin_data(self, flags: int, number: int, length: int) -> None:
        stream = self._stream(flags, number)
        if stream is None:
            if length > WINDOW:
                raise _Broken("sent more than a window on a stream that is not open")
        else:
            if not stream.accepts(length):
                raise _Broken("sent more than it was granted")
            stream.granted -= length
        self._body, self._body_left, self._body_flags = stream, length, flags
        if not length:
            self._finish_frame()

    def _finish_frame(self) -> None:
        stream, flags = self._body, self._body_flags
        self._body = None
        if stream is not None and flags & (FIN | RST):
            self._ends(stream, flags)

    def _update(self, flags: int, number: int, length: int) -> None:
        stream = self._stream(flags, number)
        if stream is None:
            return
        stream.credit += length
        if stream.credit > 0xFFFFFFFF:
            raise _Broken("grants more than a window can hold")
        if stream.queued:
            self.want(stream)
        if flags & (FIN | RST):
            self._ends(stream, flags)

    def _ends(self, stream: YamuxStream, flags: int) -> None:
        if flags & RST:
            self.forget(stream)
            stream.broke()
        else:
            stream.peer_is_done()

    def _stream(self, flags: int, number: int) -> YamuxStream | None:
        """The stream a frame is about, opened now if it says so. None when it is gone, or refused."""
        if not flags & SYN:
            return self._streams.get(number)
        if number in self._streams or number == 0 or bool(number & 1) == self._initiator:
            raise _Broken(f"opened stream {number}, which is not its to open")
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
                raise _Broken(f"opened {REFUSED_MAX:,} streams more than it may") from None
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
