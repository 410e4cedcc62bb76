"""libp2p's `Swarm` as the registry of this node's connections. It makes, runs and ends none of them.

The swarm of the library holds an inbound slot for as long as it lives, so that it accepts nothing after 250
connections; dials on its own; blocks a peer for a minute after one dead address; denies local peers that reconnect; and
closes with sleeps. This one keeps its interface, for libp2p's protocols, and none of that: `host.py` alone makes, runs
and ends connections.
"""

from typing import Any

from libp2p.abc import IMuxedConn, INetConn, INetStream, IRawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from node.swarm.libp2p.peer_connection import PeerConnection
from node.swarm.libp2p.upgrade import YAMUX, Upgrader
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.peer_policy import PeerPolicy

_NOT_HERE = "connections are made, listened for and ended by node.swarm.libp2p.host.Host alone"


class _PeerStore(PeerStore):
    """What peers say about themselves, and this node's own key.

    The library's store keeps a thousand peers, and to make room forgets a peer without addresses first: this node
    itself. So a thousand peers that announce addresses cost a plain host its key, and with it identify, for good.
    """

    def __init__(self, own_id: ID, peers_max: int) -> None:
        super().__init__(max_peers=peers_max)
        self._own_id = own_id

    def _enforce_peer_limit(self) -> None:
        own = self.peer_data_map.pop(self._own_id, None)
        super()._enforce_peer_limit()
        if own is not None:
            self.peer_data_map[self._own_id] = own


class SwarmAdapter(Swarm):
    """The connections by peer. It is never run as a service, and has neither a dialler nor a resource manager."""

    connections: dict[ID, list[INetConn]]
    peerstore: PeerStore

    def __init__(self, upgrader: Upgrader, peer_policy: PeerPolicy) -> None:
        self.peer_policy = peer_policy
        self.count = 0
        """Connections that were added and not removed yet."""
        key_pair = upgrader.key_pair
        own_id = ID.from_pubkey(key_pair.public_key)
        peerstore = _PeerStore(own_id, upgrader.limits.connections_max)
        peerstore.add_key_pair(own_id, key_pair)
        noise = Noise(key_pair, noise_privkey=upgrader.noise_key)
        super().__init__(own_id, peerstore, TransportUpgrader({NOISE: noise}, {YAMUX: YamuxConnection}), [TCP()])

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
        """Forget what a peer said about itself. The library keeps it, and does not ask again when the peer returns."""
        self.peerstore.peer_data_map.pop(peer_id, None)
        self.peerstore.peer_record_map.pop(peer_id, None)

    def of(self, peer: str) -> list[PeerConnection]:
        """The open connections of a peer, oldest first."""
        found = self.connections.get(ID.from_base58(peer), ())
        return [c for c in found if isinstance(c, PeerConnection) and not c.is_closed]

    def all(self) -> list[PeerConnection]:
        return [c for group in self.connections.values() for c in group if isinstance(c, PeerConnection)]

    async def new_stream(self, peer_id: ID) -> INetStream:
        """A stream on the connection that has the lanes, because that one stays."""
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

    # What a `Swarm` does on its own, and this one leaves to the host.

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
