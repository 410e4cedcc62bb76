"""An echo protocol on a host, for tests of limits: its streams, and what the host has counted."""

from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from node.swarm.libp2p.host import Host
from node.swarm.libp2p.multistream import propose
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_stream import YamuxStream

ECHO = TProtocol("/test/echo/1.0.0")
REFUSED = (MuxedStreamError, MuxedConnUnavailable, MultiselectClientError)


def count(host: Host, kind: str) -> int:
    return host.peer_policy.limit_counters.counts.as_dict()[kind]


def serve_echo(host: Host) -> None:
    async def echo(stream: INetStream) -> None:
        while True:
            await stream.write(await stream.read(1000))

    assert host.library is not None
    host.library.set_stream_handler(ECHO, echo)


async def stream_of(mux: YamuxConnection) -> YamuxStream:
    stream = await mux.open_stream()
    await propose(stream, ECHO)
    return stream


async def is_served(mux: YamuxConnection) -> bool:
    try:
        stream = await stream_of(mux)
        await stream.write(b"there?")
        return await stream.read(100) == b"there?"
    except REFUSED:
        return False
