"""The real network: libp2p over TCP, noise and yamux, with two lanes to each peer.

Importing this file imports libp2p, which takes half a second to two seconds: code without a swarm does not import it.

Connections are accepted by `inbound.py` or dialled by `dial.py`, secured and muxed by `upgrade.py` and `yamux.py`, and
become the link of a peer by `peer_links.py`. One task here runs each connection; its failure ends that connection
alone.
"""

import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from math import inf

import trio
from multiaddr import Multiaddr

from node.swarm.base import FRAME_BYTES_MAX, DialFailed, Lane, Network, Receiver
from node.swarm.libp2p import dial, listen
from node.swarm.libp2p.address import TcpAddress, parse
from node.swarm.libp2p.dial import Failures
from node.swarm.libp2p.host_adapter import HostAdapter
from node.swarm.libp2p.inbound import Inbound
from node.swarm.libp2p.interfaces import OwnEndpoints
from node.swarm.libp2p.kad_streams import KadStreams
from node.swarm.libp2p.peer_connection import PeerConnection
from node.swarm.libp2p.peer_links import PeerLinks
from node.swarm.libp2p.pubsub import GossipSubPubSub
from node.swarm.libp2p.release import configure_logging
from node.swarm.libp2p.swarm_adapter import SwarmAdapter
from node.swarm.libp2p.twin_search import TwinSearch
from node.swarm.libp2p.upgrade import Upgrader
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.limits import USUAL, SwarmLimits
from node.swarm.peer_policy import PeerPolicy
from protocols.keys import PrivateKey
from protocols.policy.peer_events import ITSELF
from protocols.policy.reputation import Offence
from protocols.policy.twin import CHECK_SECONDS

PROTOCOL = "/bzzz/store/1.0.0"
_NOT_RUNNING = "this node does not run"
_MAY_DIFFER = "; a node with another network key may be silent, too"
"""What it reads of this node is random to it, and may look like the start of a long message."""
_BACKS_OFF = "this node has no peers while another node runs with its identity"


