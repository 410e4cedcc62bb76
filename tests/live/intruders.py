"""What the tests of the real network do to a host: as an intruder, as a new peer, and as a plain libp2p host."""

import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator

import libp2p
import trio
from libp2p.abc import IHost
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.stream_muxer.exceptions import MuxedStreamError
from multiaddr import Multiaddr

from node.swarm.base import Lane
from node.swarm.libp2p import tcp
from node.swarm.libp2p.host import Host
from node.swarm.libp2p.upgrade import Upgrader
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_stream import YamuxStream
from tests.live.swarm_peers import RecordingReceiver, running
from tests.until import until


async def connected_tcp(host: Host) -> tcp.TcpConnection:
    """A TCP connection to a host, without any handshake."""
    return await tcp.connect(socket.AF_INET, "127.0.0.1", int(host.addresses[0].split("/")[4]))


@contextlib.asynccontextmanager
async def intruder(host: Host) -> AsyncIterator[YamuxConnection]:
    """A connection of a peer that does the handshakes correctly, and follows no rule after them."""
    mux = await Upgrader(os.urandom(32)).outbound(await connected_tcp(host))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mux.start)
        yield mux
        nursery.cancel_scope.cancel()


def frame(kind: int, flags: int, number: int, length: int, *, version: int = 0) -> bytes:
    """The header of a yamux frame, valid or not."""
    return struct.pack("!BBHII", version, kind, flags, number, length)


@contextlib.asynccontextmanager
async def plain_host(seed: bytes | None = None) -> AsyncIterator[IHost]:
    """A libp2p host as the library makes it."""
    here = Multiaddr("/ip4/127.0.0.1/tcp/0")
    host = libp2p.new_host(key_pair=create_new_key_pair(seed), listen_addrs=[here])
    async with host.run([here]):
        try:
            yield host
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(3):
                await host.close()


async def assert_serves(host: Host, recorder: RecordingReceiver) -> None:
    """A new peer connects, and a frame of it arrives."""
    with trio.fail_after(30):
        async with running() as (fresh, _):
            await fresh.dial(host.addresses, timeout=20)
            sent = fresh.peer_id, Lane.SMALL, fresh.peer_id.encode()
            assert fresh.send(host.peer_id, *sent[1:])
            await until(lambda: sent in recorder.frames)


async def assert_ends(stream: YamuxStream) -> None:
    """The other side ends the stream."""
    with trio.fail_after(30), contextlib.suppress(MuxedStreamError):
        while True:
            await stream.read(100)
