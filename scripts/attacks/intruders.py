"""Peers who hold to the rules up to some layer and to none above it: the attackers beyond the noise handshake.

An `Intruder` is secured and muxed. It sends whatever bytes it likes as yamux frames; or, once its muxer runs, opens
streams as one should and says on them what it likes.
"""

import contextlib
import os
import socket
import struct

import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.stream_muxer.exceptions import MuxedStreamError

from attacks.connections import MULTISTREAM, Fell, patient, said
from node.swarm.libp2p.noise import DecryptFailed
from node.swarm.libp2p.tcp import TcpConnection
from node.swarm.libp2p.upgrade import Upgrader
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_frame import HEADER
from node.swarm.libp2p.yamux_stream import YamuxStream
from protocols.keys import PrivateKey

HANDSHAKE_SECONDS = 3.0
"""How long a target may take for the handshakes of somebody who does them as one should."""


def frame(kind: int, flags: int, number: int, length: int, body: bytes = b"", *, version: int = 0) -> bytes:
    """A yamux frame, which need not make sense."""
    return HEADER.pack(version, kind, flags, number, length) + body


class Ear(TcpConnection):
    """A wire that can stop listening: nothing is read from the socket any more, and the kernel's buffers fill up."""

    is_deaf = False

    async def readable(self) -> None:
        while self.is_deaf:
            await trio.sleep(0.1)
        await super().readable()

    def finish(self) -> None:
        """Say that no more will come, and go on reading."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)


class Intruder:
    """One connection after its handshakes. Made by `intrude`."""

    def __init__(self, wire: Ear, mux: YamuxConnection) -> None:
        self.wire = wire
        self.mux = mux

    # With raw frames, while the muxer does not run.

    async def send(self, frames: bytes) -> bool:
        """Sealed as the session wants it; False when the target has hung up."""
        return await self.send_sealed(self.mux.noise.encrypt(frames))

    async def send_sealed(self, data: bytes) -> bool:
        """As it is, after the noise handshake."""
        try:
            await self.wire.write(data)
        except ConnectionClosedError:
            return False
        return True

    async def read(self) -> bytes:
        """Frames, as they came; b"" when the target has hung up."""
        try:
            while not (plain := self.mux.noise.decrypt(await self.wire.read())):
                pass
        except (ConnectionClosedError, DecryptFailed):
            return b""
        return plain

    async def until_closed(self, seconds: float) -> None:
        """Read until the target hangs up. Raises `Fell` when it does not in time."""
        with trio.move_on_after(seconds):
            while await self.read():
                pass
            return
        raise Fell(f"the connection was still open after {seconds:g} s")

    # With streams, while it runs.

    async def stream(self, *protocols: str) -> YamuxStream:
        """A new stream on which these protocols have been proposed; no answer is waited for."""
        stream = await self.mux.open_stream()
        if protocols:
            await stream.write(said(MULTISTREAM, *protocols))
        return stream

    # In both.

    def reset(self) -> None:
        """RST, in the middle of whatever it is."""
        if not self.wire.is_closed:
            with contextlib.suppress(OSError):
                self.wire._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wire.abort()
        self.mux.abort("reset")

    def abort(self) -> None:
        self.mux.abort("the attack is over")
        self.wire.abort()


async def intrude(where: tuple[str, int], key: PrivateKey | None = None, *, receive_bytes: int = 0) -> Intruder:
    """A new identity, or this one, secured and muxed; its caller aborts it. Raises `Fell` when it is not let in."""
    upgrader = Upgrader(key.seed if key else os.urandom(32))
    wire = await ear(where, receive_bytes=receive_bytes)
    try:
        with trio.fail_after(patient(HANDSHAKE_SECONDS)):
            return Intruder(wire, await upgrader.outbound(wire))
    except Exception as error:
        wire.abort()
        raise Fell(f"the handshakes were not done: {error!r}") from error
    except BaseException:
        wire.abort()
        raise


async def ear(where: tuple[str, int], *, receive_bytes: int = 0) -> Ear:
    """A connected wire; its caller aborts it. Raises `Fell`."""
    sock = socket.socket(socket.AF_INET6 if ":" in where[0] else socket.AF_INET)
    try:
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        with trio.fail_after(patient(HANDSHAKE_SECONDS)):
            await trio.socket.from_stdlib_socket(sock).connect(where)
        return Ear(sock)
    except (OSError, trio.TooSlowError) as error:
        sock.close()
        raise Fell(f"port {where[1]} takes no connection: {error!r}") from error
    except BaseException:
        sock.close()
        raise


async def until_over(stream: YamuxStream, seconds: float = 6.0) -> bytes:
    """What came on a stream until the target ended it, or the connection. Raises `Fell` when it does not in time."""
    found = b""
    with trio.move_on_after(seconds):
        with contextlib.suppress(MuxedStreamError):
            while True:
                found += await stream.read(65536)
        return found
    raise Fell(f"a stream was still open after {seconds:g} s")
