"""libp2p's swarm and host, cut down to what a peer cannot end or deafen.

libp2p's identify, ping and GossipSub need a `BasicHost` over a `Swarm`. The ones of the library hold an inbound slot
for as long as they live, so that they are deaf after 250 connections; end when any stream handler raises, which 24
bytes from any peer bring about; dial on their own; block a peer for a minute after one dead address; deny local peers
that reconnect; and close with sleeps. These keep its interfaces and none of that: connections are made, run and ended
by `host.py` alone, a stream's failure is its own, and nothing here dials.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import IMuxedConn, INetConn, INetStream, IRawConnection
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.identity.update import update_peerstore_from_identify
from libp2p.io.exceptions import MessageTooLarge
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.net_stream import NetStream, StreamState
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.rcmgr import Direction
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from node.swarm.base import Lane
from node.swarm.libp2p.lanes import Lanes
from node.swarm.libp2p.multistream import accept, propose
from node.swarm.libp2p.upgrade import YAMUX, Upgrader
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_stream import YamuxStream
from node.swarm.limits import USUAL, SwarmLimits
from node.swarm.peer_policy import BadInput, PeerPolicy
from protocols.policy.reputation import Offence

log = logging.getLogger(__name__)

IDENTIFY_SECONDS = 10.0
"""What a peer may take to say who it is and what it speaks."""
IDENTIFY_BYTES_MAX = 1024 * 1024
"""How long that may be, the library's own figure."""


class PeerConnection(INetConn):
    """One connection to one peer, as libp2p's protocols see it, and what the host knows of it."""

    def __init__(self, mux: YamuxConnection, swarm: "HardenedSwarm", address: str, *, dialled: bool) -> None:
        self.mux = mux
        self.muxed_conn = mux
        self.swarm = swarm
        self.peer = str(mux.peer_id)
        self.address = address
        self.dialled = dialled
        self.streams: set[INetStream] = set()
        self.event_started = mux.event_started
        self.named: dict[Lane, YamuxStream] = {}
        """The lanes that are known so far."""
        self.lanes: Lanes | None = None
        """Once both are."""
        self.idle_seconds = 0
        """For how long it had neither lanes nor streams."""
        self.settled = trio.Event()
        """The peer is connected, by this connection or another; or this one is over."""
        self.over = trio.Event()
        """Ended, and no trace of it left."""

    @property
    def is_closed(self) -> bool:
        return self.mux.is_closed

    def abort(self, reason: str) -> None:
        self.mux.abort(reason)

    def tick(self) -> None:
        """Called once a second: who gives no sign of life, or makes no use of its connection, loses it."""
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
        stream = await self._opened(muxed, Direction.INBOUND)
        try:
            await self.swarm.common_stream_handler(stream)
        except Exception as error:
            log.debug("a stream of %s failed: %r", self.peer, error)
            await muxed.reset()
            if bad := _bad_input(error):
                self.swarm.peer_policy.blame(self.peer, bad.offence, str(bad))
        finally:
            self.streams.discard(stream)

    async def _opened(self, muxed: YamuxStream, direction: Direction) -> NetStream:
        stream = NetStream(muxed, cast(SwarmConn, self), None)
        stream._direction = direction
        await stream.set_state(StreamState.OPEN)
        self.streams.add(stream)
        return stream

    # What libp2p asks of a connection, `remove_stream` being what its streams call when they close.

    async def new_stream(self) -> INetStream:
        return await self._opened(await self.mux.open_stream(), Direction.OUTBOUND)

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


class _PeerStore(PeerStore):
    """What peers say of themselves, and our own key.

    The library's keeps a thousand, and to make room forgets first who has no address: that is this node itself. So a
    thousand peers that say where they are cost a plain host its key, and with it identify, for the rest of its life.
    """

    def __init__(self, me: ID, peers_max: int) -> None:
        super().__init__(max_peers=peers_max)
        self._me = me

    def _enforce_peer_limit(self) -> None:
        own = self.peer_data_map.pop(self._me, None)
        super()._enforce_peer_limit()
        if own is not None:
            self.peer_data_map[self._me] = own


