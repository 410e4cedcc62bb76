"""The real network: libp2p over TCP, noise and yamux, with two lanes to each peer.

Importing this file imports libp2p, which takes half a second to two: whoever does not need a swarm does not import it.

A peer is connected once both lanes are up on one connection. Of two nodes, the one with the smaller peer id opens the
lanes, whoever dialled, and at any time on one connection alone; so both agree on the connection without a word about
it, even when they dialled each other at once. Each then closes what it dialled in vain. A node that comes back to a
peer that has not yet noticed its loss is not shut out: before the smaller one leaves a new connection waiting, it asks
the old one for a sign of life.
"""

import logging
import socket
from collections.abc import Callable, Sequence

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.stream.net_stream import NetStream
from multiaddr import Multiaddr

from node.swarm import dial, listen
from node.swarm.address import Endpoint, parse
from node.swarm.base import FRAME_BYTES_MAX, DialFailed, Lane, Network, Receiver
from node.swarm.hardening import Connection, HardenedHost, HardenedSwarm
from node.swarm.lanes import RANK, Lanes, name_lane, read_lane
from node.swarm.library import configure_logging
from node.swarm.negotiate import propose
from node.swarm.stream import MuxStream
from node.swarm.upgrade import Upgrader
from node.swarm.wire import Wire
from node.swarm.yamux import Mux
from protocols.keys import PrivateKey

PROTOCOL = "/bzzz/store/1.0.0"
UPGRADE_SECONDS = 5.0
"""What a connection that came may take to prove who it is and to agree on a muxer."""
LANES_SECONDS = 5.0
"""What opening both lanes may take."""
PROBE_SECONDS = 1.0
"""What a connection may take to show that it lives, while a newer one to the same peer waits."""
HALF_OPEN_MAX = 512
"""Connections that came and are not upgraded; for one more, the oldest of them is dropped."""
CONNECTIONS_PER_PEER_MAX = 8


