"""libp2p's GossipSub, over our host, so that no peer and no bug can end it, and nothing is dropped in silence.

The mesh (who sends to whom, and who is told what there is) is libp2p's `GossipSub`, as it is. The `Pubsub` round it is
taken apart, for in the library

- one frame that is no protobuf, one message with a bad `from_id` or key, and one validator that raises end the whole
  host, because they end a task of a service: here every task is guarded (`Tasks`), a peer's garbage costs its stream
  and is held against it, and a validator that raises has refused;
- three bounds drop messages in a burst without a word: 10 a second a topic and peer (the spam protection, which is
  off: a peer that sends too fast is read more slowly), 32 frames in the queue to a peer (`Outbox`, which is larger and
  counts), and 32 messages in a subscription's channel (there is none: messages are delivered inline);
- a fourth one drops what a node says after a restart: numbers begin at the time in seconds, and whoever spoke more
  often than once a second repeats numbers that others have seen. Ours begin at the time in nanoseconds;
- a peer whose stream broke while another connection to it lives is not heard again, for its topics are forgotten.

What peers can make it remember is bounded too, in bytes as well (`History`, `Outboxes`), and long frames count for more
when it is judged who sends too much. It is for announcements and notices, never for content.
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

from node.swarm.libp2p.adapters import HardenedHost, HardenedSwarm, PeerConnection
from node.swarm.libp2p.gossipsub_parts import PROTOCOLS, Outbox, Outboxes, SeenMessages, Tasks, mesh
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
"""Messages that a peer may ask for, or tell of, in one control message."""
SWEEP_SECONDS = 10.0
VERIFIED_AT_ONCE = 16
"""Messages (each a signature, 50 microseconds) that are handled before others get their turn."""

Deliver = Callable[[str, str, bytes], bool]
"""Told the topic, the author's peer id and the data; whether the message is to be handed on. Does not raise."""


