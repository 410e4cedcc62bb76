"""GossipSub: libp2p's, adapted so that no peer and no defect can end it, and so that nothing is dropped silently.

The router (which peers get which messages, and are offered which) is libp2p's `GossipSub`, unchanged. The `Pubsub`
around it is replaced in parts, because in the library

- one frame that is no protobuf, one message with a bad `from_id` or key, or one validator that raises ends the whole
  host, because it ends a task of a service. Here every task is guarded (`Tasks`), malformed input ends the stream and
  is recorded against the peer, and a validator that raises has refused the message;
- three bounds drop messages of a burst silently: 10 a second for each topic and peer (the spam protection, which is off
  here: a peer that sends too fast is read more slowly), 32 frames in the queue to a peer (here an `Outbox`, which is
  larger and counts), and 32 messages in the channel of a subscription (here there is none: messages are delivered
  inline);
- a fourth bound drops messages after a restart: message numbers start at the time in seconds, so a node that sent more
  than one message a second repeats numbers that others have seen. Here they start at the time in nanoseconds;
- a peer whose stream broke while another connection to it lives is not heard again, because its topics are forgotten.

The memory that peers can fill is bounded too, in bytes as well (`BoundedMessageCache`, `Outbox`), and long frames count
for more when a peer is judged to send too much. GossipSub is for announcements and notices, never for content.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any, cast

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.exceptions import ParseError
from libp2p.io.exceptions import MessageTooLarge
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.tools.anyio_service.api import InternalManagerAPI
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from node.swarm.libp2p.gossipsub_parts import PROTOCOLS, Outbox, OutboxTotals, SeenMessages, Tasks, make_router
from node.swarm.libp2p.host_adapter import HostAdapter
from node.swarm.libp2p.peer_connection import PeerConnection
from node.swarm.libp2p.swarm_adapter import SwarmAdapter
from node.swarm.libp2p.yamux_stream import YamuxStream
from node.swarm.limits import SwarmLimits
from node.swarm.peer_policy import BadInput
from protocols import keys
from protocols.policy.reputation import Offence
from protocols.policy.token_bucket import TokenBucket

log = logging.getLogger(__name__)

AUTHOR_BYTES_MAX, NUMBER_BYTES_MAX, TOPIC_CHARS_MAX = 64, 16, 256
ENTRIES_MAX = 2048
"""Messages, subscriptions and control messages in one frame."""
KIB = 1024
IDS_MAX = 64
"""Messages that a peer may ask for or announce in one control message."""
SWEEP_SECONDS = 10.0
VERIFIED_AT_ONCE = 16
"""Messages (each with a signature, 50 microseconds) that are handled before other tasks get their turn."""

Deliver = Callable[[str, str, bytes, str], bool | None]
"""Called with the topic, the author's peer id, the data and the peer that passed it on; returns what a `TopicValidator`
does. Must not raise."""


class PubsubAdapter(Pubsub):
    """The GossipSub of one node. All that takes long runs in `tasks`."""

    router: GossipSub

    def __init__(
        self, host: HostAdapter, tasks: Tasks, limits: SwarmLimits, deliver: Deliver, *, heartbeat_seconds: float = 1.0
    ) -> None:
        router = make_router(heartbeat_seconds, limits.gossip_history_bytes_max)
        network = host.get_network()
        assert isinstance(network, SwarmAdapter)
        before = list(network.notifees)
        super().__init__(host, router, max_subscriptions_per_peer=limits.gossip_topics_max)
        network.notifees[:] = before  # the library's own waits until one of its tasks has time for a peer
        self.peer_receive_channel.close()
        self.dead_peer_receive_channel.close()
        self.seen_messages.stop()  # a thread
        self.seen_messages = SeenMessages()  # type: ignore[assignment]  # it has the two methods that are used
        self.counter = time.time_ns()
        self._manager = router._manager = cast(InternalManagerAPI, tasks)
        self._limits = limits
        self._network = network
        self._peer_policy = network.peer_policy
        self._deliver = deliver
        self._reading: Counter[ID] = Counter()
        """Streams that a peer opened to this node."""
        self._buckets: dict[ID, TokenBucket] = {}
        self._outbox_totals = OutboxTotals()
        self._notifee = _Notifee(self)

    def start(self) -> None:
        """Take part, with the peers that are connected and those that connect later."""
        self._network.register_notifee(self._notifee)
        for task in (self.router.heartbeat, self._sweep):
            self.manager.run_daemon_task(task)
        self._meet_all()

    def stop(self) -> None:
        self._network.remove_notifee(self._notifee)
        for protocol in PROTOCOLS:
            cast(HostAdapter, self.host).remove_stream_handler(protocol)

    # -- peers ---------------------------------------------------------------------------------------------------

    def meet(self, peer: ID) -> None:
        """A peer is connected, or opened a stream: open one to it, unless there is one."""
        if peer not in self.peers:
            self._schedule_peer_stream_retry(peer)

    def connection_ended(self, connection: PeerConnection) -> None:
        """A connection ended. If this node's stream was on it and the peer has another one, open a new stream."""
        peer = connection.mux.peer_id
        stream = self.peers.get(peer)
        if stream is None or stream.muxed_conn is connection.mux:
            self._handle_dead_peer(peer)

    def _meet_all(self) -> None:
        for connection in self._network.all():
            if not connection.is_closed:
                self.meet(connection.mux.peer_id)

    async def _handle_new_peer(self, peer_id: ID) -> None:
        stream = await self.host.new_stream(peer_id, list(PROTOCOLS))
        if peer_id in self.peers:
            await stream.reset()
            return
        peer = str(peer_id)
        queue = Outbox(
            self._limits,
            self._outbox_totals,
            lambda: self._peer_policy.limit_counters.hit("gossip_dropped", peer, "reads GossipSub too slowly"),
        )
        queue.push(self.get_hello_packet())
        self.router.add_peer(peer_id, stream.get_protocol())
        self.peers[peer_id] = stream
        self.peer_queues[peer_id] = queue
        self.manager.run_task(self.handle_sending_messages, peer_id, stream, queue)
        await self.router.flush_pending_messages(peer_id)
        await self._send_recent_messages_to_new_peer(peer_id)
        for topic in [topic for topic, peers in self.peer_topics.items() if peer_id in peers]:
            await self.router.on_peer_subscribed(peer_id, topic)

    def _handle_dead_peer(self, peer_id: ID) -> None:
        """This node's stream to a peer is over. The peer's subscriptions hold as long as its own stream does."""
        self._clear_pending_announce_retries_for_peer(peer_id)
        self._replayed_recent_topics.pop(peer_id, None)
        if self.peers.pop(peer_id, None) is not None:
            self.peer_queues.pop(peer_id).close()
            self.router.remove_peer(peer_id)
        if not self._reading[peer_id]:
            self._forget_all_subscriptions(peer_id)
        if self._peer_is_connected(peer_id):
            self._schedule_peer_stream_retry(peer_id)

    async def _sweep(self) -> None:
        """Forget what is over, some of which the library never forgets; retry peers whose first stream failed."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            now, wall = trio.current_time(), time.time()
            for peer in [p for p, bucket in self._buckets.items() if bucket.is_full(now) and not self._reading[p]]:
                del self._buckets[peer]
            self._reading += Counter()  # which removes entries at zero
            for waits in self.router.back_off.values():
                for peer in [peer for peer, until in waits.items() if until <= wall]:
                    del waits[peer]
            self.router.recent_message_deliveries.clear()
            self._meet_all()

    # -- sending ------------------------------------------------------------------------------------------------

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Send through the peer's queue, as all frames are, so that their order and their bounds hold."""
        queue = self.peer_queues.get(stream.muxed_conn.peer_id)
        return queue is not None and queue.push(rpc_msg)

    async def handle_sending_messages(self, peer_id: ID, stream: INetStream, queue: RpcQueue) -> None:
        try:
            while (rpc := await queue.pop()) is not None:
                await stream.write(encode_varint_prefixed(rpc.SerializeToString()))
        except Exception as error:
            log.debug("the stream of GossipSub to %s is over: %r", peer_id, error)
        finally:
            with trio.CancelScope(shield=True):
                await stream.reset()
            if self.peers.get(peer_id) is stream:
                self._handle_dead_peer(peer_id)

    # -- receiving ----------------------------------------------------------------------------------------------

    async def stream_handler(self, stream: INetStream) -> None:
        """A peer opened a stream. An exception ends that stream; a `BadInput` is recorded against the peer."""
        peer = stream.muxed_conn.peer_id
        muxed = getattr(stream, "muxed_stream", None)
        assert isinstance(muxed, YamuxStream)
        muxed.expect(inf, inf)  # it may be silent for days
        self._reading[peer] += 1
        self.meet(peer)
        try:
            while True:
                await self._take(peer, await self._read(stream))
        finally:
            self._reading[peer] -= 1
            if not self._reading[peer]:
                self._forget_all_subscriptions(peer)

    async def _read(self, stream: INetStream) -> rpc_pb2.RPC:
        try:
            data = await read_varint_prefixed_bytes_limited(stream, self._limits.gossip_rpc_bytes_max)
            rpc = rpc_pb2.RPC()
            rpc.ParseFromString(data)
        except (MessageTooLarge, ParseError, DecodeError) as error:
            raise self._refused(f"a frame that cannot be read ({error})") from error
        return rpc

    async def _take(self, peer: ID, rpc: rpc_pb2.RPC) -> None:
        control = rpc.control
        entries = len(rpc.publish) + len(rpc.subscriptions) + len(control.graft) + len(control.prune)
        entries += len(control.ihave) + len(control.iwant) + len(control.idontwant)
        if entries > ENTRIES_MAX:
            raise self._refused(f"a frame of {entries} entries")
        await self._slow_down(peer, 1 + entries + rpc.ByteSize() // KIB)
        for subscription in rpc.subscriptions:
            self._subscribed(peer, subscription)
        for count, message in enumerate(rpc.publish, start=1):
            if count % VERIFIED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            await self.push_msg(peer, message)
        if rpc.HasField("control"):
            self._trim(control)
            rpc.ClearField("senderRecord")  # addresses come from other sources
            await self.router.handle_rpc(rpc, peer)

    def _subscribed(self, peer: ID, subscription: rpc_pb2.RPC.SubOpts) -> None:
        """A peer subscribes or unsubscribes. The library ignores some subscriptions silently; here they are counted."""
        topic = subscription.topicid
        if len(topic) <= TOPIC_CHARS_MAX:
            self.handle_subscription(peer, subscription)
        if subscription.subscribe and peer not in self.peer_topics.get(topic, ()):
            most = self._limits.gossip_topics_max
            why = f"subscribes to more than {most} topics, or to one whose name is too long: it is ignored"
            self._peer_policy.limit_counters.hit("gossip_topics", str(peer), why)

    async def _slow_down(self, peer: ID, cost: int) -> None:
        """Read a peer that sends too much more slowly, so that its own queue fills up, and no other peer's."""
        now = trio.current_time()
        bucket = self._buckets.get(peer)
        if bucket is None:
            limits = self._limits
            bucket = self._buckets[peer] = TokenBucket(rate=limits.gossip_rate, burst=limits.gossip_burst, now=now)
        if seconds := bucket.take(cost, now):
            self._peer_policy.limit_counters.hit(
                "gossip_slowed", str(peer), "sends more on GossipSub than it may, and is read slowly"
            )
            await trio.sleep(seconds)

    def _trim(self, control: rpc_pb2.ControlMessage) -> None:
        """Remove entries about topics of other nodes, peers to dial, and what would make a long answer."""
        for entries in (control.ihave, control.graft, control.prune):
            kept = [each for each in entries if each.topicID in self.topic_ids]
            del entries[:]
            entries.extend(kept)  # type: ignore[arg-type]  # each into the list that it came from
        for prune in control.prune:
            del prune.peers[:]
        entry: Any
        for entry in (*control.ihave, *control.iwant, *control.idontwant):
            del entry.messageIDs[IDS_MAX:]

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Check a message, deliver it, and forward it. Raises `BadInput` for one that no honest peer sends."""
        if msg_forwarder != self.my_id and not self._accepts(msg_forwarder, msg):
            return
        if msg_forwarder == self.my_id:
            self._mark_msg_seen(msg)
        await self.router.publish(msg_forwarder, msg)

    def _accepts(self, forwarder: ID, msg: rpc_pb2.Message) -> bool:
        """Whether a message is new, signed, about a topic of this node, and valid; then it is delivered."""
        if len(msg.topicIDs) != 1 or len(msg.from_id) > AUTHOR_BYTES_MAX or len(msg.seqno) > NUMBER_BYTES_MAX:
            raise self._refused("a message with a bad author, number or topic")
        if len(msg.data) > self._limits.gossip_message_bytes_max:
            raise self._refused(f"a message of {len(msg.data):,} bytes")
        (topic,) = msg.topicIDs
        if topic not in self.topic_ids or self._is_msg_seen(msg) or msg.from_id == self.my_id.to_bytes():
            return False
        author = ID(msg.from_id).to_base58()
        signed = rpc_pb2.Message(from_id=msg.from_id, data=msg.data, seqno=msg.seqno, topicIDs=msg.topicIDs)
        if not keys.verify(author, PUBSUB_SIGNING_PREFIX.encode() + signed.SerializeToString(), msg.signature):
            raise self._refused("a message that its author did not sign")
        self._mark_msg_seen(msg)
        if accepted := self._deliver(topic, author, msg.data, str(forwarder)):
            return True
        if accepted is None:
            return False
        # The forwarder may be honest, and have no validator of its own.
        what = f"a message about {topic} that is not accepted here"
        self._peer_policy.limit_counters.count("gossip_refused")
        self._peer_policy.blame(str(forwarder), Offence.FLOOD, f"sent {what}")
        return False

    def _refused(self, what: str) -> BadInput:
        self._peer_policy.limit_counters.count("gossip_refused")
        return BadInput(f"sent {what}")


class _Notifee(INotifee):
    """Called by the host when connections open and close; never makes it wait."""

    def __init__(self, gossip: PubsubAdapter) -> None:
        self._gossip = gossip

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        assert isinstance(conn, PeerConnection)
        self._gossip.meet(conn.mux.peer_id)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        assert isinstance(conn, PeerConnection)
        self._gossip.connection_ended(conn)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...