class HardenedSwarm(Swarm):
    """The book of connections. It is never run as the service that libp2p's is, and has no dialler and no limiter."""

    connections: dict[ID, list[INetConn]]
    peerstore: PeerStore

    def __init__(self, upgrader: Upgrader, peer_policy: PeerPolicy) -> None:
        self.peer_policy = peer_policy
        self.count = 0
        """Connections that were added and not removed yet."""
        key_pair = upgrader.key_pair
        me = ID.from_pubkey(key_pair.public_key)
        peerstore = _PeerStore(me, upgrader.limits.connections_max)
        peerstore.add_key_pair(me, key_pair)
        noise = Noise(key_pair, noise_privkey=upgrader.noise_key)
        super().__init__(me, peerstore, TransportUpgrader({NOISE: noise}, {YAMUX: YamuxConnection}), [TCP()])

    def add(self, connection: PeerConnection) -> None:
        self.connections.setdefault(connection.mux.peer_id, []).append(connection)
        self.count += 1

    def remove(self, connection: PeerConnection) -> None:
        self.count -= 1
        rest = [other for other in self.connections.get(connection.mux.peer_id, ()) if other is not connection]
        if rest:
            self.connections[connection.mux.peer_id] = rest
        else:
            self.connections.pop(connection.mux.peer_id, None)
            self._forget(connection.mux.peer_id)

    def _forget(self, peer_id: ID) -> None:
        """The library keeps what a peer said of itself after it left, and does not ask again when it comes back."""
        self.peerstore.peer_data_map.pop(peer_id, None)
        self.peerstore.peer_record_map.pop(peer_id, None)

    def of(self, peer: str) -> list[PeerConnection]:
        """The open connections of a peer, oldest first."""
        found = self.connections.get(ID.from_base58(peer), ())
        return [c for c in found if isinstance(c, PeerConnection) and not c.is_closed]

    def all(self) -> list[PeerConnection]:
        return [c for group in self.connections.values() for c in group if isinstance(c, PeerConnection)]

    async def new_stream(self, peer_id: ID) -> INetStream:
        """On the connection that has the lanes, for that one stays."""
        for connection in sorted(self.of(str(peer_id)), key=lambda connection: connection.lanes is None):
            return await connection.new_stream()
        raise SwarmException(f"{peer_id} is not connected, and a stream does not dial")

    async def notify_disconnected(self, conn: INetConn) -> None:
        await self._notify("disconnected", conn)

    async def close_peer(self, peer_id: ID) -> None:
        for connection in self.of(str(peer_id)):
            connection.abort("closed by this side")

    async def close(self) -> None:
        for connection in self.all():
            connection.abort("this node stops")

    # What a `Swarm` would do on its own, and this one leaves to the host.

    async def run(self) -> None:
        raise SwarmException(_NOT_HERE)

    async def listen(self, *multiaddrs: Multiaddr) -> bool:
        raise SwarmException(_NOT_HERE)

    async def dial_peer(self, peer_id: ID) -> list[INetConn]:
        if found := self.of(str(peer_id)):
            return list(found)
        raise SwarmException(f"{peer_id} is not connected; {_NOT_HERE}")

    async def dial_addr(self, addr: Multiaddr, peer_id: ID, source: tuple[str, int] | None = None) -> INetConn:
        raise SwarmException(_NOT_HERE)

    async def dial_addr_as_responder(
        self, addr: Multiaddr, peer_id: ID, source: tuple[str, int] | None = None
    ) -> INetConn:
        raise SwarmException(_NOT_HERE)

    async def upgrade_outbound_raw_conn(
        self, raw_conn: IRawConnection, peer_id: ID, pre_scope: Any = None
    ) -> SwarmConn:
        raise SwarmException(_NOT_HERE)

    async def upgrade_inbound_raw_conn(self, raw_conn: IRawConnection, maddr: Multiaddr) -> IMuxedConn:
        raise SwarmException(_NOT_HERE)

    async def add_conn(self, muxed_conn: IMuxedConn, direction: str = "unknown") -> SwarmConn:
        raise SwarmException(_NOT_HERE)


_NOT_HERE = "connections are made, listened for and ended by node.swarm.libp2p.host.Host alone"


