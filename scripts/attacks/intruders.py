"""Attackers beyond the noise handshake: peers that follow the rules up to some layer and break them above it.

An `Intruder` is secured and muxed. While its muxer does not run, it sends arbitrary bytes as yamux frames; while it
runs, it opens streams as an honest peer does and sends arbitrary bytes on them.
"""

import contextlib
import os
import socket
import struct

import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.stream_muxer.exceptions import MuxedStreamError

from attacks.connections import MULTISTREAM, TargetFailed, multistream, scaled_by_load
from node.swarm.libp2p.noise import DecryptFailed
from node.swarm.libp2p.tcp import TcpConnection
from node.swarm.libp2p.upgrade import Upgrader
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_frame import HEADER
from node.swarm.libp2p.yamux_stream import YamuxStream
from protocols.keys import PrivateKey

HANDSHAKE_SECONDS = 3.0
"""How long a target may take for the handshakes of a peer that does them correctly."""


def frame(kind: int, flags: int, number: int, length: int, body: bytes = b"", *, version: int = 0) -> bytes:
    """A yamux frame, valid or not."""
    return HEADER.pack(version, kind, flags, number, length) + body


class PausableTcp(TcpConnection):
    """A TCP connection that can stop reading from the socket, so that the kernel's buffers fill up."""

    is_paused = False

    async def readable(self) -> None:
        while self.is_paused:
            await trio.sleep(0.1)
        await super().readable()

    def finish(self) -> None:
        """Close for writing, and go on reading."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Hang up with RST."""
        if not self.is_closed:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()


class Intruder:
    """One connection after its handshakes, made by `intrude`."""

    def __init__(self, tcp: PausableTcp, mux: YamuxConnection) -> None:
        self.tcp = tcp
        self.mux = mux

    # Raw frames, while the muxer does not run.

    async def send(self, frames: bytes) -> bool:
        """Encrypt and send these frames. False when the target has hung up."""
        return await self.send_packets(self.mux.noise.encrypt(frames))

    async def send_packets(self, data: bytes) -> bool:
        """Send noise packets, valid or not. False when the target has hung up."""
        try:
            await self.tcp.write(data)
        except ConnectionClosedError:
            return False
        return True

    async def read(self) -> bytes:
        """The decrypted frames of a read; b"" when the target has hung up."""
        try:
            while not (plain := self.mux.noise.decrypt(await self.tcp.read())):
                pass
        except (ConnectionClosedError, DecryptFailed):
            return b""
        return plain

    async def until_closed(self, seconds: float) -> None:
        """Read until the target hangs up. Raises `TargetFailed` when it does not within `seconds`."""
        with trio.move_on_after(seconds):
            while await self.read():
                pass
            return
        raise TargetFailed(f"the connection was still open after {seconds:g} s")

    # Streams, while the muxer runs.

    async def stream(self, *protocols: str) -> YamuxStream:
        """A new stream on which these protocols are proposed. Does not wait for an answer."""
        stream = await self.mux.open_stream()
        if protocols:
            await stream.write(multistream(MULTISTREAM, *protocols))
        return stream

    # In both states.

    def reset(self) -> None:
        """Hang up with RST, whatever is in progress."""
        self.tcp.reset()
        self.mux.abort("reset")

    def abort(self) -> None:
        self.mux.abort("the attack is over")
        self.tcp.abort()


async def intrude(where: tuple[str, int], key: PrivateKey | None = None, *, receive_bytes: int = 0) -> Intruder:
    """Connect with this identity, or a new one, and do the handshakes; the caller aborts it. Raises `TargetFailed`."""
    upgrader = Upgrader(key.seed if key else os.urandom(32))
    tcp = await connect_pausable(where, receive_bytes=receive_bytes)
    try:
        with trio.fail_after(scaled_by_load(HANDSHAKE_SECONDS)):
            return Intruder(tcp, await upgrader.outbound(tcp))
    except Exception as error:
        tcp.abort()
        raise TargetFailed(f"the handshakes were not done: {error!r}") from error
    except BaseException:
        tcp.abort()
        raise


async def connect_pausable(where: tuple[str, int], *, receive_bytes: int = 0) -> PausableTcp:
    """Connect; the caller aborts the connection. Raises `TargetFailed`."""
    sock = socket.socket(socket.AF_INET6 if ":" in where[0] else socket.AF_INET)
    try:
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        with trio.fail_after(scaled_by_load(HANDSHAKE_SECONDS)):
            await trio.socket.from_stdlib_socket(sock).connect(where)
        return PausableTcp(sock)
    except (OSError, trio.TooSlowError) as error:
        sock.close()
        raise TargetFailed(f"port {where[1]} takes no connection: {error!r}") from error
    except BaseException:
        sock.close()
        raise


async def until_over(stream: YamuxStream, seconds: float = 6.0) -> bytes:
    """The bytes on a stream until the target ends it. Raises `TargetFailed` when it does not within `seconds`."""
    found = b""
    with trio.move_on_after(seconds):
        with contextlib.suppress(MuxedStreamError):
            while True:
                found += await stream.read(65536)
        return found
    raise TargetFailed(f"a stream was still open after {seconds:g} s")