class HardenedPubsub(Pubsub):
    """One node's part in it. Everything that takes long runs in `tasks`."""

    router: GossipSub

    def __init__(
        self, host: HardenedHost, tasks: Tasks, limits: SwarmLimits, deliver: Deliver, *, heartbeat_seconds: float = 1.0
    ) -> None:
        router = mesh(heartbeat_seconds, limits.gossip_history_bytes_max)
        network = host.get_network()
        assert isinstance(network, HardenedSwarm)
        before = list(network.notifees)
        super().__init__(host, router, max_subscriptions_per_peer=limits.gossip_topics_max)
        network.notifees[:] = before  # its own waits until a task of it has time for a peer
        self.peer_receive_channel.close()
        self.dead_peer_receive_channel.close()
        self.seen_messages.stop()  # a thread
        self.seen_messages = SeenMessages()  # type: ignore[assignment]  # the two methods of it that are used
        self.counter = time.time_ns()
        self._manager = router._manager = cast(InternalManagerAPI, tasks)
        self._limits = limits
        self._network = network
        self._peer_policy = network.peer_policy
        self._deliver = deliver
        self._reading: Counter[ID] = Counter()
        """Streams that a peer opened to us."""
        self._buckets: dict[ID, TokenBucket] = {}
        self._outboxes = Outboxes()
        self._notifee = _Notifee(self)

    def start(self) -> None:
        """Take part: with whoever is connected, and whoever will be."""
        self._network.register_notifee(self._notifee)
        for task in (self.router.heartbeat, self._sweep_for_ever):
            self.manager.run_daemon_task(task)
        self._meet_everyone()

    def stop(self) -> None:
        self._network.remove_notifee(self._notifee)
        for protocol in PROTOCOLS:
            cast(HardenedHost, self.host).remove_stream_handler(protocol)

    # -- peers come and go --------------------------------------------------------------------------------------

    def met(self, peer: ID) -> None:
        """A peer is connected, or speaks to us: it gets a stream of ours, unless it has one."""
        if peer not in self.peers:
            self._schedule_peer_stream_retry(peer)

    def parted(self, connection: PeerConnection) -> None:
        """A connection is over: if our stream was on it, and the peer has another one, it gets a new stream."""
        peer = connection.mux.peer_id
        stream = self.peers.get(peer)
        if stream is None or stream.muxed_conn is connection.mux:
            self._handle_dead_peer(peer)

    def _meet_everyone(self) -> None:
        for connection in self._network.all():
            if not connection.is_closed:
                self.met(connection.mux.peer_id)

    async def _handle_new_peer(self, peer_id: ID) -> None:
        stream = await self.host.new_stream(peer_id, list(PROTOCOLS))
        if peer_id in self.peers:
            await stream.reset()
            return
        peer = str(peer_id)
        queue = Outbox(
            self._limits,
            self._outboxes,
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
        """Our stream to a peer is over. What it told us holds as long as its own stream to us does."""
        self._clear_pending_announce_retries_for_peer(peer_id)
        self._replayed_recent_topics.pop(peer_id, None)
        if self.peers.pop(peer_id, None) is not None:
            self.peer_queues.pop(peer_id).close()
            self.router.remove_peer(peer_id)
        if not self._reading[peer_id]:
            self._forget_all_subscriptions(peer_id)
        if self._peer_is_connected(peer_id):
            self._schedule_peer_stream_retry(peer_id)

    async def _sweep_for_ever(self) -> None:
        """Forget what is over, and what the library never would; meet those whose first stream failed."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            now, wall = trio.current_time(), time.time()
            for peer in [p for p, bucket in self._buckets.items() if bucket.is_full(now) and not self._reading[p]]:
                del self._buckets[peer]
            self._reading += Counter()  # which leaves out those at zero
            for waits in self.router.back_off.values():
                for peer in [peer for peer, until in waits.items() if until <= wall]:
                    del waits[peer]
            self.router.recent_message_deliveries.clear()
            self._meet_everyone()

    # -- what we send -------------------------------------------------------------------------------------------

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Through the peer's queue like all else, so that what is sent keeps its order and its bounds."""
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

    # -- what comes ---------------------------------------------------------------------------------------------

    async def stream_handler(self, stream: INetStream) -> None:
        """A peer opened a stream. What it raises costs that stream; a `BadInput` is held against the peer."""
        peer = stream.muxed_conn.peer_id
        muxed = getattr(stream, "muxed_stream", None)
        assert isinstance(muxed, YamuxStream)
        muxed.expect(inf, inf)  # there may be nothing to say for days
        self._reading[peer] += 1
        self.met(peer)
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
            rpc.ClearField("senderRecord")  # addresses come from elsewhere
            await self.router.handle_rpc(rpc, peer)

    def _subscribed(self, peer: ID, subscription: rpc_pb2.RPC.SubOpts) -> None:
        """A peer subscribes or no longer does. The library says to nobody what it leaves out."""
        topic = subscription.topicid
        if len(topic) <= TOPIC_CHARS_MAX:
            self.handle_subscription(peer, subscription)
        if subscription.subscribe and peer not in self.peer_topics.get(topic, ()):
            most = self._limits.gossip_topics_max
            why = f"subscribes to more than {most} topics, or to one whose name is too long: it is left out"
            self._peer_policy.limit_counters.hit("gossip_topics", str(peer), why)

    async def _slow_down(self, peer: ID, cost: int) -> None:
        """Read a peer that sends too much no faster than it may: its own queue fills up, and nobody else's."""
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
        """Leave out what is not about topics of ours, whom else to dial, and what would make a long answer."""
        for entries in (control.ihave, control.graft, control.prune):
            ours = [entry for entry in entries if entry.topicID in self.topic_ids]
            del entries[:]
            entries.extend(ours)  # type: ignore[arg-type]  # each into the list that it came from
        for prune in control.prune:
            del prune.peers[:]
        told: Any
        for told in (*control.ihave, *control.iwant, *control.idontwant):
            del told.messageIDs[IDS_MAX:]

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Check a message, deliver it, and hand it on. Raises `BadInput` for one that cannot be honest."""
        if msg_forwarder != self.my_id and not self._is_welcome(msg_forwarder, msg):
            return
        if msg_forwarder == self.my_id:
            self._mark_msg_seen(msg)
        await self.router.publish(msg_forwarder, msg)

    def _is_welcome(self, forwarder: ID, msg: rpc_pb2.Message) -> bool:
        """Whether a peer's message is new, honest, about a topic of ours, and wanted; then it is delivered."""
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
        if self._deliver(topic, author, msg.data):
            return True
        # Who handed it on may be honest, and not know better.
        what = f"a message about {topic} that is not accepted here"
        self._peer_policy.limit_counters.count("gossip_refused")
        self._peer_policy.blame(str(forwarder), Offence.FLOOD, f"sent {what}")
        return False

    def _refused(self, what: str) -> BadInput:
        self._peer_policy.limit_counters.count("gossip_refused")
        return BadInput(f"sent {what}")


class _Notifee(INotifee):
    """Hears from the host who comes and goes, and never keeps it waiting."""

    def __init__(self, gossip: HardenedPubsub) -> None:
        self._gossip = gossip

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        assert isinstance(conn, PeerConnection)
        self._gossip.met(conn.mux.peer_id)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        assert isinstance(conn, PeerConnection)
        self._gossip.parted(conn)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...
