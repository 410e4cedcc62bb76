"""Links: which connection of each peer carries its frames. Both sides choose the same one without negotiation.

A peer is connected when both lanes are open on one connection. Of two nodes, the one with the smaller peer id opens the
lanes, whichever node dialled, and at any time on one connection only. So both choose the same connection, even when
they dialled each other at the same time; each then closes the other connection that it dialled. A node that returns to
a peer that has not yet noticed its loss is not locked out: before the node with the smaller id lets a new connection
wait, it pings the old one. A connection of another process of the peer (after a restart, or of a copied identity) does
not wait at all: the newer one is chosen, whichever id is smaller.
"""

import logging
from collections.abc import Callable

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.stream.net_stream import NetStream

from node.swarm.base import Lane, Receiver
from node.swarm.libp2p.lanes import RANK, Lanes, name_lane, read_lane
from node.swarm.libp2p.multistream import propose
from node.swarm.libp2p.peer_connection import PeerConnection
from node.swarm.libp2p.swarm_adapter import SwarmAdapter
from node.swarm.libp2p.yamux_stream import YamuxStream
from node.swarm.peer_policy import BadInput

PROBE_SECONDS = 1.0
"""How long a connection may take to answer a ping, while a newer one to the same peer waits."""
_NOT_NEEDED = "the peer is connected by another connection"


class PeerLinks:
    """`settle` runs beside each connection, `lane_opened` handles lanes of peers, `ended` removes a connection."""

    def __init__(self, own: str, protocol: str, swarm: SwarmAdapter, receiver: Receiver, log: logging.Logger) -> None:
        self.protocol = TProtocol(protocol)
        self._own = own
        self._swarm = swarm
        self._receiver = receiver
        self._log = log
        self._chosen: dict[str, PeerConnection] = {}
        """The one connection of each peer on which this node opens the lanes, for peers with a larger id."""
        self._linked: dict[str, PeerConnection] = {}
        """The connection of each peer with both lanes open."""

    def __contains__(self, peer: str) -> bool:
        connection = self._linked.get(peer)
        return connection is not None and not connection.is_closed

    def peers(self) -> tuple[str, ...]:
        return tuple(peer for peer in self._linked if peer in self)

    def send(self, peer: str, lane: Lane, frame: bytes) -> bool:
        connection = self._linked.get(peer)
        return connection is not None and connection.lanes is not None and connection.lanes.send(lane, frame)

    async def settle(self, connection: PeerConnection) -> None:
        """Open the lanes, if this node has to, as soon as this connection is the one to have them."""
        if connection.dialled and connection.peer in self:
            connection.abort(_NOT_NEEDED)
        elif self._own < connection.peer:
            while (other := self._chosen.get(connection.peer)) is not None:
                await self._wait_turn(connection, other)
            self._chosen[connection.peer] = connection
            await self._open_lanes(connection)

    async def lane_opened(self, net_stream: INetStream) -> None:
        """The peer opened a lane. An exception ends that stream."""
        assert isinstance(net_stream, NetStream)
        connection: object = net_stream.swarm_conn
        stream = net_stream.muxed_stream
        assert isinstance(connection, PeerConnection)
        assert isinstance(stream, YamuxStream)
        if self._own < connection.peer:
            raise BadInput("the peer opened a lane, and this node has to open them")
        seconds = connection.mux.limits.lanes_seconds
        try:
            with trio.fail_after(seconds):
                lane = await read_lane(stream)
        except ValueError as error:
            raise BadInput(str(error)) from error
        except trio.TooSlowError:
            what = f"opened a lane and did not name it within {seconds:g} s"
            connection.mux.limit_counters.hit("streams_slow", connection.peer, what)
            raise
        if lane in connection.lane_streams:
            raise BadInput("the peer named a lane twice")
        connection.lane_streams[lane] = stream
        await name_lane(stream, lane)
        if len(connection.lane_streams) == len(Lane):
            self._up(connection)

    def ended(self, connection: PeerConnection) -> None:
        """A connection ended: remove it everywhere."""
        self._down(connection)
        if self._chosen.get(connection.peer) is connection:
            del self._chosen[connection.peer]
        connection.settled.set()
        connection.ended.set()

    # Lanes that this node opens.

    async def _wait_turn(self, connection: PeerConnection, other: PeerConnection) -> None:
        """Wait until `other` has ended. When this connection ends, the wait is cancelled."""
        await other.settled.wait()
        if self._chosen.get(connection.peer) is other:
            if connection.mux.session_key != other.mux.session_key:
                other.abort("another process of this peer opened a newer connection")
            elif not await other.mux.ping(PROBE_SECONDS):
                other.abort(f"no sign of life for {PROBE_SECONDS:g} s, and the peer opened a newer connection")
            await other.ended.wait()

    async def _open_lanes(self, connection: PeerConnection) -> None:
        try:
            with trio.fail_after(connection.mux.limits.lanes_seconds):
                async with trio.open_nursery() as nursery:
                    for lane in Lane:
                        nursery.start_soon(self._open_lane, connection, lane)
        except* Exception as errors:
            self._log.debug("no lanes to %s: %r", connection.peer, errors.exceptions)
        if len(connection.lane_streams) == len(Lane):
            self._up(connection)
        elif connection.needs_lanes:
            connection.abort(f"it does not open {self.protocol}")
        else:  # a peer without lanes, which libp2p's other protocols serve
            del self._chosen[connection.peer]
            connection.settled.set()

    async def _open_lane(self, connection: PeerConnection, lane: Lane) -> None:
        stream = await connection.mux.open_stream(RANK[lane])
        await propose(stream, self.protocol)
        await name_lane(stream, lane)
        if await read_lane(stream) is not lane:
            raise ValueError("the peer named another lane than it was asked for")
        connection.lane_streams[lane] = stream

    # Connected and disconnected.

    def _up(self, connection: PeerConnection) -> None:
        peer, receiver = connection.peer, self._receiver
        if connection.is_closed:
            return
        if (other := self._linked.get(peer)) is not None:
            other.abort("the peer opened a newer connection")
            self._down(other)
        self._linked[peer] = connection
        connection.lanes = Lanes(connection.mux, connection.lane_streams)
        self._call_receiver(receiver.connected, peer, connection.address, connection.dialled)
        connection.lanes.start(lambda lane, frame: receiver.received(peer, lane, frame))
        for other in self._swarm.of(peer):
            if other is not connection and other.dialled:
                other.abort(_NOT_NEEDED)
        connection.settled.set()

    def _down(self, connection: PeerConnection) -> None:
        if self._linked.get(connection.peer) is connection:
            del self._linked[connection.peer]
            self._call_receiver(self._receiver.disconnected, connection.peer, connection.mux.reason)

    def _call_receiver(self, callback: Callable[..., None], *arguments: object) -> None:
        """The receiver must not raise. When it does, the network goes on."""
        try:
            callback(*arguments)
        except Exception:
            self._log.exception("the receiver failed at %s", arguments)
