"""Who is connected, and by which of their connections: both sides agree on it without a word.

A peer is connected once both lanes are up on one connection. Of two nodes, the one with the smaller peer id opens the
lanes, whoever dialled, and at any time on one connection alone; so both mean the same one, even when they dialled each
other at once. Each then closes what it dialled in vain. A node that comes back to a peer that has not yet noticed its
loss is not shut out: before the smaller one leaves a new connection waiting, it asks the old one for a sign of life.
"""

import logging
from collections.abc import Callable

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.stream.net_stream import NetStream

from node.swarm.base import Lane, Receiver
from node.swarm.libp2p.adapters import HardenedSwarm, PeerConnection
from node.swarm.libp2p.lanes import RANK, Lanes, name_lane, read_lane
from node.swarm.libp2p.multistream import propose
from node.swarm.libp2p.yamux_stream import YamuxStream
from node.swarm.peer_policy import BadInput

PROBE_SECONDS = 1.0
"""What a connection may take to show that it lives, while a newer one to the same peer waits."""
_IN_VAIN = "the peer is connected by another connection"


class PeerLinks:
    """`settle` runs beside each connection, `came` serves the streams that peers open, `over` ends it."""

    def __init__(self, me: str, protocol: str, swarm: HardenedSwarm, receiver: Receiver, log: logging.Logger) -> None:
        self.protocol = TProtocol(protocol)
        self._me = me
        self._swarm = swarm
        self._receiver = receiver
        self._log = log
        self._chosen: dict[str, PeerConnection] = {}
        """The one connection of a peer that we open, or opened, the lanes on, where that is ours to do."""
        self._linked: dict[str, PeerConnection] = {}

    def __contains__(self, peer: str) -> bool:
        connection = self._linked.get(peer)
        return connection is not None and not connection.is_closed

    def peers(self) -> tuple[str, ...]:
        return tuple(peer for peer in self._linked if peer in self)

    def send(self, peer: str, lane: Lane, frame: bytes) -> bool:
        connection = self._linked.get(peer)
        return connection is not None and connection.lanes is not None and connection.lanes.send(lane, frame)

    async def settle(self, connection: PeerConnection) -> None:
        """Open the lanes, if that is ours to do, as soon as this connection is the one to have them."""
        if connection.dialled and connection.peer in self:
            connection.abort(_IN_VAIN)
        elif self._me < connection.peer:
            while (other := self._chosen.get(connection.peer)) is not None:
                await self._wait_turn(connection, other)
            self._chosen[connection.peer] = connection
            await self._open_lanes(connection)

    async def came(self, net_stream: INetStream) -> None:
        """The peer opened a lane. Whatever this raises costs that stream."""
        assert isinstance(net_stream, NetStream)
        connection: object = net_stream.swarm_conn
        stream = net_stream.muxed_stream
        assert isinstance(connection, PeerConnection)
        assert isinstance(stream, YamuxStream)
        if self._me < connection.peer:
            raise BadInput("the peer opened a lane, which is ours to do")
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
        if lane in connection.named:
            raise BadInput("the peer named a lane twice")
        connection.named[lane] = stream
        await name_lane(stream, lane)
        if len(connection.named) == len(Lane):
            self._up(connection)

    def over(self, connection: PeerConnection) -> None:
        """The connection ended: leave no trace of it."""
        self._down(connection)
        if self._chosen.get(connection.peer) is connection:
            del self._chosen[connection.peer]
        connection.settled.set()
        connection.over.set()

    # Our own lanes.

    async def _wait_turn(self, connection: PeerConnection, other: PeerConnection) -> None:
        """Until `other` has ended; or this connection, for it is cancelled then."""
        await other.settled.wait()
        if self._chosen.get(connection.peer) is other:
            if not await other.mux.ping(PROBE_SECONDS):
                other.abort(f"no sign of life for {PROBE_SECONDS:g} s, and the peer came anew")
            await other.over.wait()

    async def _open_lanes(self, connection: PeerConnection) -> None:
        try:
            with trio.fail_after(connection.mux.limits.lanes_seconds):
                async with trio.open_nursery() as nursery:
                    for lane in Lane:
                        nursery.start_soon(self._open_lane, connection, lane)
        except* Exception as errors:
            self._log.debug("no lanes to %s: %r", connection.peer, errors.exceptions)
        if len(connection.named) == len(Lane):
            self._up(connection)
        elif connection.dialled:
            connection.abort(f"it does not open {self.protocol}")
        else:  # A peer of another kind came, whom libp2p's other protocols serve.
            del self._chosen[connection.peer]
            connection.settled.set()

    async def _open_lane(self, connection: PeerConnection, lane: Lane) -> None:
        stream = await connection.mux.open_stream(RANK[lane])
        await propose(stream, self.protocol)
        await name_lane(stream, lane)
        if await read_lane(stream) is not lane:
            raise ValueError("the peer named another lane than it was asked for")
        connection.named[lane] = stream

    # Comings and goings.

    def _up(self, connection: PeerConnection) -> None:
        peer, receiver = connection.peer, self._receiver
        if connection.is_closed:
            return
        if (other := self._linked.get(peer)) is not None:
            other.abort("the peer opened a newer connection")
            self._down(other)
        self._linked[peer] = connection
        connection.lanes = Lanes(connection.mux, connection.named)
        self._tell(receiver.connected, peer, connection.address, connection.dialled)
        connection.lanes.start(lambda lane, frame: receiver.received(peer, lane, frame))
        for other in self._swarm.of(peer):
            if other is not connection and other.dialled:
                other.abort(_IN_VAIN)
        connection.settled.set()

    def _down(self, connection: PeerConnection) -> None:
        if self._linked.get(connection.peer) is connection:
            del self._linked[connection.peer]
            self._tell(self._receiver.disconnected, connection.peer, connection.mux.reason)

    def _tell(self, what: Callable[..., None], *facts: object) -> None:
        """The receiver promises not to raise. Should it, the network goes on."""
        try:
            what(*facts)
        except Exception:
            self._log.exception("the receiver could not be told %s", facts)
