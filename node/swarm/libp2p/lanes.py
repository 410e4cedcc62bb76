"""The lanes of one connection: two long-lived streams that carry whole frames in both directions.

The first frame of a stream, in each direction, is one byte: the lane. Bytes of the small lane always leave before those
of the bulk lane, so that a megabyte delays a small frame by at most one packet. A frame is queued whole or not at all.
A received frame is handed to the receiver by the reader of the connection, without a switch between tasks.
"""

import logging
from collections.abc import Callable

from node.swarm.base import Lane
from node.swarm.libp2p.frame_splitter import LENGTH_BYTES, FrameSplitter
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_stream import YamuxStream

log = logging.getLogger(__name__)

RANK = {Lane.SMALL: 0, Lane.BULK: 2}


class Lanes:
    """Both lanes of a connection, made when both streams are open."""

    def __init__(self, mux: YamuxConnection, streams: dict[Lane, YamuxStream]) -> None:
        self.mux = mux
        self._streams = streams
        self._splitters: list[FrameSplitter] = []
        self._queue_bytes_max = {
            Lane.SMALL: mux.limits.small_queue_bytes_max,
            Lane.BULK: mux.limits.bulk_queue_bytes_max,
        }
        self.unfinished_seconds = 0
        """The age of the oldest incomplete frame."""
        self._fed = 0
        self._delivered: list[int] = []
        self._stalled_seconds = 0
        for lane, stream in streams.items():
            stream.rank = RANK[lane]

    def start(self, received: Callable[[Lane, bytes], None]) -> None:
        """Call `received` with each frame from now on, those that have already come included."""
        for lane, stream in self._streams.items():
            splitter = FrameSplitter(_guarded(received, lane), self._refuse)
            self._splitters.append(splitter)
            stream.attach(splitter.feed, self._ended)

    def send(self, lane: Lane, frame: bytes) -> bool:
        """Queue a frame. False when the queue is full or the connection has ended."""
        stream = self._streams[lane]
        if stream.queued >= self._queue_bytes_max[lane]:
            what = f"reads too slowly: {stream.queued:,} bytes wait for it on the {lane.name.lower()} lane"
            self.mux.limit_counters.hit("frames_not_queued", str(self.mux.peer_id), what)
            return False
        if stream.is_done:
            return False
        stream.offer(len(frame).to_bytes(LENGTH_BYTES, "big"), frame)
        return True

    @property
    def unfinished_bytes(self) -> int:
        """Bytes kept of incomplete frames."""
        return sum(splitter.held_bytes for splitter in self._splitters)

    def tick(self) -> None:
        """Called once a second: a peer that begins a frame and does not end it loses the connection."""
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
        """Close the connection because of its incomplete frames."""
        if not self.mux.is_closed:
            self.mux.limit_counters.hit("frames_stalled", str(self.mux.peer_id), why)
            self.mux.abort(why)

    def _refuse(self, why: str) -> None:
        self.mux.limit_counters.count("frames_too_long")
        self.mux.abort(why, broke_rules=True)

    def _ended(self, how: str) -> None:
        """One lane has ended, which ends both. No further frame is delivered, not even one that has come."""
        for splitter in self._splitters:
            splitter.stop()
        self.mux.abort(f"a lane is over: {how}")


def _guarded(received: Callable[[Lane, bytes], None], lane: Lane) -> Callable[[bytes], None]:
    """The receiver must not raise. When it does, that frame is lost, and nothing else."""

    def deliver(frame: bytes) -> None:
        try:
            received(lane, frame)
        except Exception:
            log.exception("a frame of %d bytes could not be received", len(frame))

    return deliver


async def name_lane(stream: YamuxStream, lane: Lane) -> None:
    """Write the first frame."""
    await stream.write((1).to_bytes(LENGTH_BYTES, "big") + bytes([lane]))


async def read_lane(stream: YamuxStream) -> Lane:
    """Read the first frame, and not one byte more. Raises ValueError for anything else."""
    first = b""
    while len(first) < LENGTH_BYTES + 1:
        first += await stream.read(LENGTH_BYTES + 1 - len(first))
    if first[:LENGTH_BYTES] != (1).to_bytes(LENGTH_BYTES, "big"):
        raise ValueError("the first frame of a stream must name its lane")
    return Lane(first[-1])
