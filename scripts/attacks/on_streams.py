"""On streams: every protocol that is spoken here, or might be, with anything but what it wants to hear."""

import contextlib
import os
from collections.abc import Awaitable, Callable

import trio
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from attacks.attack_run import Attack, Siege
from attacks.connections import MULTISTREAM, Fell, prefixed, said, varint
from attacks.intruders import Intruder, until_over
from attacks.on_negotiation import BROKEN
from node.swarm.libp2p.yamux_stream import YamuxStream

IDENTIFY, PUSH, PING = "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"
KAD = ("/ipfs/kad/1.0.0", "/bzzz/kad/1.0.0")
PUBSUB = ("/meshsub/1.0.0", "/meshsub/1.1.0", "/meshsub/1.2.0", "/floodsub/1.0.0")
STORE = "/bzzz/store/1.0.0"
OTHERS = ("/libp2p/circuit/relay/0.2.0/hop", "/libp2p/autonat/1.0.0", "/rendezvous/1.0.0", "/ipfs/bitswap/1.2.0", "/")
PROTOCOLS = (IDENTIFY, PUSH, PING, *KAD, *PUBSUB, STORE, *OTHERS)

GARBAGE = (
    b"",
    b"\0",
    b"\xff" * 1000,
    os.urandom(5000),
    varint(1 << 20) + bytes(1000),
    varint((1 << 63) - 1) + b"x",
    b"\x80" * 20,
    prefixed(b"\xff" * 200),
    prefixed(b""),
    prefixed(b"\x0a" + varint(1 << 31)),  # a protobuf field that is longer than its message
    prefixed(b"\x0b" * 5000),  # groups within groups
    prefixed(b"\x08\x05\x12\x04abcd\x50\x01"),  # a kad-dht GET_VALUE
    prefixed(b"\x0a\x06\x08\x01\x12\x02\xff\xfe"),  # a subscription to a topic that is not UTF-8
    prefixed(b"\x12\x12\x0a\x04\xff\xff\xff\xff\x12\x01d\x1a\x01s\x22\x01t\x2a\x01s\x32\x01k"),  # a message of nobody
)


async def every_protocol(siege: Siege) -> None:
    """Garbage under each protocol id, supported or not: then closed, reset, or left open."""

    async def throw(peer: Intruder, protocol: str, garbage: bytes, ending: int) -> None:
        stream = await peer.stream(protocol)
        if garbage:
            await stream.write(garbage)
        if ending == 0:
            await stream.close()
        elif ending == 1:
            await stream.reset()

    async def throw_all(protocol: str) -> None:
        peer = await siege.peer()
        for garbage in GARBAGE:
            for ending in range(3):
                if not peer.mux.is_closed:
                    await throw(peer, protocol, garbage, ending)
        await trio.sleep(0.2)

    await siege.for_each(throw_all, zip(PROTOCOLS))
    await siege.look()


async def broken_openings(siege: Siege) -> None:
    """Streams that do not get as far as naming a protocol: 24 such bytes end a plain libp2p host."""
    peer = await siege.peer()
    streams: list[YamuxStream] = []
    for broken in BROKEN:
        for opening in (b"", said(MULTISTREAM), said(MULTISTREAM, PING)):
            stream = await peer.stream()
            await stream.write(opening + broken)
            await stream.close()
            streams.append(stream)
    for stream in streams:
        await until_over(stream, 12.0)


async def dribbled_streams(siege: Siege) -> None:
    """Streams that say what they are for a byte at a time, and one that never does: the target must not wait long."""
    peer = await siege.peer()

    async def dribble(stream: YamuxStream) -> None:
        for one in said(MULTISTREAM, "/" + "x" * 60):
            await stream.write(bytes([one]))
            await trio.sleep(0.1)

    streams = [await peer.stream() for _ in range(20)]
    for stream in streams[1:]:
        siege.nursery.start_soon(quietly, dribble, stream)
    await siege.look()
    for stream in streams:
        await until_over(stream, 8.0)


async def pings_on_streams(siege: Siege) -> None:
    """libp2p pings: 20,000 at once, half of one and no more, and from one who reads no answer."""
    peer = await siege.peer()
    half = await peer.stream(PING)
    await half.write(bytes(31))
    sullen = await peer.stream(PING)
    siege.nursery.start_soon(quietly, _pour, sullen)
    stream = await peer.stream(PING)
    sent = 32 * 20_000
    got = 0
    siege.nursery.start_soon(quietly, stream.write, os.urandom(sent))
    with trio.move_on_after(8):
        while got < sent:
            try:
                got += len(await stream.read(65536))
            except MuxedStreamError:
                return
        await siege.look()
        return
    raise Fell(f"pings were not answered: {got} of {sent} bytes came back within 8 s")


async def _pour(stream: YamuxStream) -> None:
    with trio.move_on_after(3):
        while True:
            await stream.write(bytes(3200))


async def identify_floods(siege: Siege) -> None:
    """Identify asked for 1,000 times by each of three, who read half of the answers."""

    async def ask() -> None:
        peer = await siege.peer()
        for number in range(1000):
            if peer.mux.is_closed:
                return
            stream = await peer.stream(IDENTIFY)
            if number % 2 == 0:
                await stream.reset()
            elif number % 16 == 1:
                await until_over(stream)

    await siege.times(3, ask)


async def false_identities(siege: Siege) -> None:
    """Identify pushed and answered with other keys, a million bytes of addresses, and 50,000 protocols."""
    large = Identify(protocols=[f"/no/{number}" for number in range(50_000)], public_key=os.urandom(36))
    addresses = Identify(listen_addrs=[os.urandom(8) for _ in range(90_000)], observed_addr=os.urandom(1000))
    record = Identify(signedPeerRecord=os.urandom(100_000), public_key=b"\x08\x01\x12\x20" + bytes(32))
    bodies = [prefixed(one.SerializeToString()) for one in (large, addresses, record)]

    async def push() -> None:
        peer = await siege.peer()
        siege.nursery.start_soon(_answer_identify, peer, bodies)
        for body in bodies * 2:
            if peer.mux.is_closed:
                return
            stream = await peer.stream(PUSH)
            await quietly(stream.write, body)
            await quietly(stream.close)
            await quietly(until_over, stream)

    await siege.times(6, push)
    await siege.look()


async def _answer_identify(peer: Intruder, bodies: list[bytes]) -> None:
    """Whatever the target asks on a stream of its own, this is the answer."""
    for body in bodies:
        try:
            stream = await peer.mux.accept_stream()
            await stream.write(said(MULTISTREAM, IDENTIFY) + body)
            await stream.close()
        except Exception:
            return


async def quietly(what: Callable[..., Awaitable[object]], *arguments: object) -> None:
    """That the target ends the stream meanwhile is its right."""
    with contextlib.suppress(MuxedStreamError, MuxedConnUnavailable):
        await what(*arguments)


ATTACKS: tuple[Attack, ...] = (
    every_protocol,
    broken_openings,
    dribbled_streams,
    pings_on_streams,
    identify_floods,
    false_identities,
)
