"""On GossipSub: what is no frame of it, messages of nobody, and more of everything than anybody could want.

A target that hears no topic refuses the streams, and has nothing to fear; `tests/live/test_attacks.py` has one that
hears.
"""

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from attacks.attack_run import Attack, Siege
from attacks.connections import prefixed
from attacks.intruders import Intruder, until_over
from attacks.on_streams import GARBAGE, quietly
from node.swarm.libp2p import multistream
from node.swarm.libp2p.yamux_stream import YamuxStream

TOPIC = "attacks"
"""The topic that the attacks speak on; the tests lay them on a node that listens to it."""
MESHSUB = ("/meshsub/1.2.0", "/meshsub/1.1.0", "/meshsub/1.0.0")
TIMES = 30
"""How often a peer sends the same garbage: more than any is borne."""
HELD_UP_SECONDS = 2.0


def message(data: bytes, *, keys: KeyPair | None = None, is_signed: bool = True, **other: object) -> rpc_pb2.Message:
    """One of this author, else of a new one."""
    keys = keys or create_new_key_pair()
    author = ID.from_pubkey(keys.public_key).to_bytes()
    fields = {"data": data, "topicIDs": [TOPIC], "from_id": author, "seqno": os.urandom(8), **other}
    made = rpc_pb2.Message(**fields)  # type: ignore[arg-type]
    if is_signed:
        made.signature = keys.private_key.sign(PUBSUB_SIGNING_PREFIX.encode() + made.SerializeToString())
    return made


def publishing(*messages: rpc_pb2.Message) -> bytes:
    return prefixed(rpc_pb2.RPC(publish=messages).SerializeToString())


def speech(length: int, count: int) -> Iterator[bytes]:
    """Without end: frames of so many new messages of one author, of so many bytes each."""
    keys = create_new_key_pair()
    while True:
        yield publishing(*(message(os.urandom(length), keys=keys) for _ in range(count)))


def subscribing(*topics: str) -> bytes:
    wanted = [rpc_pb2.RPC.SubOpts(subscribe=True, topicid=topic) for topic in topics]
    return prefixed(rpc_pb2.RPC(subscriptions=wanted).SerializeToString())


async def say(siege: Siege, frames: Iterable[bytes]) -> None:
    """All of this, by somebody new, until the target has let it wait for `HELD_UP_SECONDS` in all, or hangs up."""
    stream = await (await siege.peer()).stream(MESHSUB[0])
    waited = 0.0
    with contextlib.suppress(MuxedStreamError, MuxedConnUnavailable):
        for frame in frames:
            start = trio.current_time()
            with trio.move_on_after(HELD_UP_SECONDS):
                await stream.write(frame)
            waited += trio.current_time() - start
            if waited >= HELD_UP_SECONDS:
                return


async def garbage_on_topics(siege: Siege) -> None:
    """What is no frame, and messages that are forged, of nobody, too long, or about everything."""
    forged = (
        publishing(message(b"unsigned", is_signed=False)),
        publishing(message(b"forged", is_signed=False, signature=os.urandom(64))),
        publishing(message(b"of nobody", from_id=b"\0\1nobody")),
        publishing(message(b"of somebody long", from_id=b"\xff" * 5000)),
        publishing(message(b"about two things", topicIDs=[TOPIC, "another"])),
        publishing(message(bytes(200_000))),
        subscribing(*[TOPIC] * 5000),
    )

    async def throw(garbage: bytes) -> None:
        peer = await siege.peer()
        for number in range(TIMES):
            if not peer.mux.is_closed:
                stream = await peer.stream(MESHSUB[number % len(MESHSUB)])
                await quietly(stream.write, garbage)
                await quietly(stream.close)
                await quietly(until_over, stream)

    await siege.for_each(throw, zip((*GARBAGE, *forged)))
    await siege.look()


async def messages_without_end(siege: Siege) -> None:
    """Four who speak as fast as they can until nobody listens, all of them honest: others are heard meanwhile."""
    await siege.for_each(say, [(siege, speech(10, 25))] * 4)
    await siege.look()


async def control_without_end(siege: Siege) -> None:
    """Grafts, prunes, tidings and wishes about topics and messages that nobody has, and subscriptions to all of it."""
    rpc = rpc_pb2.RPC()
    for number in range(400):
        topic = f"nothing/{number}"
        rpc.control.graft.append(rpc_pb2.ControlGraft(topicID=topic))
        rpc.control.prune.append(rpc_pb2.ControlPrune(topicID=topic, backoff=1 << 40))
        rpc.control.ihave.append(rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[os.urandom(20)]))
        rpc.control.iwant.append(rpc_pb2.ControlIWant(messageIDs=[os.urandom(20)]))
    control = prefixed(rpc.SerializeToString())

    wanted = [subscribing(*(f"{number}/{each}" for each in range(250))) for number in range(4)]
    await siege.for_each(say, [(siege, itertools.cycle((control, own))) for own in wanted])
    await siege.look()


async def mute_listeners(siege: Siege) -> None:
    """Twenty who subscribe and read nothing of what they are told, while eight say all that they are let."""

    async def listen(peer: Intruder) -> None:
        """Take the target's own stream for topics, and leave it at that."""
        while True:
            stream = await peer.mux.accept_stream()
            siege.nursery.start_soon(agree, stream)

    async def agree(stream: YamuxStream) -> None:
        with contextlib.suppress(BaseLibp2pError):
            await multistream.accept(stream, {TProtocol(one): None for one in MESHSUB})

    wanted = rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC)])
    wanted.control.graft.append(rpc_pb2.ControlGraft(topicID=TOPIC))
    for _ in range(20):
        peer = await siege.peer()
        siege.nursery.start_soon(quietly, listen, peer)
        await (await peer.stream(MESHSUB[0])).write(prefixed(wanted.SerializeToString()))
    await siege.for_each(say, [(siege, speech(50_000, 4)) for _ in range(8)])
    await siege.look()


ATTACKS: tuple[Attack, ...] = (garbage_on_topics, messages_without_end, control_without_end, mute_listeners)
