"""TCP connections of an attacker, and the encoding of multistream-select messages."""

import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator

import trio
import trio.socket

MULTISTREAM = "/multistream/1.0.0"
NOISE = "/noise"


def scaled_by_load(seconds: float) -> float:
    """`seconds` on an idle machine, and longer in proportion to the load, where all processes wait."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class TargetFailed(Exception):
    """The target did not survive an attack, or did something that it must not do; the message says what."""


class AttackConnection:
    """One connection. No method raises when the target hangs up, because it may."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock

    async def send(self, data: bytes) -> bool:
        """Send all of it. False when the target hung up before it took the last byte."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[await self._sock.send(rest) :]
        except (OSError, trio.ClosedResourceError):
            return False
        return True

    async def read(self, size: int = 65536) -> bytes:
        """The bytes that came; b"" when the target has hung up."""
        try:
            return await self._sock.recv(size)
        except (OSError, trio.ClosedResourceError):
            return b""

    async def exactly(self, size: int) -> bytes:
        """`size` bytes, or fewer when the target hangs up before."""
        found = b""
        while len(found) < size and (more := await self.read(size - len(found))):
            found += more
        return found

    async def until_closed(self, seconds: float) -> bytes:
        """All bytes until the target hangs up. Raises `TargetFailed` when it does not within `seconds`."""
        found = b""
        with trio.move_on_after(seconds):
            while more := await self.read():
                found += more
            return found
        raise TargetFailed(f"the connection was still open after {seconds:g} s")

    def reset(self) -> None:
        """Hang up with RST: the kernel drops what was not sent yet."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def finish(self) -> None:
        """Close for writing, and go on reading."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()


@contextlib.asynccontextmanager
async def connection(where: tuple[str, int], *, receive_bytes: int = 0) -> AsyncIterator[AttackConnection]:
    """A connection that is closed at the end of the block. Raises `TargetFailed` as `connect` does."""
    found = await connect(where, receive_bytes=receive_bytes)
    try:
        yield found
    finally:
        found.close()


async def connect(where: tuple[str, int], *, receive_bytes: int = 0) -> AttackConnection:
    """Connect; the caller closes the connection. Raises `TargetFailed` when the target takes none within five seconds.

    `receive_bytes` is the size of the kernel's receive buffer, if it is to be small.
    """
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
        raise TargetFailed(f"port {port} takes no connection: {error!r}") from error
    except BaseException:
        sock.close()
        raise
    return AttackConnection(sock)


def multistream(*texts: str) -> bytes:
    """Messages of multistream-select, each with its length and a line end."""
    return b"".join(prefixed(text.encode() + b"\n") for text in texts)


def prefixed(data: bytes) -> bytes:
    """The bytes, after their length as an unsigned varint."""
    return varint(len(data)) + data


def varint(number: int) -> bytes:
    """An unsigned varint (LEB128)."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
