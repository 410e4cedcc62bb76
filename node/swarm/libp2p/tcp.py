"""A TCP connection over a non-blocking socket: with waits for libp2p's handshakes, and without after them.

`receive` and `transmit` do one system call each and never wait, so that received bytes are handled and answers written
without a switch between tasks; a task that must wait does so with `readable` and `writable`. `abort` ends the
connection at once, whatever it is doing.
"""

import errno
import os
import socket

import trio
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError

from node.accept_errors import NO_ROOM
from node.swarm.limit_counters import LimitCounters

_READ_BYTES_MAX = 64 * 1024


class TcpConnection(ReadWriteCloser):
    """Owns the socket, and closes it. Raises OSError when the socket is already useless."""

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
        """Up to `size` bytes that have come; None when there are none yet, b"" at the end. Raises OSError."""
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
        """Raises `trio.ClosedResourceError` when the connection is aborted meanwhile."""
        await trio.lowlevel.wait_readable(self._sock)

    async def writable(self) -> None:
        """Raises `trio.ClosedResourceError` when the connection is aborted meanwhile."""
        await trio.lowlevel.wait_writable(self._sock)

    def abort(self) -> None:
        """Close the socket now. The kernel still notifies the other side; nothing here waits for that."""
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
        """Write all of it. For handshakes only: a write that is cancelled half-way leaves the connection useless."""
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
        """The IP address of the other end, or '' when it hung up before it could be read."""
        return self._remote[0] if self._remote else ""

    @property
    def own_host(self) -> str:
        """The IP address of this end, or '' when the socket is closed."""
        try:
            return str(self._sock.getsockname()[0]).partition("%")[0]
        except OSError:
            return ""

    @property
    def remote(self) -> str:
        """The multiaddr of the other end, or '' when it hung up before it could be read."""
        if self._remote is None:
            return ""
        host, port = self._remote
        return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}"


async def connect(family: int, host: str, port: int, make: type[TcpConnection] = TcpConnection) -> TcpConnection:
    """Connect to an IP address, maybe with a zone. Raises OSError. When cancelled, it leaves no socket open."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(_socket_address(host, port))
        if code == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        return make(sock)
    except BaseException:
        sock.close()
        raise


async def accept(
    sock: socket.socket, limit_counters: LimitCounters, make: type[TcpConnection] = TcpConnection
) -> TcpConnection:
    """The next inbound connection. Waits for one, and for a moment when this process has no file descriptors left.

    `limit_counters` counts the latter.
    """
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            return make(sock.accept()[0])
        except BlockingIOError:
            continue
        except OSError as error:
            if why := NO_ROOM.get(error.errno or 0):
                limit_counters.hit(
                    "out_of_descriptors", "", f"cannot take another connection now, and tries again: {why}"
                )
                await trio.sleep(0.1)


def _socket_address(host: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """The address as the kernel takes it: a zone is the number of an interface. Raises OSError without that one."""
    ip, _, zone = host.partition("%")
    if not zone:
        return host, port
    return ip, port, 0, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)


def _host_and_port(sock: socket.socket) -> tuple[str, int] | None:
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        return None
    return str(host), int(port)
