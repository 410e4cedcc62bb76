"""One connection to one peer: what libp2p's protocols see of it, and what the host knows of it."""

import logging
from collections.abc import Awaitable, Callable
from typing import cast

import trio
from libp2p.abc import INetConn, INetStream
from libp2p.connection_types import ConnectionType
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.net_stream import NetStream, StreamState
from libp2p.network.swarm import Swarm
from libp2p.rcmgr import Direction
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from multiaddr import Multiaddr

from node.swarm.base import Lane
from node.swarm.libp2p.lanes import Lanes
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_stream import YamuxStream
from node.swarm.peer_policy import BadInput, PeerPolicy

log = logging.getLogger(__name__)


class PeerConnection(INetConn):
    """`run` serves the streams of the peer until the connection ends."""

    def __init__(
        self,
        mux: YamuxConnection,
        swarm: Swarm,
        peer_policy: PeerPolicy,
        address: str,
        *,
        dialled: bool,
        needs_lanes: bool,
    ) -> None:
        """`needs_lanes`: it was dialled for its lanes, and is worth nothing without."""
        self.mux = mux
        self.muxed_conn = mux
        self.swarm = swarm
        self.peer = str(mux.peer_id)
        self.address = address
        self.dialled = dialled
        self.needs_lanes = needs_lanes
        self.streams: set[INetStream] = set()
        self.event_started = mux.event_started
        self.lane_streams: dict[Lane, YamuxStream] = {}
        """The lanes that are open so far."""
        self.lanes: Lanes | None = None
        """Set when both are open."""
        self.idle_seconds = 0
        """For how long it has had neither lanes nor streams."""
        self.settled = trio.Event()
        """The peer is connected, by this connection or by another; or this one has ended."""
        self.ended = trio.Event()
        """It has ended and is removed everywhere."""
        self._peer_policy = peer_policy

    @property
    def is_closed(self) -> bool:
        return self.mux.is_closed

    def abort(self, reason: str) -> None:
        self.mux.abort(reason)

    def tick(self) -> None:
        """Called once a second: close the connection when the peer is silent or does not use it."""
        self.mux.tick()
        if self.lanes is not None:
            self.lanes.tick()
        else:
            self.idle_seconds = 0 if self.streams else self.idle_seconds + 1
            if self.idle_seconds >= self.mux.limits.idle_seconds and not self.is_closed:
                why = f"made no use of its connection for {self.idle_seconds} s"
                self.mux.limit_counters.hit("connections_idle", self.peer, why)
                self.abort(why)

    async def run(self, beside: "Callable[[PeerConnection], Awaitable[None]]") -> None:
        """Serve the peer until the connection ends; `beside` runs meanwhile."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, nursery)
            nursery.start_soon(beside, self)
            nursery.start_soon(self.swarm.notify_connected, self)
            await self.mux.start()
            nursery.cancel_scope.cancel()

    async def _serve(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                nursery.start_soon(self._serve_stream, await self.mux.accept_stream())
            except MuxedConnUnavailable:
                return

    async def _serve_stream(self, muxed: YamuxStream) -> None:
        stream = await self._net_stream(muxed, Direction.INBOUND)
        try:
            await self.swarm.common_stream_handler(stream)
        except Exception as error:
            log.debug("a stream of %s failed: %r", self.peer, error)
            await muxed.reset()
            if bad := BadInput.among_causes(error):
                self._peer_policy.blame(self.peer, bad.offence, str(bad))
        finally:
            self.streams.discard(stream)

    async def _net_stream(self, muxed: YamuxStream, direction: Direction) -> NetStream:
        stream = NetStream(muxed, cast(SwarmConn, self), None)
        stream._direction = direction
        await stream.set_state(StreamState.OPEN)
        self.streams.add(stream)
        return stream

    # The interface of libp2p's connections. Its streams call `remove_stream` when they close.

    async def new_stream(self) -> INetStream:
        return await self._net_stream(await self.mux.open_stream(), Direction.OUTBOUND)

    def remove_stream(self, stream: INetStream) -> None:
        self.streams.discard(stream)

    def get_streams(self) -> tuple[INetStream, ...]:
        return tuple(self.streams)

    def get_transport_addresses(self) -> list[Multiaddr]:
        return self.mux.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT

    async def close(self) -> None:
        self.abort("closed by this side")
