"""Attacks on streams: garbage under every protocol id, malformed negotiation, and floods of ping and identify."""

import contextlib
import os
from collections.abc import Awaitable, Callable

import trio
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from attacks.attack_run import Attack, AttackRun
from attacks.connections import MULTISTREAM, TargetFailed, multistream, prefixed, varint
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
    prefixed(
        b"\x12\x12\x0a\x04\xff\xff\xff\xff\x12\x01d\x1a\x01s\x22\x01t\x2a\x01s\x32\x01k"
    ),  # a message of no author
)


async def every_protocol(run: AttackRun) -> None:
    """Garbage under each protocol id, supported or not; then the stream is closed, reset, or left open."""

    async def throw(peer: Intruder, protocol: str, garbage: bytes, ending: int) -> None:
        stream = await peer.stream(protocol)
        if garbage:
            await stream.write(garbage)
        if ending == 0:
            await stream.close()
        elif ending == 1:
            await stream.reset()

    async def throw_all(protocol: str) -> None:
        peer = await run.peer()
        for garbage in GARBAGE:
            for ending in range(3):
                if not peer.mux.is_closed:
                    await throw(peer, protocol, garbage, ending)
        await trio.sleep(0.2)

    await run.for_each(throw_all, zip(PROTOCOLS))
    await run.check()


async def broken_openings(run: AttackRun) -> None:
    """Streams with a malformed negotiation: 24 such bytes end a plain libp2p host."""
    peer = await run.peer()
    streams: list[YamuxStream] = []
    for broken in BROKEN:
        for opening in (b"", multistream(MULTISTREAM), multistream(MULTISTREAM, PING)):
            stream = await peer.stream()
            await stream.write(opening + broken)
            await stream.close()
            streams.append(stream)
    for stream in streams:
        await until_over(stream, 12.0)


async def dribbled_streams(run: AttackRun) -> None:
    """Streams that name their protocol byte by byte, and one that never does: the target must not wait long."""
    peer = await run.peer()

    async def dribble(stream: YamuxStream) -> None:
        for byte in multistream(MULTISTREAM, "/" + "x" * 60):
            await stream.write(bytes([byte]))
            await trio.sleep(0.1)

    streams = [await peer.stream() for _ in range(20)]
    for stream in streams[1:]:
        run.nursery.start_soon(quietly, dribble, stream)
    await run.check()
    for stream in streams:
        await until_over(stream, 8.0)


async def pings_on_streams(run: AttackRun) -> None:
    """libp2p pings: 20,000 at once, half a ping, and pings on a stream whose answers are not read."""
    peer = await run.peer()
    half = await peer.stream(PING)
    await half.write(bytes(31))
    mute = await peer.stream(PING)
    run.nursery.start_soon(quietly, _pour, mute)
    stream = await peer.stream(PING)
    sent = 32 * 20_000
    got = 0
    run.nursery.start_soon(quietly, stream.write, os.urandom(sent))
    with trio.move_on_after(8):
        while got < sent:
            try:
                got += len(await stream.read(65536))
            except MuxedStreamError:
                return
        await run.check()
        return
    raise TargetFailed(f"pings were not answered: {got} of {sent} bytes came back within 8 s")


async def _pour(stream: YamuxStream) -> None:
    with trio.move_on_after(3):
        while True:
            await stream.write(bytes(3200))


async def identify_floods(run: AttackRun) -> None:
    """Three peers that open 1,000 identify streams each, and read few of the answers."""

    async def ask() -> None:
        peer = await run.peer()
        for number in range(1000):
            if peer.mux.is_closed:
                return
            stream = await peer.stream(IDENTIFY)
            if number % 2 == 0:
                await stream.reset()
            elif number % 16 == 1:
                await until_over(stream)

    await run.times(3, ask)


async def false_identities(run: AttackRun) -> None:
    """Identities, pushed and in answers, with other keys, a megabyte of addresses, and 50,000 protocols."""
    large = Identify(protocols=[f"/no/{number}" for number in range(50_000)], public_key=os.urandom(36))
    addresses = Identify(listen_addrs=[os.urandom(8) for _ in range(90_000)], observed_addr=os.urandom(1000))
    record = Identify(signedPeerRecord=os.urandom(100_000), public_key=b"\x08\x01\x12\x20" + bytes(32))
    bodies = [prefixed(identity.SerializeToString()) for identity in (large, addresses, record)]

    async def push() -> None:
        peer = await run.peer()
        run.nursery.start_soon(_answer_identify, peer, bodies)
        for body in bodies * 2:
            if peer.mux.is_closed:
                return
            stream = await peer.stream(PUSH)
            await quietly(stream.write, body)
            await quietly(stream.close)
            await quietly(until_over, stream)

    await run.times(6, push)
    await run.check()


async def _answer_identify(peer: Intruder, bodies: list[bytes]) -> None:
    """Answer each stream that the target opens with one of these bodies."""
    for body in bodies:
        try:
            stream = await peer.mux.accept_stream()
            await stream.write(multistream(MULTISTREAM, IDENTIFY) + body)
            await stream.close()
        except Exception:
            return


async def quietly(action: Callable[..., Awaitable[object]], *arguments: object) -> None:
    """Do this, and ignore that the target ends the stream or the connection meanwhile: it may."""
    with contextlib.suppress(MuxedStreamError, MuxedConnUnavailable):
        await action(*arguments)


ATTACKS: tuple[Attack, ...] = (
    every_protocol,
    broken_openings,
    dribbled_streams,
    pings_on_streams,
    identify_floods,
    false_identities,
)