class Host(Network):
    """The network of one node. The other methods may be called while `run` runs."""

    def __init__(
        self,
        key: PrivateKey,
        listen: Sequence[str],
        *,
        network_key: bytes | None = None,
        protocol: str = PROTOCOL,
        is_allowed: Callable[[str], bool] | None = None,
        peer_policy: PeerPolicy | None = None,
        limits: SwarmLimits = USUAL,
        log: logging.Logger | None = None,
    ) -> None:
        """`peer_policy` and `is_allowed` decide which peers this node deals with, at each dial and each connect.
        `recheck` disconnects peers for which `is_allowed` has changed. Peers need the same `network_key`, or none.
        """
        configure_logging()
        self.is_allowed = is_allowed or (lambda peer: True)
        self.peer_policy = peer_policy or PeerPolicy()
        self.peer_policy.on_forfeit(self.disconnect)
        self.peer_policy.on_lists_changed(self.recheck)
        self.limits = limits
        self.library: HostAdapter | None = None
        """libp2p's own host, while this one runs: for other protocols, by `set_stream_handler`."""
        self._pubsub = GossipSubPubSub(limits=limits)
        self._peer_id = key.peer_id
        self._listen = tuple(listen)
        self._protocol = protocol
        self._log = log or logging.getLogger(__name__)
        self._limit_counters = self.peer_policy.limit_counters
        self._upgrader = Upgrader(key.seed, network_key=network_key, limits=limits, limit_counters=self._limit_counters)
        self.swarm = SwarmAdapter(self._upgrader, self.peer_policy)
        """All connections."""
        self._twins = TwinSearch(
            self._upgrader.session_key, dial=self._dial_twin, on_back_off=self.recheck, log=self._log
        )
        self._started_at = -inf
        self._dials = trio.CapacityLimiter(limits.dialling_max)
        """A place for the socket of each dial under way."""
        self._endpoints: OwnEndpoints | None = None
        self._links: PeerLinks | None = None
        self._nursery: trio.Nursery | None = None
        self.inbound = Inbound(self.swarm, self._upgrader, limits, self._limit_counters, self._connected_from)
        self._kad = KadStreams(self.swarm, self.peer_policy, limits, self._connect)

    @property
    def peer_id(self) -> str:
        return self._peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(f"{endpoint}/p2p/{self._peer_id}" for endpoint in self._endpoints.now) if self._endpoints else ()

    async def addresses_changed(self) -> None:
        assert self._endpoints is not None, "the host does not run"
        await self._endpoints.changed()

    @property
    def pubsub(self) -> GossipSubPubSub:
        return self._pubsub

    @property
    def kad(self) -> KadStreams:
        return self._kad

    async def run(self, receiver: Receiver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        sockets = listen.bind(self._listen)
        self._started_at = trio.current_time()
        try:
            endpoints = self._endpoints = OwnEndpoints(sockets, self._drop_connections_from)
            links = self._links = PeerLinks(self._peer_id, self._protocol, self.swarm, receiver, self._log)
            async with trio.open_nursery() as nursery:
                self.library = HostAdapter(self.swarm, nursery, self._multiaddrs, self.limits, self._kad.identified)
                self.library.set_stream_handler(links.protocol, links.lane_opened)
                self._nursery = nursery
                try:
                    nursery.start_soon(self._tick)
                    nursery.start_soon(endpoints.run)
                    nursery.start_soon(self._twins.run)
                    nursery.start_soon(self._pubsub.run, self.library)
                    await nursery.start(self._kad.run, self.library)
                    for sock in sockets:
                        nursery.start_soon(self.inbound.run, sock, nursery)
                    task_status.started()
                    await trio.sleep_forever()
                finally:
                    self._nursery = None  # before it closes: a dial that ends now must not start a task in it
        finally:
            self.library = self._links = None
            listen.close(sockets)

    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        return await self._connect(addresses, timeout=timeout, needs_lanes=True)

    async def _connect(self, addresses: Sequence[str], *, timeout: float, needs_lanes: bool) -> str:
        """Dial a peer. Without `needs_lanes` it is connected as soon as it has proved its id."""
        wanted, failures = self._to_dial(addresses)
        failed = failures.reasons
        for peer in (endpoint.peer for endpoint in wanted if endpoint.peer is not None):
            if self._is_connected(peer) or (not needs_lanes and self.swarm.of(peer)):
                return peer
        connection = None
        with trio.move_on_after(timeout):
            if won := await dial.race(
                list(wanted),
                self._upgrader,
                self._complaint_about,
                failures,
                silent=f"no answer within {timeout:g} s{_MAY_DIFFER if self._upgrader.is_private else ''}",
                sockets=self._dials,
                no_room=self._no_room_to_dial,
            ):
                connection = self._add(won[1], str(won[0]), dialled=True, needs_lanes=needs_lanes)
                assert self._nursery is not None
                self._nursery.start_soon(self._run_connection, connection)
                if not needs_lanes:
                    return connection.peer
                await connection.settled.wait()
                if self._is_connected(connection.peer):
                    return connection.peer
        if connection is not None:
            connection.abort(f"its lanes were not up within {timeout:g} s")
            failed[connection.address] = connection.mux.reason
        others = {wanted[e]: other for e in wanted if (other := failures.others.get(str(e)))}
        why = "; ".join(f"{address}: {reason}" for address, reason in failed.items())
        raise DialFailed(why or "no address to dial", others)

    def send(self, peer: str, lane: Lane, frame: bytes) -> bool:
        assert len(frame) <= FRAME_BYTES_MAX, f"a frame of {len(frame):,} bytes, and {FRAME_BYTES_MAX:,} is the most"
        return self._links is not None and self._links.send(peer, lane, frame)

    def address_fault(self, address: str) -> str:
        try:
            parse(address)
        except ValueError as error:
            return str(error)
        return ""

    def disconnect(self, peer: str, reason: str) -> None:
        for connection in self.swarm.of(peer):
            connection.abort(reason)

    def connected_peers(self) -> tuple[str, ...]:
        return self._links.peers() if self._links is not None else ()

    def recheck(self) -> None:
        """Close every connection to a peer that is no longer allowed."""
        for connection in self.swarm.all():
            if complaint := self._complaint(connection.peer):
                connection.abort(complaint)

    async def _connected_from(self, mux: YamuxConnection, remote: str) -> None:
        """A peer that dialled this node has proved its id: run the connection until it ends, if the peer may come."""
        peer = str(mux.peer_id)
        if peer == self._peer_id and self._twins.met(mux, remote, dialled=False):
            mux.abort("it has the identity of this node")
        elif complaint := self._complaint(peer):
            self.peer_policy.refuse(peer, complaint)
            mux.abort(complaint)
        else:
            await self._run_connection(self._add(mux, remote, dialled=False, needs_lanes=False))

    def _add(self, mux: YamuxConnection, address: str, *, dialled: bool, needs_lanes: bool) -> PeerConnection:
        if self._nursery is None:
            mux.abort(_NOT_RUNNING)
            raise DialFailed(_NOT_RUNNING)
        connection = PeerConnection(
            mux, self.swarm, self.peer_policy, address, dialled=dialled, needs_lanes=needs_lanes
        )
        if (count := len(self.swarm.of(connection.peer))) >= self.limits.connections_per_peer_max:
            self._limit_counters.hit("connections_per_peer", connection.peer, f"has {count} connections already")
            connection.abort("it has too many connections already")
        self.swarm.add(connection)
        return connection

    async def _run_connection(self, connection: PeerConnection) -> None:
        """Run a connection until it ends, and remove it."""
        links = self._links
        assert links is not None
        try:
            await connection.run(links.settle)
        except Exception:
            self._log.exception("the connection to %s failed", connection.peer)
        finally:
            connection.abort("this node stops")
            self.swarm.remove(connection)
            links.ended(connection)
            if connection.mux.broke_rules:
                self.peer_policy.blame(connection.peer, Offence.BROKEN_RULES, connection.mux.reason)
        await self.swarm.notify_disconnected(connection)

    async def _tick(self) -> None:
        while True:
            await trio.sleep(1)
            for connection in self.swarm.all():
                connection.tick()
            self._bound_unfinished()
            self._twins.tick()

    def _drop_connections_from(self, hosts: Set[str]) -> None:
        """This machine lost these addresses: connections from them are dead, and nothing else would show it for
        seconds."""
        for connection in self.swarm.all():
            if connection.mux.tcp.own_host in hosts:
                connection.abort("this machine lost the address that it had on this connection")

    def _bound_unfinished(self) -> None:
        """Bound the memory of incomplete frames: close the connections whose frames take longest."""
        lanes = [connection.lanes for connection in self.swarm.all() if connection.lanes is not None]
        excess = sum(each.unfinished_bytes for each in lanes) - self.limits.unfinished_bytes_in_all_max
        for each in sorted(lanes, key=lambda each: each.unfinished_seconds, reverse=True) if excess > 0 else ():
            if excess > 0 and (size := each.unfinished_bytes):
                excess -= size
                each.give_up(f"has {size:,} bytes of frames under way, and too much is under way in all")

    def _no_room_to_dial(self) -> str:
        """Why a socket of a dial, which has its place already, may not become a connection, or ''."""
        limits, sockets = self.limits, self.swarm.count + len(self.inbound.half_open) + self._dials.borrowed_tokens
        if sockets <= limits.connections_max + limits.dialling_max:
            return ""
        return f"this node has {self.swarm.count} connections, and no room for another one"

    # Another node with this node's identity.

    @property
    def twin(self) -> str:
        return self._twins.in_words()

    async def look_for_twin(self, addresses: Sequence[str]) -> None:
        elsewhere = [address for address in addresses if address not in self.addresses]
        await self._twins.look(elsewhere, started_at=self._started_at)

    def twin_reported(self, log_id: str, address: str, *, yields: bool) -> None:
        self._twins.reported(log_id, "" if self.address_fault(address) else address, yields=yields)

    async def _dial_twin(self, addresses: Sequence[str]) -> None:
        """Find out whether a twin is at one of these addresses. Whatever answers there is not connected."""
        endpoints = [replace(parse(address), peer=None) for address in addresses if not self.address_fault(address)]
        with trio.move_on_after(CHECK_SECONDS):
            await dial.race(
                endpoints,
                self._upgrader,
                lambda mux: self._complaint_about(mux) or "only a twin is looked for",
                Failures(),
                silent="",
                sockets=self._dials,
                no_room=self._no_room_to_dial,
            )

    def _complaint_about(self, mux: YamuxConnection) -> str:
        """Why this node does not deal with the peer at the other end of a dial, or ''."""
        peer = str(mux.peer_id)
        if peer == self._peer_id and self._twins.met(mux, mux.tcp.remote, dialled=True):
            return "another node with this node's identity answers there"
        return self._complaint(peer)

    # Which peers and addresses.

    def _is_connected(self, peer: str) -> bool:
        return self._links is not None and peer in self._links

    def _complaint(self, peer: str) -> str:
        """Why this node does not deal with a peer, or ''."""
        if peer == self._peer_id:
            return ITSELF
        if self._twins.is_backing_off:
            return _BACKS_OFF
        return self.peer_policy.complaint(peer) if self.is_allowed(peer) else "it is not allowed here"

    def _to_dial(self, addresses: Sequence[str]) -> tuple[dict[TcpAddress, str], Failures]:
        """The addresses to dial with their texts, and why the others are left out. Raises `DialFailed` when the host
        does not run."""
        if self._nursery is None:
            raise DialFailed(_NOT_RUNNING)
        if self._twins.is_backing_off:
            raise DialFailed(_BACKS_OFF)
        wanted: dict[TcpAddress, str] = {}
        failures = Failures()
        for text in addresses:
            try:
                endpoint = parse(text)
            except ValueError as error:
                failures.reasons[text] = str(error)
                continue
            if endpoint.peer is not None and (complaint := self._complaint(endpoint.peer)):
                failures.reasons[text] = complaint
            else:
                wanted[endpoint] = text
        return wanted, failures

    def _multiaddrs(self) -> list[Multiaddr]:
        return [Multiaddr(str(endpoint)) for endpoint in self._endpoints.now] if self._endpoints else []