class HardenedHost(BasicHost):
    """Stream handlers by protocol, identify and ping. Tasks of its own live in `nursery`, and end without a trace."""

    def __init__(
        self,
        swarm: HardenedSwarm,
        nursery: trio.Nursery,
        addresses: Callable[[], list[Multiaddr]],
        limits: SwarmLimits = USUAL,
    ) -> None:
        super().__init__(swarm, addrs_factory=lambda candidates: addresses(), disable_identify_address_discovery=True)
        self.set_stream_handler(ID_PUSH, self._pushed)
        self._nursery = nursery
        self._limits = limits
        self._peer_policy = swarm.peer_policy
        self._limit_counters = swarm.peer_policy.limit_counters
        self._served: dict[tuple[str, TProtocol], int] = {}
        """Streams that a peer opened for a protocol and whose handler runs."""

    async def new_stream(self, peer_id: ID, protocol_ids: Sequence[TProtocol]) -> INetStream:
        """A stream of our own; agreed on within a bounded time, or reset. Raises `StreamFailure`, `SwarmException`."""
        stream = await self._network.new_stream(peer_id)
        try:
            with trio.fail_after(self._limits.negotiate_seconds):
                stream.set_protocol(await propose(stream, *protocol_ids))
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await stream.reset()
            if isinstance(error, Exception):
                raise StreamFailure(f"no stream to {peer_id} for {', '.join(protocol_ids)}: {error}") from error
            raise
        return stream

    async def _pushed(self, stream: INetStream) -> None:
        """A peer says anew who it is. The library's own handler takes garbage without a word, again and again."""
        with trio.fail_after(IDENTIFY_SECONDS):
            await self._learn_identity(stream)

    async def _learn_identity(self, stream: INetStream) -> None:
        peer_id = stream.muxed_conn.peer_id
        try:
            told = Identify.FromString(await read_varint_prefixed_bytes_limited(stream, IDENTIFY_BYTES_MAX))
        except (MessageTooLarge, ParseError, DecodeError) as error:
            raise BadInput(f"said who it is in a way that cannot be read ({error})") from error
        if self._network.get_connections(peer_id):  # or nobody would forget it again
            await update_peerstore_from_identify(self.get_peerstore(), peer_id, told)
            self._identified_peers[peer_id] = ""
        await stream.close()

    async def _swarm_stream_handler(self, net_stream: INetStream) -> None:
        """A peer opened a stream: agree on what it speaks, and hand it over. Whatever it raises costs that stream."""
        peer, limits = str(net_stream.muxed_conn.peer_id), self._limits
        try:
            with trio.fail_after(limits.negotiate_seconds):
                protocol, handler = await accept(net_stream, self.multiselect.handlers)
        except trio.TooSlowError:
            what = f"did not say within {limits.negotiate_seconds:g} s what a stream is for"
            self._limit_counters.hit("streams_slow", peer, what)
            raise
        assert handler is not None
        net_stream.set_protocol(protocol)
        assert isinstance(net_stream, NetStream) and isinstance(net_stream.muxed_stream, YamuxStream)
        net_stream.muxed_stream.expect(limits.first_byte_seconds, limits.between_bytes_seconds)
        with self._counted(peer, protocol):
            await handler(net_stream)

    @contextmanager
    def _counted(self, peer: str, protocol: TProtocol) -> Iterator[None]:
        place, most = (peer, protocol), self._limits.streams_per_protocol_max
        if self._served.get(place, 0) >= most:
            self._limit_counters.count("streams_per_protocol")
            raise BadInput(f"opened more than {most} streams for {protocol}", Offence.FLOOD)
        self._served[place] = self._served.get(place, 0) + 1
        try:
            yield
        finally:
            self._served[place] -= 1
            if not self._served[place]:
                del self._served[place]

    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None:
        if peer_id not in self._identify_inflight and not self._has_cached_protocols(peer_id):
            self._identify_inflight.add(peer_id)
            self._nursery.start_soon(self._identify, peer_id, reason)

    async def _identify(self, peer_id: ID, reason: str) -> None:
        try:
            with trio.move_on_after(IDENTIFY_SECONDS):
                await self._identify_task_entry(peer_id, reason)
        except Exception as error:
            log.debug("identify of %s failed: %r", peer_id, error)
            if bad := _bad_input(error):
                self._peer_policy.blame(str(peer_id), bad.offence, str(bad))

    async def _identify_peer(self, peer_id: ID, *, reason: str) -> None:
        """Ask a peer who it is. Here as well the library takes garbage without a word."""
        stream = await self.new_stream(peer_id, [IDENTIFY])
        try:
            await self._learn_identity(stream)
        except BaseException:
            with trio.CancelScope(shield=True):
                await stream.reset()
            raise


def _bad_input(error: BaseException | None) -> BadInput | None:
    """The `BadInput` among the causes of an error."""
    while error is not None and not isinstance(error, BadInput):
        error = error.__cause__
    return error
