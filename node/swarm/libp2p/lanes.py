"""The lanes of one connection: two long-lived streams that carry whole frames both ways.

A frame is its length, four bytes big endian, and its body. The first frame of a stream, in each direction, is one
byte: the lane. The small lane's bytes always leave before the bulk lane's, so that a megabyte delays a small frame by
one packet and no more. A frame is queued whole or not at all, and it is handed to the receiver from the connection's
reader, without a switch between tasks.
"""

import logging
from collections.abc import Callable

from node.swarm.base import FRAME_BYTES_MAX, Lane
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_stream import YamuxStream

log = logging.getLogger(__name__)

RANK = {Lane.SMALL: 0, Lane.BULK: 2}

_LENGTH_BYTES = 4
_PIECE_BYTES = 64 * 1024
"""How much of an unfinished frame is kept in one piece: small ones would cost many times their size, and a large one
that grows leaves the allocator with holes of megabytes."""


class Splitter:
    """Frames out of bytes, however the bytes are cut."""

    def __init__(self, deliver: Callable[[bytes], None], refuse: Callable[[str], None]) -> None:
        """`refuse` hears of a length that is over the limit before anything of that frame is kept; then it is over."""
        self._deliver = deliver
        self._refuse = refuse
        self._held: list[bytearray] = []
        self._wanted = 0
        self.held_bytes = 0
        """Of a frame that has begun and is not here whole."""
        self.fed = 0
        """Bytes so far."""
        self.delivered = 0
        """Frames so far."""
        self.is_stopped = False

    def stop(self) -> None:
        """Deliver nothing more, and give back what is held: whoever holds on to this holds no frame."""
        self.is_stopped = True
        self._release()

    def feed(self, data: bytes) -> None:
        self.fed += len(data)
        if self._held:
            self._hold(data)
            if self.held_bytes < self._wanted:
                return
            data = b"".join(self._held)
            self._release()
        start, end = 0, len(data)
        while end - start >= _LENGTH_BYTES and not self.is_stopped:
            body = start + _LENGTH_BYTES
            size = int.from_bytes(data[start:body], "big")
            if size > FRAME_BYTES_MAX:
                self.is_stopped = True
                self._refuse(f"announced a frame of {size:,} bytes, and {FRAME_BYTES_MAX:,} is the most")
                return
            if body + size > end:
                self._wanted = _LENGTH_BYTES + size
                break
            start = body + size
            self.delivered += 1
            self._deliver(data[body:start])
        else:
            self._wanted = _LENGTH_BYTES
        if start < end and not self.is_stopped:
            self._hold(data[start:] if start else data)

    def _hold(self, data: bytes) -> None:
        if self._held and len(self._held[-1]) < _PIECE_BYTES:
            self._held[-1] += data
        else:
            self._held.append(bytearray(data))
        self.held_bytes += len(data)

    def _release(self) -> None:
        self._held.clear()
        self.held_bytes = 0


class Lanes:
    """Both lanes of a connection, from the moment both are known."""

    def __init__(self, mux: YamuxConnection, streams: dict[Lane, YamuxStream]) -> None:
        self.mux = mux
        self._streams = streams
        self._splitters: list[Splitter] = []
        self._queue_bytes_max = {
            Lane.SMALL: mux.limits.small_queue_bytes_max,
            Lane.BULK: mux.limits.bulk_queue_bytes_max,
        }
        self.unfinished_seconds = 0
        """For how long the frame that takes longest has been on its way."""
        self._fed = 0
        self._delivered: list[int] = []
        self._stalled_seconds = 0
        for lane, stream in streams.items():
            stream.rank = RANK[lane]

    def start(self, received: Callable[[Lane, bytes], None]) -> None:
        """Hand frames to `received` from now on, those first that are here already."""
        for lane, stream in self._streams.items():
            splitter = Splitter(_guarded(received, lane), self._refuse)
            self._splitters.append(splitter)
            stream.attach(splitter.feed, self._ended)

    def send(self, lane: Lane, frame: bytes) -> bool:
        """Queue a frame; False when the queue is full or the connection over."""
        stream = self._streams[lane]
        if stream.queued >= self._queue_bytes_max[lane]:
            what = f"reads too slowly: {stream.queued:,} bytes wait for it on the {lane.name.lower()} lane"
            self.mux.limit_counters.hit("frames_not_queued", str(self.mux.peer_id), what)
            return False
        if stream.is_done:
            return False
        stream.offer(len(frame).to_bytes(_LENGTH_BYTES, "big"), frame)
        return True

    @property
    def unfinished_bytes(self) -> int:
        """What is kept of frames that are not here whole."""
        return sum(splitter.held_bytes for splitter in self._splitters)

    def tick(self) -> None:
        """Called once a second: who begins a frame ends it, or loses the connection."""
        fed = sum(splitter.fed for splitter in self._splitters)
        delivered = [splitter.delivered for splitter in self._splitters]
        is_same = any(
            splitter.held_bytes and before == splitter.delivered
            for splitter, before in zip(self._splitters, self._delivered, strict=False)
        )
        self.unfinished_seconds = self.unfinished_seconds + 1 if is_same else 0
        self._stalled_seconds = self._stalled_seconds + 1 if fed == self._fed and self.unfinished_bytes else 0
        self._fed, self._delivered = fed, delivered
        if self._stalled_seconds >= self.mux.limits.frame_stall_seconds:
            self.give_up(f"began a frame and sent nothing more of it for {self._stalled_seconds} s")
        elif self.unfinished_seconds >= self.mux.limits.frame_seconds:
            self.give_up(f"began a frame {self.unfinished_seconds} s ago and has not ended it")

    def give_up(self, why: str) -> None:
        """The connection is not worth what its unfinished frames cost."""
        if not self.mux.is_closed:
            self.mux.limit_counters.hit("frames_stalled", str(self.mux.peer_id), why)
            self.mux.abort(why)

    def _refuse(self, why: str) -> None:
        self.mux.limit_counters.count("frames_too_long")
        self.mux.abort(why, is_broken=True)

    def _ended(self, how: str) -> None:
        """One lane is over, so both are: no further frame is handed over, not even one that is here."""
        for splitter in self._splitters:
            splitter.stop()
        self.mux.abort(f"a lane is over: {how}")


def _guarded(received: Callable[[Lane, bytes], None], lane: Lane) -> Callable[[bytes], None]:
    """The receiver promises not to raise. Should it, the frame is lost, and nobody else's."""

    def deliver(frame: bytes) -> None:
        try:
            received(lane, frame)
        except Exception:
            log.exception("a frame of %d bytes could not be received", len(frame))

    return deliver


async def name_lane(stream: YamuxStream, lane: Lane) -> None:
    """Write the first frame."""
    await stream.write((1).to_bytes(_LENGTH_BYTES, "big") + bytes([lane]))


async def read_lane(stream: YamuxStream) -> Lane:
    """Read the first frame, and not one byte more. Raises ValueError for anything else."""
    first = b""
    while len(first) < _LENGTH_BYTES + 1:
        first += await stream.read(_LENGTH_BYTES + 1 - len(first))
    if first[:_LENGTH_BYTES] != (1).to_bytes(_LENGTH_BYTES, "big"):
        raise ValueError("the first frame of a stream must name its lane")
    return Lane(first[-1])
