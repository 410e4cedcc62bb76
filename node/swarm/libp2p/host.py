"""The real network: libp2p over TCP, noise and yamux, with two lanes to each peer.

Importing this file imports libp2p, which takes half a second to two: whoever does not need a swarm does not import it.

Connections come by `listen.py` and `dial.py`, are proved and muxed by `upgrade.py` and `yamux.py`, and make a peer a
connected one by `peer_links.py`. Each has one task here that is its life; whatever goes wrong in it ends that
connection alone.
"""

import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence

import trio
from multiaddr import Multiaddr

from node.swarm.base import FRAME_BYTES_MAX, DialFailed, Lane, Network, Receiver
from node.swarm.libp2p import dial, listen
from node.swarm.libp2p.adapters import HardenedHost, HardenedSwarm, PeerConnection
from node.swarm.libp2p.address import TcpAddress, parse
from node.swarm.libp2p.peer_links import PeerLinks
from node.swarm.libp2p.pubsub import PubSub
from node.swarm.libp2p.release import configure_logging
from node.swarm.libp2p.tcp import TcpConnection
from node.swarm.libp2p.upgrade import Upgrader, in_words
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.limits import USUAL, SwarmLimits, subnet
from node.swarm.peer_policy import PeerPolicy
from protocols.keys import PrivateKey
from protocols.policy.reputation import Offence

PROTOCOL = "/bzzz/store/1.0.0"
_NOT_RUNNING = "this node does not run"