class Host(Network):
    """A node's place in the swarm. `run` is its life; the rest may be called while it runs."""

    def __init__(
        self,
        key: PrivateKey,
        listen: Sequence[str],
        *,
        protocol: str = PROTOCOL,
        is_allowed: Callable[[str], bool] | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        """`is_allowed` says of a peer id whether we deal with it, on dial and on connect; without it, with everyone.

        It is asked anew each time. Who is connected already and no longer welcome goes with `recheck`.
        """
        configure_logging()
        self.is_allowed = is_allowed or (lambda peer: True)
        self._peer_id = key.peer_id
        self._listen = tuple(listen)
        self._protocol = TProtocol(protocol)
        self._log = log or logging.getLogger(__name__)
        self._upgrader = Upgrader(key.seed)
        self._swarm = HardenedSwarm(self._upgrader)
        self._endpoints: tuple[Endpoint, ...] = ()
        self._receiver: Receiver | None = None
        self.library: HardenedHost | None = None
        """libp2p's own host, while this one runs: for protocols other than ours, by `set_stream_handler`."""
        self._nursery: trio.Nursery | None = None
        self._half_open: dict[Wire, None] = {}
        self._chosen: dict[str, Connection] = {}
        """The one connection of a peer that we open, or opened, the lanes on, where that is ours to do."""
        self._linked: dict[str, Connection] = {}
        """Who is connected, by which connection."""

    @property
    def peer_id(self) -> str:
        return self._peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(f"{endpoint}/p2p/{self._peer_id}" for endpoint in self._endpoints)

    async def run(self, receiver: Receiver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        sockets = listen.bind(self._listen)
        try:
            self._endpoints = listen.announced(sockets)
            self._receiver = receiver
            async with trio.open_nursery() as nursery:
                self.library = HardenedHost(self._swarm, nursery, self._multiaddrs)
                self.library.set_stream_handler(self._protocol, self._lane_came)
                self._nursery = nursery
                nursery.start_soon(self._tick)
                for sock in sockets:
                    nursery.start_soon(self._accept, sock, nursery)
                task_status.started()
        finally:
            self._nursery = self.library = None
            listen.close(sockets)

    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        wanted, failed = self._endpoints_of(addresses)
        for endpoint in wanted:
            if endpoint.peer is not None and self._is_connected(endpoint.peer):
                return endpoint.peer
        if self._nursery is None:
            raise DialFailed("this node does not run")
        peer, connection = "", None
        with trio.move_on_after(timeout):
            outcome = await dial.race(wanted, self._upgrader, self._complaint)
            if isinstance(outcome, dict):
                failed.update({str(endpoint): why for endpoint, why in outcome.items()})
            else:
                endpoint, mux = outcome
                connection = self._add(mux, str(endpoint), dialled=True)
                peer = connection.peer
                await connection.settled.wait()
                if self._is_connected(peer):
                    return peer
                failed[str(endpoint)] = connection.mux.reason
        if connection is not None:
            connection.abort(f"its lanes were not up within {timeout:g} s")
            failed.setdefault(connection.address, connection.mux.reason)
        for endpoint in wanted:
            failed.setdefault(str(endpoint), f"no answer within {timeout:g} s")
        raise DialFailed("; ".join(f"{address}: {why}" for address, why in failed.items()) or "no address to dial")

    def send(self, peer: str, lane: Lane, frame: bytes) -> bool:
        assert len(frame) <= FRAME_BYTES_MAX, f"a frame of {len(frame):,} bytes, and {FRAME_BYTES_MAX:,} is the most"
        connection = self._linked.get(peer)
        return connection is not None and connection.lanes is not None and connection.lanes.send(lane, frame)

    def disconnect(self, peer: str, reason: str) -> None:
        for connection in self._swarm.of(peer):
            connection.abort(reason)

    def connected_peers(self) -> tuple[str, ...]:
        return tuple(peer for peer, connection in self._linked.items() if not connection.is_closed)

    def recheck(self) -> None:
        """Drop every connection to a peer that is no longer allowed."""
        for connection in self._swarm.all():
            if not self.is_allowed(connection.peer):
                connection.abort("it is no longer allowed here")

    # Connections come, and are dialled.

    async def _accept(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        while True:
            wire = await listen.accept(sock)
            if len(self._half_open) >= HALF_OPEN_MAX:
                oldest = next(iter(self._half_open))
                del self._half_open[oldest]
                oldest.abort()
            self._half_open[wire] = None
            nursery.start_soon(self._came, wire)

    async def _came(self, wire: Wire) -> None:
        mux = None
        try:
            with trio.move_on_after(UPGRADE_SECONDS):
                mux = await self._upgrader.inbound(wire)
        except Exception as error:
            self._log.debug("%s did not become a connection: %r", wire.remote, error)
        finally:
            self._half_open.pop(wire, None)
            if mux is None:
                wire.abort()
        if mux is None:
            return
        if complaint := self._complaint(str(mux.peer_id)):
            mux.abort(complaint)
        else:
            self._add(mux, wire.remote, dialled=False)

    def _add(self, mux: Mux, address: str, *, dialled: bool) -> Connection:
        assert self._nursery is not None
        connection = Connection(mux, self._swarm, address, dialled=dialled)
        others = self._swarm.of(connection.peer)
        self._swarm.add(connection)
        if len(others) >= CONNECTIONS_PER_PEER_MAX:
            connection.abort("it has too many connections already")
        self._nursery.start_soon(self._live, connection)
        return connection

    async def _live(self, connection: Connection) -> None:
        """A connection's life. Whatever goes wrong in it ends it, and nothing else."""
        try:
            await connection.run(self._settle)
        except Exception:
            self._log.exception("the connection to %s failed", connection.peer)
        finally:
            connection.abort("this node stops")
            self._swarm.remove(connection)
            self._down(connection)
            if self._chosen.get(connection.peer) is connection:
                del self._chosen[connection.peer]
            connection.settled.set()
            connection.over.set()
        await self._swarm.notify_disconnected(connection)

    def _complaint(self, peer: str) -> str:
        if peer == self._peer_id:
            return "it is this node itself"
        return "" if self.is_allowed(peer) else "it is not allowed here"

    def _endpoints_of(self, addresses: Sequence[str]) -> tuple[list[Endpoint], dict[str, str]]:
        """What can be dialled, and why the rest cannot."""
        wanted: dict[Endpoint, None] = {}
        failed: dict[str, str] = {}
        for text in addresses:
            try:
                endpoint = parse(text)
            except ValueError as error:
                failed[text] = str(error)
                continue
            if endpoint.peer is not None and (complaint := self._complaint(endpoint.peer)):
                failed[text] = complaint
            else:
                wanted[endpoint] = None
        return list(wanted), failed

    # Lanes.

    async def _settle(self, connection: Connection) -> None:
        """Open the lanes, if that is ours to do, as soon as this connection is the one to have them."""
        if connection.dialled and self._is_connected(connection.peer):
            connection.abort("the peer was connected meanwhile")
        elif self._peer_id < connection.peer:
            while (other := self._chosen.get(connection.peer)) is not None:
                await self._wait_turn(connection, other)
            self._chosen[connection.peer] = connection
            await self._open_lanes(connection)

    async def _wait_turn(self, connection: Connection, other: Connection) -> None:
        """Until `other` has ended, or this connection: it is cancelled then."""
        await other.settled.wait()
        if self._chosen.get(connection.peer) is not other:
            return
        if connection.dialled and not other.is_closed:
            connection.abort("the peer was connected meanwhile")
        elif not await other.mux.ping(PROBE_SECONDS):
            other.abort(f"no sign of life for {PROBE_SECONDS:g} s, and the peer came anew")
        await other.over.wait()

    async def _open_lanes(self, connection: Connection) -> None:
        try:
            with trio.fail_after(LANES_SECONDS):
                async with trio.open_nursery() as nursery:
                    for lane in Lane:
                        nursery.start_soon(self._open_lane, connection, lane)
        except* Exception as errors:
            self._log.debug("no lanes to %s: %r", connection.peer, errors.exceptions)
        if len(connection.named) == len(Lane):
            self._up(connection)
        elif connection.dialled:
            connection.abort(f"it does not open {self._protocol}")
        else:  # A peer of another kind came, whom libp2p's other protocols serve.
            del self._chosen[connection.peer]
            connection.settled.set()

    async def _open_lane(self, connection: Connection, lane: Lane) -> None:
        stream = await connection.mux.open_stream(RANK[lane])
        await propose(stream, self._protocol)
        await name_lane(stream, lane)
        if await read_lane(stream) is not lane:
            raise ValueError("the peer named another lane than it was asked for")
        connection.named[lane] = stream

    async def _lane_came(self, net_stream: INetStream) -> None:
        """The peer opened a lane."""
        assert isinstance(net_stream, NetStream)
        connection: object = net_stream.swarm_conn
        stream = net_stream.muxed_stream
        assert isinstance(connection, Connection)
        assert isinstance(stream, MuxStream)
        if self._peer_id < connection.peer:
            raise ValueError("the peer opened a lane, which is ours to do")
        with trio.fail_after(LANES_SECONDS):
            lane = await read_lane(stream)
        if lane in connection.named:
            raise ValueError("the peer named a lane twice")
        connection.named[lane] = stream
        await name_lane(stream, lane)
        if len(connection.named) == len(Lane):
            self._up(connection)

    # Who is connected.

    def _is_connected(self, peer: str) -> bool:
        connection = self._linked.get(peer)
        return connection is not None and not connection.is_closed

    def _up(self, connection: Connection) -> None:
        assert self._receiver is not None
        receiver, peer = self._receiver, connection.peer
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
                other.abort("the peer was connected meanwhile")
        connection.settled.set()

    def _down(self, connection: Connection) -> None:
        assert self._receiver is not None
        if self._linked.get(connection.peer) is connection:
            del self._linked[connection.peer]
            self._tell(self._receiver.disconnected, connection.peer, connection.mux.reason)

    def _tell(self, what: Callable[..., None], *facts: object) -> None:
        """The receiver promises not to raise. Should it, the host goes on."""
        try:
            what(*facts)
        except Exception:
            self._log.exception("the receiver could not be told %s", facts)

    # Life.

    async def _tick(self) -> None:
        while True:
            await trio.sleep(1)
            for connection in self._swarm.all():
                connection.mux.tick()

    def _multiaddrs(self) -> list[Multiaddr]:
        return [Multiaddr(str(endpoint)) for endpoint in self._endpoints]
