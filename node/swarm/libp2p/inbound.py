"""Inbound connections: which ones have room, and their handshakes. The host runs those that are done."""

import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from node.swarm.libp2p.pnet import WrongNetworkKey
from node.swarm.libp2p.swarm_adapter import SwarmAdapter
from node.swarm.libp2p.tcp import TcpConnection, accept
from node.swarm.libp2p.upgrade import Upgrader, describe
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.limit_counters import LimitCounters
from node.swarm.limits import SwarmLimits
from protocols.policy.address_scope import subnet


class Inbound:
    """`use` takes a connection whose peer has proved its id, and returns when the connection has ended."""

    def __init__(
        self,
        swarm: SwarmAdapter,
        upgrader: Upgrader,
        limits: SwarmLimits,
        limit_counters: LimitCounters,
        use: Callable[[YamuxConnection, str], Awaitable[None]],
    ) -> None:
        self._swarm = swarm
        self._upgrader = upgrader
        self._limits = limits
        self._limit_counters = limit_counters
        self._use = use
        self.half_open: dict[TcpConnection, None] = {}
        """Connections in their handshake, oldest first."""
        self.by_subnet: Counter[str] = Counter()
        """Connections from public subnets, those in their handshake included."""

    async def run(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        """Accept connections on one socket until cancelled."""
        while True:
            tcp = await accept(sock, self._limit_counters, self._upgrader.connection)
            if self._has_room_for(tcp):
                self.half_open[tcp] = None
                nursery.start_soon(self._serve, tcp)
            else:
                tcp.abort()

    def _has_room_for(self, tcp: TcpConnection) -> bool:
        """Whether a connection may stay; another one may be closed for it."""
        limits, source = self._limits, subnet(tcp.host)
        if source is not None and (count := self.by_subnet[source]) >= limits.connections_per_subnet_max:
            self._limit_counters.hit("connections_per_subnet", source, f"has {count} connections already")
            return False
        if len(self.half_open) >= limits.half_open_max:
            oldest = next(iter(self.half_open))
            del self.half_open[oldest]
            oldest.abort()
            self._limit_counters.hit(
                "half_open_dropped",
                "",
                f"{limits.half_open_max} connections are in their handshake: the oldest is closed",
            )
        if self._swarm.count + len(self.half_open) < limits.connections_max:
            return True
        idle = [c for c in self._swarm.all() if c.lanes is None and not c.needs_lanes and not c.is_closed]
        if not idle:
            self._limit_counters.hit(
                "connections_refused", "", f"there are {limits.connections_max} connections, all in use"
            )
            return False
        longest = max(idle, key=lambda connection: connection.idle_seconds)
        longest.abort("it was idle, and a new connection needed its place")
        self._limit_counters.hit(
            "connections_evicted", "", f"there are {limits.connections_max} connections: an idle one is closed"
        )
        return True

    async def _serve(self, tcp: TcpConnection) -> None:
        source = subnet(tcp.host)
        if source is not None:
            self.by_subnet[source] += 1
        try:
            mux = await self._upgraded(tcp)
            if mux is not None:
                await self._use(mux, tcp.remote)
        finally:
            if source is not None:
                self.by_subnet[source] -= 1
                if not self.by_subnet[source]:
                    del self.by_subnet[source]

    async def _upgraded(self, tcp: TcpConnection) -> YamuxConnection | None:
        mux, seconds = None, self._limits.upgrade_seconds
        try:
            with trio.move_on_after(seconds) as scope:
                mux = await self._upgrader.inbound(tcp)
            if scope.cancelled_caught:
                self._limit_counters.hit("handshakes_slow", tcp.host, f"did not end its handshake within {seconds:g} s")
        except Exception as error:
            if tcp in self.half_open:
                kind = "network_keys_wrong" if isinstance(error, WrongNetworkKey) else "handshakes_failed"
                what = f"did not become a connection: {describe(error):.200}"
                self._limit_counters.hit(kind, tcp.host or "unknown", what)
        finally:
            self.half_open.pop(tcp, None)
            if mux is None:
                tcp.abort()
        return mux