class Host(Network):
    """A node's place in the swarm. `run` is its life; the rest may be called while it runs."""

    def __init__(
        self,
        key: PrivateKey,
        listen: Sequence[str],
        *,
        protocol: str = PROTOCOL,
        is_allowed: Callable[[str], bool] | None = None,
        peer_policy: PeerPolicy | None = None,
        limits: SwarmLimits = USUAL,
        log: logging.Logger | None = None,
    ) -> None:
        """`peer_policy` (its lists, and who lost its place) and `is_allowed` say whom we deal with, on dial and on
        connect.

        The latter is asked anew each time; who is connected already and no longer allowed goes with `recheck`.
        """
        configure_logging()
        self.is_allowed = is_allowed or (lambda peer: True)
        self.peer_policy = peer_policy or PeerPolicy()
        self.peer_policy.on_forfeit(self.disconnect)
        self.peer_policy.on_lists_changed(self.recheck)
        self.limits = limits
        self.library: HardenedHost | None = None
        """libp2p's own host, while this one runs: for protocols other than ours, by `set_stream_handler`."""
        self.pubsub = PubSub(limits=limits)
        """Topics, for announcements and notices; it runs with the host, and costs nothing before it is used."""
        self._peer_id = key.peer_id
        self._listen = tuple(listen)
        self._protocol = protocol
        self._log = log or logging.getLogger(__name__)
        self._limit_counters = self.peer_policy.limit_counters
        self._upgrader = Upgrader(key.seed, limits=limits, limit_counters=self._limit_counters)
        self._swarm = HardenedSwarm(self._upgrader, self.peer_policy)
        self._endpoints: tuple[TcpAddress, ...] = ()
        self._links: PeerLinks | None = None
        self._nursery: trio.Nursery | None = None
        self._half_open: dict[TcpConnection, None] = {}
        self._came_from: Counter[str] = Counter()
        """Connections that came and are open, half or fully, by public subnet."""

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
            links = self._links = PeerLinks(self._peer_id, self._protocol, self._swarm, receiver, self._log)
            async with trio.open_nursery() as nursery:
                self.library = HardenedHost(self._swarm, nursery, self._multiaddrs, self.limits)
                self.library.set_stream_handler(links.protocol, links.came)
                self._nursery = nursery
                nursery.start_soon(self._tick)
                nursery.start_soon(self.pubsub.run, self)
                for sock in sockets:
                    nursery.start_soon(self._accept, sock, nursery)
                task_status.started()
        finally:
            self._nursery = self.library = self._links = None
            listen.close(sockets)

    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        wanted, failed = self._sorted_out(addresses)
        for endpoint in wanted:
            if endpoint.peer is not None and self._is_connected(endpoint.peer):
                return endpoint.peer
        connection = None
        with trio.move_on_after(timeout):
            silent = f"no answer within {timeout:g} s"
            if won := await dial.race(wanted, self._upgrader, self._complaint, failed, silent=silent):
                connection = self._add(won[1], str(won[0]), dialled=True)
                assert self._nursery is not None
                self._nursery.start_soon(self._live, connection)
                await connection.settled.wait()
                if self._is_connected(connection.peer):
                    return connection.peer
        if connection is not None:
            connection.abort(f"its lanes were not up within {timeout:g} s")
            failed[connection.address] = connection.mux.reason
        raise DialFailed("; ".join(f"{address}: {why}" for address, why in failed.items()) or "no address to dial")

    def send(self, peer: str, lane: Lane, frame: bytes) -> bool:
        assert len(frame) <= FRAME_BYTES_MAX, f"a frame of {len(frame):,} bytes, and {FRAME_BYTES_MAX:,} is the most"
        return self._links is not None and self._links.send(peer, lane, frame)

    def disconnect(self, peer: str, reason: str) -> None:
        for connection in self._swarm.of(peer):
            connection.abort(reason)

    def connected_peers(self) -> tuple[str, ...]:
        return self._links.peers() if self._links is not None else ()

    def recheck(self) -> None:
        """Drop every connection to a peer that is no longer welcome."""
        for connection in self._swarm.all():
            if complaint := self._complaint(connection.peer):
                connection.abort(complaint)

    # Connections come, and are dialled.

    async def _accept(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        while True:
            wire = await listen.accept(sock, self._limit_counters)
            if self._has_room_for(wire):
                self._half_open[wire] = None
                nursery.start_soon(self._came, wire)
            else:
                wire.abort()

    def _has_room_for(self, wire: TcpConnection) -> bool:
        """Whether a connection that comes may stay; another one may have to go for it."""
        limits, place = self.limits, subnet(wire.host)
        if place is not None and self._came_from[place] >= limits.connections_per_subnet_max:
            self._limit_counters.hit(
                "connections_per_subnet", place, f"has {self._came_from[place]} connections already"
            )
            return False
        if len(self._half_open) >= limits.half_open_max:
            oldest = next(iter(self._half_open))
            del self._half_open[oldest]
            oldest.abort()
            self._limit_counters.hit(
                "half_open_dropped", "", f"{limits.half_open_max} connections shake hands: the oldest goes"
            )
        if self._swarm.count + len(self._half_open) < limits.connections_max:
            return True
        idle = [c for c in self._swarm.all() if c.lanes is None and not c.dialled and not c.is_closed]
        if not idle:
            self._limit_counters.hit(
                "connections_refused", "", f"there are {limits.connections_max} connections, all in use"
            )
            return False
        longest = max(idle, key=lambda connection: connection.idle_seconds)
        longest.abort("it gives way to a new connection")
        self._limit_counters.hit(
            "connections_evicted", "", f"there are {limits.connections_max} connections: an idle one goes"
        )
        return True

    async def _came(self, wire: TcpConnection) -> None:
        place = subnet(wire.host)
        if place is not None:
            self._came_from[place] += 1
        try:
            mux = await self._upgraded(wire)
            if mux is None:
                return
            if complaint := self._complaint(str(mux.peer_id)):
                self.peer_policy.turn_away(str(mux.peer_id), complaint)
                mux.abort(complaint)
            else:
                await self._live(self._add(mux, wire.remote, dialled=False))
        finally:
            if place is not None:
                self._came_from[place] -= 1
                if not self._came_from[place]:
                    del self._came_from[place]

    async def _upgraded(self, wire: TcpConnection) -> YamuxConnection | None:
        mux, seconds = None, self.limits.upgrade_seconds
        try:
            with trio.move_on_after(seconds) as scope:
                mux = await self._upgrader.inbound(wire)
            if scope.cancelled_caught:
                self._limit_counters.hit(
                    "handshakes_slow", wire.host, f"did not end its handshake within {seconds:g} s"
                )
        except Exception as error:
            if wire in self._half_open:
                what = f"did not become a connection: {in_words(error):.200}"
                self._limit_counters.hit("handshakes_failed", wire.host or "somebody", what)
        finally:
            self._half_open.pop(wire, None)
            if mux is None:
                wire.abort()
        return mux

    def _add(self, mux: YamuxConnection, address: str, *, dialled: bool) -> PeerConnection:
        if self._nursery is None:
            mux.abort(_NOT_RUNNING)
            raise DialFailed(_NOT_RUNNING)
        connection = PeerConnection(mux, self._swarm, address, dialled=dialled)
        if (count := len(self._swarm.of(connection.peer))) >= self.limits.connections_per_peer_max:
            self._limit_counters.hit("connections_per_peer", connection.peer, f"has {count} connections already")
            connection.abort("it has too many connections already")
        self._swarm.add(connection)
        return connection

    async def _live(self, connection: PeerConnection) -> None:
        """A connection's life."""
        links = self._links
        assert links is not None
        try:
            await connection.run(links.settle)
        except Exception:
            self._log.exception("the connection to %s failed", connection.peer)
        finally:
            connection.abort("this node stops")
            self._swarm.remove(connection)
            links.over(connection)
            if connection.mux.is_broken:
                self.peer_policy.blame(connection.peer, Offence.BROKEN_RULES, connection.mux.reason)
        await self._swarm.notify_disconnected(connection)

    async def _tick(self) -> None:
        while True:
            await trio.sleep(1)
            for connection in self._swarm.all():
                connection.tick()
            self._bound_unfinished()

    def _bound_unfinished(self) -> None:
        """Frames that are not here whole may fill so much memory together; those that take longest give way."""
        lanes = [connection.lanes for connection in self._swarm.all() if connection.lanes is not None]
        excess = sum(each.unfinished_bytes for each in lanes) - self.limits.unfinished_bytes_in_all_max
        for each in sorted(lanes, key=lambda each: each.unfinished_seconds, reverse=True) if excess > 0 else ():
            if excess > 0 and (size := each.unfinished_bytes):
                excess -= size
                each.give_up(f"has {size:,} bytes of frames under way, and too much is under way in all")

    # Judgements.

    def _is_connected(self, peer: str) -> bool:
        return self._links is not None and peer in self._links

    def _complaint(self, peer: str) -> str:
        """What stands against a peer, or ''."""
        if peer == self._peer_id:
            return "it is this node itself"
        return self.peer_policy.complaint(peer) if self.is_allowed(peer) else "it is not allowed here"

    def _sorted_out(self, addresses: Sequence[str]) -> tuple[list[TcpAddress], dict[str, str]]:
        """What can be dialled, and why the rest cannot. Raises `DialFailed` when nothing can be now."""
        if self._nursery is None:
            raise DialFailed(_NOT_RUNNING)
        wanted: dict[TcpAddress, None] = {}
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

    def _multiaddrs(self) -> list[Multiaddr]:
        return [Multiaddr(str(endpoint)) for endpoint in self._endpoints]
