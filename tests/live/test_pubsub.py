"""Topics over real hosts: messages arrive whole and once, and no message of a peer ends anything."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.protocol_muxer.exceptions import MultiselectError
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.varint import encode_varint_prefixed
from multiaddr import Multiaddr

from node.swarm.libp2p.gossipsub_parts import PROTOCOLS
from node.swarm.libp2p.host import Host
from node.swarm.libp2p.multistream import accept, propose
from node.swarm.libp2p.pubsub import GossipSubPubSub
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_stream import YamuxStream
from node.swarm.limits import USUAL, SwarmLimits
from protocols.errors import TooLarge, Unavailable
from protocols.keys import PrivateKey
from tests.live.intruders import assert_ends, assert_serves, intruder, plain_host
from tests.live.swarm_peers import RecordingReceiver, joined, running
from tests.until import until

TOPIC = "announcements"


class Listener:
    """A host with a topic, and the messages that it received on it."""

    def __init__(self, host: Host, recorder: RecordingReceiver, limits: SwarmLimits) -> None:
        self.host = host
        self.recorder = recorder
        self.pubsub = GossipSubPubSub(limits=limits, heartbeat_seconds=0.2)
        self.received: list[tuple[str, bytes]] = []
        self.validator: Callable[[str, bytes], bool | None] | None = None

    def listen(self) -> None:
        def received(author: str, data: bytes) -> None:
            self.received.append((author, data))
            if data == b"handler raises":
                raise RuntimeError("a handler with a bug")

        self.pubsub.subscribe(
            TOPIC, received, lambda author, data, _: self.validator is None or self.validator(author, data)
        )

    async def until_received(self, *messages: bytes) -> None:
        await until(lambda: {data for _, data in self.received} >= set(messages))

    async def until_peers(self, *others: "Listener") -> None:
        await until(lambda: set(self.pubsub.peers(TOPIC)) >= {other.host.peer_id for other in others})

    def count(self, kind: str) -> int:
        return self.host.peer_policy.limit_counters.counts.as_dict()[kind]


@contextlib.asynccontextmanager
async def listening(*, limits: SwarmLimits = USUAL) -> AsyncIterator[Listener]:
    async with running(limits=limits) as (host, recorder), trio.open_nursery() as nursery:
        listener = Listener(host, recorder, limits)
        await nursery.start(listener.pubsub.run, host.library)
        listener.listen()
        yield listener
        nursery.cancel_scope.cancel()


async def until_gossip_runs(host: Host) -> None:
    library = host.library
    assert library is not None
    await until(lambda: set(PROTOCOLS) <= set(library.multiselect.handlers), what="the host serves GossipSub")


@contextlib.asynccontextmanager
async def three() -> AsyncIterator[tuple[Listener, Listener, Listener]]:
    """Three hosts in a row: the ends are connected to the middle only."""
    async with listening() as one, listening() as middle, listening() as three:
        for end in (one, three):
            await end.host.dial(middle.host.addresses, timeout=20)
        for end in (one, three):
            await end.until_peers(middle)
        await middle.until_peers(one, three)
        yield one, middle, three


# -- messages arrive --------------------------------------------------------------------------------------------------


async def test_a_burst_of_a_hundred_arrives_whole_and_once_two_hosts_further() -> None:
    """The library drops messages over 10 a second, 32 in a queue, or 32 in a channel."""
    sent = [f"announcement {number}".encode() for number in range(100)]
    async with three() as (one, middle, far):
        for data in sent:
            await one.pubsub.publish(TOPIC, data)
        await middle.until_received(*sent)
        await far.until_received(*sent)
        assert sorted(far.received) == sorted((one.host.peer_id, data) for data in sent)
        assert one.received == []
        assert [end.count("gossip_dropped") for end in (one, middle, far)] == [0, 0, 0]


async def test_all_may_publish_at_once() -> None:
    async with three() as row, trio.open_nursery() as nursery:
        for number, speaker in enumerate(row):
            for count in range(40):
                nursery.start_soon(speaker.pubsub.publish, TOPIC, b"%d of %d" % (count, number))
        for number, listener in enumerate(row):
            others = [b"%d of %d" % (count, other) for other in range(3) if other != number for count in range(40)]
            await listener.until_received(*others)
            assert len(listener.received) == 80


async def test_a_later_subscriber_on_the_same_connection_sends_and_receives() -> None:
    async with joined() as (early_host, early_recorder, late_host, late_recorder), trio.open_nursery() as nursery:
        early, late = Listener(early_host, early_recorder, USUAL), Listener(late_host, late_recorder, USUAL)
        early.listen()
        await nursery.start(early.pubsub.run, early_host.library)
        await until_gossip_runs(early_host)
        await trio.testing.wait_all_tasks_blocked(0.1)  # until its stream to the other host has failed
        await nursery.start(late.pubsub.run, late_host.library)
        late.listen()
        await early.until_peers(late)
        await late.until_peers(early)
        await early.pubsub.publish(TOPIC, b"to late")
        await late.pubsub.publish(TOPIC, b"to early")
        await late.until_received(b"to late")
        await early.until_received(b"to early")
        nursery.cancel_scope.cancel()


async def test_a_peer_that_returns_receives_again() -> None:
    async with listening() as one, listening() as two:
        for count in range(3):
            await one.host.dial(two.host.addresses, timeout=20)
            await two.until_peers(one)
            await one.until_peers(two)
            await one.pubsub.publish(TOPIC, b"to two, %d" % count)
            await two.pubsub.publish(TOPIC, b"to one, %d" % count)
            await two.until_received(b"to two, %d" % count)
            await one.until_received(b"to one, %d" % count)
            two.host.disconnect(one.host.peer_id, "a test")
            await one.recorder.until_disconnected(two.host.peer_id)
            await until(lambda: not one.pubsub.peers(TOPIC) and not two.pubsub.peers(TOPIC))


async def test_messages_after_a_restart_are_not_taken_for_repetitions() -> None:
    """The library numbers messages from the second of its start: after a burst, a restart repeats numbers."""
    seed = os.urandom(32)
    async with listening() as listener:
        for life in range(2):
            async with running(seed=seed) as (host, recorder), trio.open_nursery() as nursery:
                speaker = Listener(host, recorder, USUAL)
                await nursery.start(speaker.pubsub.run, host.library)
                speaker.listen()
                await host.dial(listener.host.addresses, timeout=20)
                await speaker.until_peers(listener)
                sent = [b"%d in life %d" % (number, life) for number in range(30)]
                for data in sent:
                    await speaker.pubsub.publish(TOPIC, data)
                await listener.until_received(*sent)
                nursery.cancel_scope.cancel()


async def test_a_plain_libp2p_host_sends_and_receives() -> None:
    async with listening() as ours, plain_host() as other:
        router = GossipSub(protocols=[TProtocol("/meshsub/1.1.0")], degree=3, degree_low=2, degree_high=4)
        theirs = Pubsub(other, router)
        try:
            async with background_trio_service(router), background_trio_service(theirs):
                subscription = await theirs.subscribe(TOPIC)
                await other.connect(info_from_p2p_addr(Multiaddr(ours.host.addresses[0])))
                peer = ID.from_base58(ours.host.peer_id)
                await until(lambda: str(other.get_id()) in ours.pubsub.peers(TOPIC))
                await until(lambda: peer in theirs.peer_topics.get(TOPIC, ()))
                await ours.pubsub.publish(TOPIC, b"from ours")
                assert (await subscription.get()).data == b"from ours"
                await theirs.publish(TOPIC, b"from theirs")
                await ours.until_received(b"from theirs")
                assert ours.received == [(str(other.get_id()), b"from theirs")]
        finally:
            theirs.seen_messages.stop()


# -- what is not ----------------------------------------------------------------------------------------------------


async def test_every_host_has_topics() -> None:
    async with running() as (one, _), running() as (other, _):
        received: list[tuple[str, bytes]] = []
        for host in (one, other):
            host.pubsub.subscribe(TOPIC, lambda author, data: received.append((author, data)))
        await one.dial(other.addresses, timeout=20)
        await until(lambda: one.pubsub.peers(TOPIC) and other.pubsub.peers(TOPIC))
        await one.pubsub.publish(TOPIC, b"here I am")
        await until(lambda: received)
        assert received == [(one.peer_id, b"here I am")]


async def test_nothing_runs_before_the_first_subscription() -> None:
    async with running() as (host, _), trio.open_nursery() as nursery:
        pubsub = GossipSubPubSub()
        await nursery.start(pubsub.run, host.library)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert host.library is not None
        assert not set(PROTOCOLS) & set(host.library.multiselect.handlers)
        pubsub.subscribe(TOPIC, lambda author, data: None)
        await until_gossip_runs(host)
        nursery.cancel_scope.cancel()


async def test_what_is_too_long_or_has_no_host_is_refused_with_the_reason(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pubsub = GossipSubPubSub()
    with pytest.raises(TooLarge, match="65,536 are the most"):
        await pubsub.publish(TOPIC, bytes(65_537))
    with pytest.raises(Unavailable, match="host does not run"):
        await pubsub.publish(TOPIC, b"to nobody")


async def test_validators_and_handlers_that_raise_refuse_and_end_nothing() -> None:
    """A validator that raises ends a plain host."""

    def strict(author: str, data: bytes) -> bool | None:
        if data == b"validator raises":
            raise RuntimeError("a validator with a bug")
        return None if data == b"old" else data != b"unwanted"

    async with three() as (one, middle, far):
        middle.validator = strict
        for data in (b"validator raises", b"unwanted", b"old", b"handler raises", b"good"):
            await one.pubsub.publish(TOPIC, data)
        await middle.until_received(b"handler raises", b"good")
        await far.until_received(b"handler raises", b"good")
        assert {data for _, data in far.received} == {b"handler raises", b"good"}, "a refused message is not forwarded"
        assert middle.count("gossip_failed") == 2
        assert middle.count("gossip_refused") == 2, "what is only old is nobody's fault"
        assert one.host.peer_id in middle.host.connected_peers(), "a peer that forwards a message may have no validator"


# -- garbage ----------------------------------------------------------------------------------------------------------


AUTHOR = create_new_key_pair(bytes(32))
AUTHOR_ID = ID.from_pubkey(AUTHOR.public_key)


def message(data: bytes = b"false", *, sign: bool = True, **other: object) -> rpc_pb2.Message:
    fields = {"data": data, "topicIDs": [TOPIC], "from_id": AUTHOR_ID.to_bytes(), "seqno": os.urandom(8), **other}
    made = rpc_pb2.Message(**fields)  # type: ignore[arg-type]
    if sign:
        made.signature = AUTHOR.private_key.sign(PUBSUB_SIGNING_PREFIX.encode() + made.SerializeToString())
    return made


def publishing(*messages: rpc_pb2.Message) -> bytes:
    return encode_varint_prefixed(rpc_pb2.RPC(publish=messages).SerializeToString())


GARBAGE: dict[str, bytes] = {
    "no protobuf": encode_varint_prefixed(b"\xff" * 40),
    "a length over the limit": b"\xff\xff\xff\x7f",
    "a length without end": b"\xff" * 12,
    "no signature": publishing(message(sign=False)),
    "a signature of something else": publishing(message(sign=False, signature=bytes(64))),
    "an author that is no peer": publishing(message(from_id=b"\x00\x01nonsense")),
    "an author without end": publishing(message(from_id=b"\xff" * 1000)),
    "no author": publishing(message(from_id=b"")),
    "a key that is none": publishing(message(sign=False, key=b"\x08\x07nonsense", signature=bytes(64))),
    "two topics": publishing(message(topicIDs=[TOPIC, "other"])),
    "a message over the limit": publishing(message(bytes(70_000))),
    "entries without end": encode_varint_prefixed(
        rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid="x")] * 3_000).SerializeToString()
    ),
}


async def a_stream(host: Host, mux: object, protocol: str = PROTOCOLS[0]) -> YamuxStream:
    """A stream of this protocol, as soon as the host speaks it."""
    stream = await mux.open_stream()  # type: ignore[attr-defined]
    with trio.fail_after(30):
        while True:
            try:
                await propose(stream, TProtocol(protocol))
            except Exception:
                stream = await mux.open_stream()  # type: ignore[attr-defined]
                await trio.sleep(0.05)
            else:
                assert isinstance(stream, YamuxStream)
                return stream


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_costs_its_stream_and_then_its_connection_and_no_other_peer(name: str) -> None:
    """One such frame ends a plain host."""
    async with listening() as one, listening() as two:
        await two.host.dial(one.host.addresses, timeout=20)
        await two.until_peers(one)
        await one.until_peers(two)
        async with intruder(one.host) as mux:
            stream = await a_stream(one.host, mux)
            await stream.write(GARBAGE[name])
            await assert_ends(stream)
            assert mux.reason == ""
            assert one.count("gossip_refused") == 1
            while not mux.is_closed:
                with contextlib.suppress(MuxedStreamError, StreamError, trio.TooSlowError, Exception):
                    await (await a_stream(one.host, mux)).write(GARBAGE[name])
        await two.pubsub.publish(TOPIC, b"still there")
        await one.until_received(b"still there")
        assert [data for _, data in one.received] == [b"still there"]
        await assert_serves(one.host, one.recorder)


async def test_control_messages_about_unknown_topics_are_forgotten() -> None:
    """Control messages about topics that the node does not have must not fill its memory."""
    rpc = rpc_pb2.RPC()
    for number in range(300):
        rpc.control.prune.append(rpc_pb2.ControlPrune(topicID=f"t{number}", backoff=1 << 40))
        rpc.control.graft.append(rpc_pb2.ControlGraft(topicID=f"t{number}"))
        rpc.control.ihave.append(rpc_pb2.ControlIHave(topicID=f"t{number}", messageIDs=[b"x"]))
        rpc.subscriptions.append(rpc_pb2.RPC.SubOpts(subscribe=True, topicid=f"t{number}"))
    rpc.control.iwant.append(rpc_pb2.ControlIWant(messageIDs=[os.urandom(20) for _ in range(1000)]))
    async with listening() as one, intruder(one.host) as mux:
        stream = await a_stream(one.host, mux)
        await stream.write(encode_varint_prefixed(rpc.SerializeToString()) + publishing(message(b"after it")))
        await one.until_received(b"after it")
        gossip = one.pubsub._gossip  # private: what libp2p's parts remember can be read nowhere else
        assert gossip is not None
        assert len(gossip.peer_topics) <= USUAL.gossip_topics_max + 1
        assert one.count("gossip_topics") == 300 - USUAL.gossip_topics_max
        router = gossip.router
        assert not set(router.back_off) - {TOPIC}
        assert not router.graft_flood_tracking and not router.ihave_message_limits
        mux.abort("over")
        await until(lambda: not gossip.peer_topics)


async def test_a_peer_that_sends_too_much_is_read_slowly_and_others_are_not() -> None:
    limits = SwarmLimits(gossip_rate=25.0, gossip_burst=60.0)
    async with listening(limits=limits) as one, listening() as two:
        await two.host.dial(one.host.addresses, timeout=20)
        await two.until_peers(one)
        async with intruder(one.host) as mux:
            stream = await a_stream(one.host, mux)
            for number in range(60):
                await stream.write(publishing(message(b"flood %d" % number)))
            with trio.fail_after(30):
                await two.pubsub.publish(TOPIC, b"in between")
                await one.until_received(b"in between")
            assert len(one.received) < 55
            await one.until_received(*(b"flood %d" % number for number in range(60)))
            assert one.count("gossip_slowed") > 0
            assert one.count("offences") == 0, "valid messages come late, and are no offence"


async def agree_to_gossip(mux: YamuxConnection) -> None:
    """Of all streams that the other side opens, accept the one for GossipSub only."""
    spoken: dict[TProtocol | None, StreamHandlerFn | None] = dict.fromkeys(PROTOCOLS)

    async def agree(stream: YamuxStream) -> None:
        with contextlib.suppress(MultiselectError):
            await accept(stream, spoken)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(agree, await mux.accept_stream())


async def test_a_peer_that_does_not_read_costs_a_bounded_queue_and_then_its_stream() -> None:
    limits = SwarmLimits(gossip_queue_max=50)
    async with listening(limits=limits) as one, intruder(one.host) as mux:
        subscribed = rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC)])
        stream = await a_stream(one.host, mux)
        await stream.write(encode_varint_prefixed(subscribed.SerializeToString()))
        await agree_to_gossip(mux)
        await until(lambda: one.pubsub.peers(TOPIC))
        for _ in range(100):
            await one.pubsub.publish(TOPIC, bytes(60_000))
        assert one.count("gossip_dropped") > 0
        await assert_serves(one.host, one.recorder)


def test_the_names_of_libp2p_that_are_relied_on_are_there() -> None:
    for name in ("_handle_new_peer", "_schedule_peer_stream_retry", "_forget_all_subscriptions", "_next_seqno"):
        assert callable(getattr(Pubsub, name))
    for name in ("back_off", "graft_flood_tracking", "ihave_message_limits", "recent_message_deliveries"):
        router = GossipSub(protocols=PROTOCOLS, degree=3, degree_low=2, degree_high=4)
        assert not getattr(router, name)
    assert PrivateKey.from_seed(bytes(32)).peer_id == str(AUTHOR_ID)
