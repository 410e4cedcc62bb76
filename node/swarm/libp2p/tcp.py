"""A TCP connection: what libp2p reads and writes during its handshakes, and what the lean path uses after them.

The socket is ours and does not block. `receive` and `transmit` do one system call each and never wait, so that bytes
that came can be handled, and answers written, without a switch between tasks; whoever has to wait does so with
`readable` and `writable`. `abort` ends it at once, whatever it is doing.
"""

import errno
import os
import socket

import trio
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError

_READ_BYTES_MAX = 64 * 1024


class TcpConnection(ReadWriteCloser):
    """Takes the socket over: it is closed when the wire is. Raises OSError when it is useless already."""

    def __init__(self, sock: socket.socket) -> None:
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            raise
        self._sock = sock
        self._remote = _host_and_port(sock)
        self.is_closed = False

    def receive(self, size: int) -> bytes | None:
        """Up to `size` bytes that are here already; None when there are none yet, b"" at the end. Raises OSError."""
        try:
            return self._sock.recv(size)
        except BlockingIOError:
            return None

    def transmit(self, data: bytes | memoryview) -> int:
        """How many of these bytes the kernel took: 0 when it has no room. Raises OSError."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    async def readable(self) -> None:
        """Raises `trio.ClosedResourceError` when the wire is aborted meanwhile."""
        await trio.lowlevel.wait_readable(self._sock)

    async def writable(self) -> None:
        """Raises `trio.ClosedResourceError` when the wire is aborted meanwhile."""
        await trio.lowlevel.wait_writable(self._sock)

    def abort(self) -> None:
        """Close the socket now. The kernel still tells the other side; nobody here waits for that."""
        if not self.is_closed:
            self.is_closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def read(self, n: int | None = None) -> bytes:
        """At least one byte, at most `n`. Raises `ConnectionClosedError` at the end, as libp2p's own streams do."""
        try:
            while True:
                await self.readable()
                data = self.receive(_READ_BYTES_MAX if n is None else min(n, _READ_BYTES_MAX))
                if data:
                    return data
                if data is not None:
                    raise ConnectionClosedError("closed by the other side")
        except (OSError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(str(error) or "closed by this side") from error

    async def write(self, data: bytes) -> None:
        """All of it. For handshakes alone: a write that is cancelled half-way leaves the connection useless."""
        rest = memoryview(data)
        try:
            while rest:
                taken = self.transmit(rest)
                rest = rest[taken:]
                if not taken:
                    await self.writable()
        except (OSError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(str(error) or "closed by this side") from error

    async def close(self) -> None:
        self.abort()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._remote

    @property
    def host(self) -> str:
        """The other end's IP address, or '' when it was gone before it could be asked."""
        return self._remote[0] if self._remote else ""

    @property
    def remote(self) -> str:
        """The other end as a multiaddr, or '' when it was gone before it could be asked."""
        if self._remote is None:
            return ""
        host, port = self._remote
        return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}"


async def connect(family: int, host: str, port: int) -> TcpConnection:
    """A connection to an IP address. Raises OSError; when cancelled, nothing is left open."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex((host, port))
        if code == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        return TcpConnection(sock)
    except BaseException:
        sock.close()
        raise


def _host_and_port(sock: socket.socket) -> tuple[str, int] | None:
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        return None
    return str(host), int(port)
