"""Attacks on GossipSub: malformed frames, forged messages, and floods.

A target that is not subscribed to `TOPIC` ignores messages about it; `tests/live/test_attacks.py` runs these attacks on
a node that is. Every target listens to the announcements of others.
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

from attacks.attack_run import Attack, AttackRun
from attacks.connections import prefixed
from attacks.honest_peers import now_ms
from attacks.intruders import Intruder, until_over
from attacks.on_streams import GARBAGE, quietly
from node.swarm.libp2p import multistream
from node.swarm.libp2p.yamux_stream import YamuxStream
from protocols import announce
from protocols.capabilities import Label
from protocols.keys import PrivateKey

TOPIC = "attacks"
"""The topic of the messages; the tests run these attacks on a node that is subscribed to it."""
MESHSUB = ("/meshsub/1.2.0", "/meshsub/1.1.0", "/meshsub/1.0.0")
TIMES = 30
"""How often a peer sends the same garbage: more often than the target accepts it."""
WAIT_SECONDS_MAX = 2.0


def message(data: bytes, *, keys: KeyPair | None = None, is_signed: bool = True, **other: object) -> rpc_pb2.Message:
    """A message of this author, or of a new one."""
    keys = keys or create_new_key_pair()
    author = ID.from_pubkey(keys.public_key).to_bytes()
    fields = {"data": data, "topicIDs": [TOPIC], "from_id": author, "seqno": os.urandom(8), **other}
    made = rpc_pb2.Message(**fields)  # type: ignore[arg-type]
    if is_signed:
        made.signature = keys.private_key.sign(PUBSUB_SIGNING_PREFIX.encode() + made.SerializeToString())
    return made


def publishing(*messages: rpc_pb2.Message) -> bytes:
    return prefixed(rpc_pb2.RPC(publish=messages).SerializeToString())


def endless_frames(length: int, count: int) -> Iterator[bytes]:
    """Frames without end, each of `count` new messages of one author with `length` bytes of data."""
    keys = create_new_key_pair()
    while True:
        yield publishing(*(message(os.urandom(length), keys=keys) for _ in range(count)))


def subscribing(*topics: str) -> bytes:
    wanted = [rpc_pb2.RPC.SubOpts(subscribe=True, topicid=topic) for topic in topics]
    return prefixed(rpc_pb2.RPC(subscriptions=wanted).SerializeToString())


async def flood(run: AttackRun, frames: Iterable[bytes]) -> None:
    """Send these frames as a new peer, until writes have waited for `WAIT_SECONDS_MAX` or the target hangs up."""
    stream = await (await run.peer()).stream(MESHSUB[0])
    waited = 0.0
    with contextlib.suppress(MuxedStreamError, MuxedConnUnavailable):
        for frame in frames:
            start = trio.current_time()
            with trio.move_on_after(WAIT_SECONDS_MAX):
                await stream.write(frame)
            waited += trio.current_time() - start
            if waited >= WAIT_SECONDS_MAX:
                return


async def garbage_on_topics(run: AttackRun) -> None:
    """Malformed frames, and messages that are forged, without an author, too long, or about several topics."""
    forged = (
        publishing(message(b"unsigned", is_signed=False)),
        publishing(message(b"forged", is_signed=False, signature=os.urandom(64))),
        publishing(message(b"of no author", from_id=b"\0\1nobody")),
        publishing(message(b"of a long author", from_id=b"\xff" * 5000)),
        publishing(message(b"about two topics", topicIDs=[TOPIC, "another"])),
        publishing(message(bytes(200_000))),
        subscribing(*[TOPIC] * 5000),
    )

    async def throw(garbage: bytes) -> None:
        peer = await run.peer()
        for number in range(TIMES):
            if not peer.mux.is_closed:
                stream = await peer.stream(MESHSUB[number % len(MESHSUB)])
                await quietly(stream.write, garbage)
                await quietly(stream.close)
                await quietly(until_over, stream)

    await run.for_each(throw, zip((*GARBAGE, *forged)))
    await run.check()


async def messages_without_end(run: AttackRun) -> None:
    """Four peers that publish valid messages as fast as they can: other peers are served meanwhile."""
    await run.for_each(flood, [(run, endless_frames(10, 25))] * 4)
    await run.check()


async def announcements_without_end(run: AttackRun) -> None:
    """Announcements of nodes that do not exist, of others, forged ones, and no announcements, as fast as they can."""
    network = run.target.network

    def announced(key: PrivateKey, sequence: int) -> bytes:
        labels = [Label(f"label-{number}", "x" * 100) for number in range(60)]
        address = f"/ip4/192.0.2.7/tcp/4001/p2p/{key.peer_id}"
        return announce.seal(
            key, network=network, name="nobody", addresses=[address], capabilities=labels, sequence=sequence,
            expires_ms=now_ms() + 3_600_000,
        ).encoded  # fmt: skip

    def frames() -> Iterator[bytes]:
        one = PrivateKey(os.urandom(32))
        own = create_new_key_pair(one.seed)
        for sequence in itertools.count(1):
            seed = os.urandom(32)
            new, others = announced(PrivateKey(seed), sequence), announced(one, sequence)
            forged = others[:-1] + bytes([others[-1] ^ 1])
            sent = ((new, create_new_key_pair(seed)), (others, own), (new, own), (forged, own), (os.urandom(99), own))
            yield publishing(*(message(data, keys=keys, topicIDs=[announce.TOPIC]) for data, keys in sent))

    await run.for_each(flood, [(run, frames()) for _ in range(4)])
    await run.check()


async def control_without_end(run: AttackRun) -> None:
    """Control messages about unknown topics and messages, and subscriptions to a thousand topics."""
    rpc = rpc_pb2.RPC()
    for number in range(400):
        topic = f"nothing/{number}"
        rpc.control.graft.append(rpc_pb2.ControlGraft(topicID=topic))
        rpc.control.prune.append(rpc_pb2.ControlPrune(topicID=topic, backoff=1 << 40))
        rpc.control.ihave.append(rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[os.urandom(20)]))
        rpc.control.iwant.append(rpc_pb2.ControlIWant(messageIDs=[os.urandom(20)]))
    control = prefixed(rpc.SerializeToString())

    wanted = [subscribing(*(f"{number}/{each}" for each in range(250))) for number in range(4)]
    await run.for_each(flood, [(run, itertools.cycle((control, own))) for own in wanted])
    await run.check()


async def mute_listeners(run: AttackRun) -> None:
    """Twenty peers that subscribe and read nothing, while eight publish as much as they can."""

    async def listen(peer: Intruder) -> None:
        """Accept the target's own streams for GossipSub, and read nothing from them."""
        while True:
            stream = await peer.mux.accept_stream()
            run.nursery.start_soon(agree, stream)

    async def agree(stream: YamuxStream) -> None:
        with contextlib.suppress(BaseLibp2pError):
            await multistream.accept(stream, {TProtocol(name): None for name in MESHSUB})

    wanted = rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC)])
    wanted.control.graft.append(rpc_pb2.ControlGraft(topicID=TOPIC))
    for _ in range(20):
        peer = await run.peer()
        run.nursery.start_soon(quietly, listen, peer)
        await (await peer.stream(MESHSUB[0])).write(prefixed(wanted.SerializeToString()))
    await run.for_each(flood, [(run, endless_frames(50_000, 4)) for _ in range(8)])
    await run.check()


ATTACKS: tuple[Attack, ...] = (
    garbage_on_topics,
    messages_without_end,
    announcements_without_end,
    control_without_end,
    mute_listeners,
)
