"""libp2p's `BasicHost` for this node: stream handlers by protocol, identify and ping.

The host of the library ends when any stream handler raises, which 24 bytes from any peer bring about, and accepts
malformed identities silently. Here the failure of a stream ends that stream alone, and malformed input is recorded
against the peer.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.identity.update import update_peerstore_from_identify
from libp2p.io.exceptions import MessageTooLarge
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from node.swarm.libp2p.multistream import accept, propose
from node.swarm.libp2p.swarm_adapter import SwarmAdapter
from node.swarm.libp2p.yamux_stream import YamuxStream
from node.swarm.limits import USUAL, SwarmLimits
from node.swarm.peer_policy import BadInput
from protocols.policy.reputation import Offence

log = logging.getLogger(__name__)

IDENTIFY_SECONDS = 10.0
"""How long a peer may take to send its identity and its protocols."""
IDENTIFY_BYTES_MAX = 1024 * 1024
"""The size of that message at most, the library's own figure."""


class HostAdapter(BasicHost):
    """Its own tasks run in `nursery`; their failures are logged and end nothing else."""

    def __init__(
        self,
        swarm: SwarmAdapter,
        nursery: trio.Nursery,
        addresses: Callable[[], list[Multiaddr]],
        limits: SwarmLimits = USUAL,
        on_identified: Callable[[str, Identify], None] = lambda peer, identity: None,
    ) -> None:
        """`on_identified` is called with each identity that a peer sends, unchecked; it must not raise."""
        super().__init__(swarm, addrs_factory=lambda candidates: addresses(), disable_identify_address_discovery=True)
        self.set_stream_handler(ID_PUSH, self._identity_pushed)
        self.peer_policy = swarm.peer_policy
        self._nursery = nursery
        self._on_identified = on_identified
        self._limits = limits
        self._limit_counters = swarm.peer_policy.limit_counters
        self.counted_elsewhere: set[TProtocol] = set()
        """Protocols whose handler bounds the streams itself."""
        self._served: dict[tuple[str, TProtocol], int] = {}
        """Streams whose handler runs, by the peer that opened them and their protocol."""

    async def new_stream(self, peer_id: ID, protocol_ids: Sequence[TProtocol]) -> INetStream:
        """Open a stream to a peer for the first of these protocols that it speaks; reset it when that takes too long.

        Raises `StreamFailure` or `SwarmException`.
        """
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

    async def _identity_pushed(self, stream: INetStream) -> None:
        """A peer sends its identity again. The library's own handler accepts malformed ones silently, without end."""
        with trio.fail_after(IDENTIFY_SECONDS):
            await self._read_identity(stream)

    async def _read_identity(self, stream: INetStream) -> None:
        peer_id = stream.muxed_conn.peer_id
        try:
            identity = Identify.FromString(await read_varint_prefixed_bytes_limited(stream, IDENTIFY_BYTES_MAX))
        except (MessageTooLarge, ParseError, DecodeError) as error:
            raise BadInput(f"sent an identity that cannot be read ({error})") from error
        if self._network.get_connections(peer_id):  # otherwise it would never be forgotten
            await update_peerstore_from_identify(self.get_peerstore(), peer_id, identity)
            self._identified_peers[peer_id] = ""
            self._on_identified(str(peer_id), identity)
        await stream.close()

    async def _swarm_stream_handler(self, net_stream: INetStream) -> None:
        """A peer opened a stream: agree on its protocol and run the handler. An exception ends that stream."""
        peer, limits = str(net_stream.muxed_conn.peer_id), self._limits
        try:
            with trio.fail_after(limits.negotiate_seconds):
                protocol, handler = await accept(net_stream, self.multiselect.handlers)
        except trio.TooSlowError:
            what = f"did not name the protocol of a stream within {limits.negotiate_seconds:g} s"
            self._limit_counters.hit("streams_slow", peer, what)
            raise
        assert handler is not None
        net_stream.set_protocol(protocol)
        assert isinstance(net_stream, NetStream) and isinstance(net_stream.muxed_stream, YamuxStream)
        net_stream.muxed_stream.expect(limits.first_byte_seconds, limits.between_bytes_seconds)
        with self._counted(peer, protocol) if protocol not in self.counted_elsewhere else nullcontext():
            await handler(net_stream)

    @contextmanager
    def _counted(self, peer: str, protocol: TProtocol) -> Iterator[None]:
        """Count a stream of this peer and protocol. Raises `BadInput` when there are too many."""
        kind, most = (peer, protocol), self._limits.streams_per_protocol_max
        if self._served.get(kind, 0) >= most:
            self._limit_counters.count("streams_per_protocol")
            raise BadInput(f"opened more than {most} streams for {protocol}", Offence.FLOOD)
        self._served[kind] = self._served.get(kind, 0) + 1
        try:
            yield
        finally:
            self._served[kind] -= 1
            if not self._served[kind]:
                del self._served[kind]

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
            if bad := BadInput.among_causes(error):
                self.peer_policy.blame(str(peer_id), bad.offence, str(bad))

    async def _identify_peer(self, peer_id: ID, *, reason: str) -> None:
        """Ask a peer for its identity. The library accepts malformed ones silently here too."""
        stream = await self.new_stream(peer_id, [IDENTIFY])
        try:
            await self._read_identity(stream)
        except BaseException:
            with trio.CancelScope(shield=True):
                await stream.reset()
            raise
