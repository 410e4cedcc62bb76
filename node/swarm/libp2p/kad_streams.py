"""The DHT's protocol over libp2p: one long-lived stream to each peer that is asked, and the streams that peers open.

Which peers speak it, and where they can be dialled, is in the identity that they send.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.peer.id import ID

from node.swarm import base
from node.swarm.base import KadFailed, KadReceiver
from node.swarm.libp2p.host_adapter import HostAdapter
from node.swarm.libp2p.kad_client import KadClient, Question
from node.swarm.libp2p.kad_server import KadServer
from node.swarm.libp2p.message_splitter import prefixed
from node.swarm.libp2p.signed_addresses import signed_addresses
from node.swarm.libp2p.swarm_adapter import SwarmAdapter
from node.swarm.limits import SwarmLimits
from node.swarm.peer_policy import PeerPolicy
from protocols.kademlia.message_codec import address_text
from protocols.kademlia.messages import ADDRESSES_MAX, PROTOCOL
from protocols.policy.address_scope import endpoint_of, host_of, subnet
from protocols.policy.reputation import Offence

log = logging.getLogger(__name__)

_NAME = TProtocol(PROTOCOL)


class _Connect(Protocol):
    async def __call__(self, addresses: Sequence[str], *, timeout: float, needs_lanes: bool) -> str: ...


class KadStreams(base.Kad):
    """The `Kad` of one host. `connect` dials a peer."""

    def __init__(self, swarm: SwarmAdapter, peer_policy: PeerPolicy, limits: SwarmLimits, connect: _Connect) -> None:
        self._swarm = swarm
        self._peer_policy = peer_policy
        self._limits = limits
        self._connect = connect
        self._receiver: KadReceiver | None = None
        self._clients: dict[str, KadClient] = {}
        """By peer, while there is a stream to it."""
        self._library: HostAdapter | None = None
        self._nursery: trio.Nursery | None = None

    def attach(self, receiver: KadReceiver) -> None:
        assert self._receiver is None and self._library is None, "attached already, or the host runs"
        self._receiver = receiver

    async def run(self, library: HostAdapter, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve peers, and ask those that are to be asked, until cancelled."""
        if self._receiver is None:
            task_status.started()
            return
        library.counted_elsewhere.add(_NAME)
        library.set_stream_handler(_NAME, KadServer(self._receiver, self._peer_policy, self._limits).serve)
        async with trio.open_nursery() as nursery:
            self._library, self._nursery = library, nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it closes: a peer that is asked now must not start a task in it

    def identified(self, peer: str, identity: Identify) -> None:
        """A peer sent its identity. One without protocols says nothing of them."""
        receiver = self._receiver
        if receiver is None or not identity.protocols:
            return
        try:
            if PROTOCOL in identity.protocols:
                receiver.found(peer, self._addresses(peer, identity))
            else:
                receiver.stopped(peer)
        except Exception:
            log.exception("the DHT's receiver failed at the identity of %s", peer)

    def _addresses(self, peer: str, identity: Identify) -> tuple[str, ...]:
        """Where a peer can be dialled: where it was, and as it says. A public address that it connected from counts as
        well, when it is at none that it names: or it could hide in which subnet it is."""
        named = [address_text(peer, encoded) for encoded in self._named(peer, identity)[: 2 * ADDRESSES_MAX]]
        connections = self._swarm.of(peer)
        dialled = [_with_peer(each.address, peer) for each in connections if each.dialled]
        known = {host_of(address) for address in (*dialled, *named)}
        hidden = [
            _with_peer(each.address, peer)
            for each in connections
            if subnet(host_of(each.address)) is not None and host_of(each.address) not in known
        ]
        return tuple(address for address in dict.fromkeys((*dialled, *named, *hidden)) if address)[:ADDRESSES_MAX]

    def _named(self, peer: str, identity: Identify) -> Sequence[bytes]:
        """The addresses that a peer names: those that it signed, where it signs them."""
        if not identity.signedPeerRecord:
            return identity.listen_addrs
        try:
            return signed_addresses(peer, identity.signedPeerRecord)
        except ValueError as error:
            self._peer_policy.blame(peer, Offence.BAD_INPUT, f"sent in its identity {error}")
            return ()

    def is_connected(self, peer: str) -> bool:
        return bool(self._swarm.of(peer))

    async def connect(self, peer: str, addresses: Sequence[str], *, timeout: float) -> None:
        if not self.is_connected(peer):
            await self._connect([each for each in addresses if _names(peer, each)], timeout=timeout, needs_lanes=False)

    async def ask(self, peer: str, *messages: bytes) -> bytes:
        question = Question(b"".join(prefixed(message) for message in messages))
        self._client(peer).ask(question)
        try:
            await question.over.wait()
        finally:
            question.is_given_up = True
        if question.answer is None:
            raise KadFailed(question.why)
        return question.answer

    def _client(self, peer: str) -> KadClient:
        if (client := self._clients.get(peer)) is None:
            if self._nursery is None or not self.is_connected(peer):
                raise KadFailed("it is not connected" if self._nursery else "this node does not run")
            client = self._clients[peer] = KadClient(
                partial(self._open_stream, peer),
                lambda what: self._peer_policy.blame(peer, Offence.BAD_INPUT, f"answered in the DHT with {what}"),
                asked_max=self._limits.kad_asked_max,
            )
            self._nursery.start_soon(self._run_client, peer, client)
        return client

    async def _run_client(self, peer: str, client: KadClient) -> None:
        try:
            await client.run()
        finally:
            del self._clients[peer]

    async def _open_stream(self, peer: str) -> INetStream:
        assert self._library is not None, "a client runs while the host does"
        return await self._library.new_stream(ID.from_base58(peer), [_NAME])


def _with_peer(address: str, peer: str) -> str:
    return f"{endpoint_of(address)}/p2p/{peer}"


def _names(peer: str, address: str) -> bool:
    """Whether only this peer is accepted at an address."""
    return address.endswith(f"/p2p/{peer}")
