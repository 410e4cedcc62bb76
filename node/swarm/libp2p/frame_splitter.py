"""Length-prefixed frames out of a stream of bytes: four bytes of length, big endian, and the body."""

from collections.abc import Callable

from node.swarm.base import FRAME_BYTES_MAX

LENGTH_BYTES = 4
_PIECE_BYTES = 64 * 1024
"""The size of the pieces in which an incomplete frame is kept. Small pieces would cost many times their own size, and
one large piece that grows leaves holes of megabytes in the allocator."""


class FrameSplitter:
    """Splits bytes into frames, wherever the bytes were cut."""

    def __init__(self, deliver: Callable[[bytes], None], refuse: Callable[[str], None]) -> None:
        """`deliver` gets the body of each frame. `refuse` gets the reason when a length is over the limit.

        Nothing of such a frame is kept, and nothing is delivered after it.
        """
        self._deliver = deliver
        self._refuse = refuse
        self._held: list[bytearray] = []
        self._wanted = 0
        self.held_bytes = 0
        """Bytes kept of an incomplete frame."""
        self.fed = 0
        """Bytes so far."""
        self.delivered = 0
        """Frames so far."""
        self.is_stopped = False

    def stop(self) -> None:
        """Deliver nothing more, and free the bytes that are kept."""
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
        while end - start >= LENGTH_BYTES and not self.is_stopped:
            body = start + LENGTH_BYTES
            size = int.from_bytes(data[start:body], "big")
            if size > FRAME_BYTES_MAX:
                self.is_stopped = True
                self._refuse(f"announced a frame of {size:,} bytes, and {FRAME_BYTES_MAX:,} is the most")
                return
            if body + size > end:
                self._wanted = LENGTH_BYTES + size
                break
            start = body + size
            self.delivered += 1
            self._deliver(data[body:start])
        else:
            self._wanted = LENGTH_BYTES
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
