"""The real network: libp2p over TCP, noise and yamux, with two lanes to each peer.

Importing this file imports libp2p, which takes half a second to two: whoever does not need a swarm does not import it.

Connections come by `listen.py` and `dial.py`, are proved and muxed by `upgrade.py` and `yamux.py`, and make a peer a
connected one by `links.py`. Each has one task here that is its life; whatever goes wrong in it ends that connection
alone.
"""

import logging
import socket
from collections.abc import Callable, Sequence

import trio
from multiaddr import Multiaddr

from node.swarm import dial, listen
from node.swarm.address import Endpoint, parse
from node.swarm.base import FRAME_BYTES_MAX, DialFailed, Lane, Network, Receiver
from node.swarm.hardening import Connection, HardenedHost, HardenedSwarm
from node.swarm.library import configure_logging
from node.swarm.links import Links
from node.swarm.upgrade import Upgrader
from node.swarm.wire import Wire
from node.swarm.yamux import Mux
from protocols.keys import PrivateKey

PROTOCOL = "/bzzz/store/1.0.0"
UPGRADE_SECONDS = 5.0
"""What a connection that came may take to prove who it is and to agree on a muxer."""
HALF_OPEN_MAX = 512
"""Connections that came and are not upgraded; for one more, the oldest of them is dropped."""
CONNECTIONS_PER_PEER_MAX = 8
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
        log: logging.Logger | None = None,
    ) -> None:
        """`is_allowed` says of a peer id whether we deal with it, on dial and on connect; without it, with everyone.

        It is asked anew each time. Who is connected already and no longer welcome goes with `recheck`.
        """
        configure_logging()
        self.is_allowed = is_allowed or (lambda peer: True)
        self.library: HardenedHost | None = None
        """libp2p's own host, while this one runs: for protocols other than ours, by `set_stream_handler`."""
        self._peer_id = key.peer_id
        self._listen = tuple(listen)
        self._protocol = protocol
        self._log = log or logging.getLogger(__name__)
        self._upgrader = Upgrader(key.seed)
        self._swarm = HardenedSwarm(self._upgrader)
        self._endpoints: tuple[Endpoint, ...] = ()
        self._links: Links | None = None
        self._nursery: trio.Nursery | None = None
        self._half_open: dict[Wire, None] = {}

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
            links = self._links = Links(self._peer_id, self._protocol, self._swarm, receiver, self._log)
            async with trio.open_nursery() as nursery:
                self.library = HardenedHost(self._swarm, nursery, self._multiaddrs)
                self.library.set_stream_handler(links.protocol, links.came)
                self._nursery = nursery
                nursery.start_soon(self._tick)
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
            outcome = await dial.race(wanted, self._upgrader, self._complaint)
            if isinstance(outcome, dict):
                failed.update({str(endpoint): why for endpoint, why in outcome.items()})
            else:
                connection = self._add(outcome[1], str(outcome[0]), dialled=True)
                await connection.settled.wait()
                if self._is_connected(connection.peer):
                    return connection.peer
        if connection is not None:
            connection.abort(f"its lanes were not up within {timeout:g} s")
            failed[connection.address] = connection.mux.reason
        for endpoint in wanted:
            failed.setdefault(str(endpoint), f"no answer within {timeout:g} s")
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
        if self._nursery is None:
            mux.abort(_NOT_RUNNING)
            raise DialFailed(_NOT_RUNNING)
        connection = Connection(mux, self._swarm, address, dialled=dialled)
        if len(self._swarm.of(connection.peer)) >= CONNECTIONS_PER_PEER_MAX:
            connection.abort("it has too many connections already")
        self._swarm.add(connection)
        self._nursery.start_soon(self._live, connection)
        return connection

    async def _live(self, connection: Connection) -> None:
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
        await self._swarm.notify_disconnected(connection)

    async def _tick(self) -> None:
        while True:
            await trio.sleep(1)
            for connection in self._swarm.all():
                connection.mux.tick()

    # Judgements.

    def _is_connected(self, peer: str) -> bool:
        return self._links is not None and peer in self._links

    def _complaint(self, peer: str) -> str:
        """What stands against a peer, or ''."""
        if peer == self._peer_id:
            return "it is this node itself"
        return "" if self.is_allowed(peer) else "it is not allowed here"

    def _sorted_out(self, addresses: Sequence[str]) -> tuple[list[Endpoint], dict[str, str]]:
        """What can be dialled, and why the rest cannot. Raises `DialFailed` when nothing can be now."""
        if self._nursery is None:
            raise DialFailed(_NOT_RUNNING)
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

    def _multiaddrs(self) -> list[Multiaddr]:
        return [Multiaddr(str(endpoint)) for endpoint in self._endpoints]
