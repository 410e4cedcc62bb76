"""Bare TCP connections: what an attacker writes to the port byte by byte, and how the other side takes it."""

import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator

import trio
import trio.socket

MULTISTREAM = "/multistream/1.0.0"
NOISE = "/noise"


def patient(seconds: float) -> float:
    """As long as this would be on a machine with nothing else to do: where more is to be done than can be, all wait."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Fell(Exception):
    """The target did not survive an attack, or did what it must not; the message says what."""


class Line:
    """One connection. Nothing here raises because the target hung up: that is its right."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock

    async def send(self, data: bytes) -> bool:
        """All of it; False when the target has hung up before it took the last byte."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[await self._sock.send(rest) :]
        except (OSError, trio.ClosedResourceError):
            return False
        return True

    async def read(self, size: int = 65536) -> bytes:
        """What came; b"" when the target has hung up."""
        try:
            return await self._sock.recv(size)
        except (OSError, trio.ClosedResourceError):
            return b""

    async def exactly(self, size: int) -> bytes:
        """That many bytes, or fewer when the target has hung up."""
        found = b""
        while len(found) < size and (more := await self.read(size - len(found))):
            found += more
        return found

    async def until_closed(self, seconds: float) -> bytes:
        """All that comes until the target hangs up. Raises `Fell` when it does not in time."""
        found = b""
        with trio.move_on_after(seconds):
            while more := await self.read():
                found += more
            return found
        raise Fell(f"the connection was still open after {seconds:g} s")

    def reset(self) -> None:
        """Hang up without a goodbye: the kernel sends RST and forgets what was under way."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def finish(self) -> None:
        """Say that no more will come, and go on reading."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()


@contextlib.asynccontextmanager
async def line(where: tuple[str, int], *, receive_bytes: int = 0) -> AsyncIterator[Line]:
    """A connection that is closed at the end. `receive_bytes`: how much the kernel may hold for us. Raises `Fell`."""
    found = await connect(where, receive_bytes=receive_bytes)
    try:
        yield found
    finally:
        found.close()


async def connect(where: tuple[str, int], *, receive_bytes: int = 0) -> Line:
    """A connection; its caller closes it. Raises `Fell` when the target takes none within five seconds."""
    host, port = where
    sock = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with trio.fail_after(5):
            await sock.connect((host, port))
    except (OSError, trio.TooSlowError) as error:
        sock.close()
        raise Fell(f"port {port} takes no connection: {error!r}") from error
    except BaseException:
        sock.close()
        raise
    return Line(sock)


def said(*texts: str) -> bytes:
    """Messages of multistream-select: a length of one or two bytes, the text, a line end."""
    return b"".join(prefixed(text.encode() + b"\n") for text in texts)


def prefixed(data: bytes) -> bytes:
    """Bytes after their length as an unsigned varint."""
    return varint(len(data)) + data


def varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
