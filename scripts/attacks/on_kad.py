"""Attacks on the DHT: streams that idle, flood, half-send, oversize, reset, or are never read; and forged values."""

import os

import trio
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from attacks.attack_run import Attack, AttackRun
from attacks.connections import MULTISTREAM, TargetFailed, multistream, prefixed, scaled_by_load, varint
from attacks.intruders import Intruder, until_over
from attacks.on_streams import quietly
from node.swarm.libp2p.message_splitter import MessageSplitter
from node.swarm.libp2p.yamux_stream import YamuxStream
from protocols.cid import multihash
from protocols.clock import version
from protocols.envelope import seal
from protocols.kademlia.contact import Contact
from protocols.kademlia.message_codec import encode_request
from protocols.kademlia.messages import (
    MESSAGE_BYTES_MAX,
    PROTOCOL,
    AddProvider,
    FindNode,
    GetProviders,
    GetValue,
    KadPing,
    PutValue,
    Record,
)
from protocols.keys import PrivateKey, peer_id_bytes

SERVED_SECONDS = 3.0
"""How soon an honest peer must have its answer."""
_PAST_MS = 1_700_000_000_000
_NEGOTIATION = len(multistream(MULTISTREAM, PROTOCOL))


async def _ask(peer: Intruder, *messages: bytes) -> bytes:
    """Send messages on a stream of its own, and return the first answer."""
    stream = await peer.stream(PROTOCOL)
    await stream.write(b"".join(map(prefixed, messages)))
    head, splitter = b"", MessageSplitter(MESSAGE_BYTES_MAX)
    while len(head) < _NEGOTIATION:
        head += await stream.read(65536)
    answers = splitter.feed(head[_NEGOTIATION:])
    while not answers:
        answers = splitter.feed(await stream.read(65536))
    await stream.close()
    return answers[0]


async def _check(run: AttackRun) -> None:
    """Everybody else is served: peers on the lanes, the API, and a new peer in the DHT."""
    await run.check()
    try:
        with trio.fail_after(scaled_by_load(SERVED_SECONDS)):
            await _ask(await run.peer(), encode_request(KadPing()))
    except (trio.TooSlowError, MuxedStreamError, MuxedConnUnavailable) as error:
        raise TargetFailed(f"a new peer had no answer in the DHT within {SERVED_SECONDS:g} s: {error!r}") from error


async def idle_dht_streams(run: AttackRun) -> None:
    """Forty peers that open as many streams of the DHT as they may, and more, and say nothing."""

    async def idle() -> None:
        peer = await run.peer()
        for _ in range(60):
            await quietly(peer.stream, PROTOCOL)

    await run.times(40, idle)
    await _check(run)


async def dht_floods(run: AttackRun) -> None:
    """Ten peers that ask without end on eight streams each, and read the answers."""
    requests = (KadPing(), FindNode(os.urandom(38)), GetValue(os.urandom(49)), GetProviders(multihash(os.urandom(32))))
    batch = b"".join(prefixed(encode_request(request)) for request in requests) * 100

    async def pour(stream: YamuxStream) -> None:
        while True:
            await stream.write(batch)

    async def drain(stream: YamuxStream) -> None:
        while True:
            await stream.read(65536)

    async def flood() -> None:
        peer = await run.peer()
        for _ in range(8):
            stream = await peer.stream(PROTOCOL)
            run.nursery.start_soon(quietly, pour, stream)
            run.nursery.start_soon(quietly, drain, stream)

    await run.times(10, flood)
    await trio.sleep(2.0)
    await _check(run)


async def half_dht_messages(run: AttackRun) -> None:
    """Messages of the DHT that stop in the middle, or come byte by byte."""
    message = prefixed(encode_request(PutValue(Record(b"key", os.urandom(5000)))))

    async def dribble(stream: YamuxStream) -> None:
        for byte in message:
            await stream.write(bytes([byte]))
            await trio.sleep(0.2)

    async def stop() -> None:
        peer = await run.peer()
        streams = [await peer.stream(PROTOCOL) for _ in range(24)]
        for number, stream in enumerate(streams):
            if number % 2:
                await stream.write(message[: number * 100])
            else:
                run.nursery.start_soon(quietly, dribble, stream)
        for stream in streams[:6]:
            await until_over(stream, scaled_by_load(20.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.times, 8, stop)
        await _check(run)


async def long_dht_messages(run: AttackRun) -> None:
    """Messages that are longer than they may be, lengths without an end, and ten thousand contacts in one message."""
    contact = b"\x0a\x26" + bytes(38)
    crowd = b"\x08\x02\x12\x03key" + b"".join(b"\x4a" + varint(len(contact)) + contact for _ in range(10_000))
    bodies = (varint(MESSAGE_BYTES_MAX + 1) + bytes(50_000), b"\xff" * 20, prefixed(crowd), prefixed(b"\x0b" * 5000))

    async def send() -> None:
        for body in bodies:
            peer = await run.peer()
            stream = await peer.stream(PROTOCOL)
            await quietly(stream.write, body)
            await quietly(stream.close)
            await quietly(until_over, stream)

    await run.times(6, send)
    await _check(run)


async def reset_dht_streams(run: AttackRun) -> None:
    """A thousand streams of each of five peers that are reset in the middle of a question or of its answer."""

    async def reset() -> None:
        peer = await run.peer()
        message = prefixed(encode_request(FindNode(os.urandom(38))))
        for number in range(1000):
            if peer.mux.is_closed:
                return
            stream = await peer.stream(PROTOCOL)
            await quietly(stream.write, message[: None if number % 2 else 7])
            if number % 50 == 0:
                await trio.sleep(0)
            await stream.reset()

    await run.times(5, reset)
    await _check(run)


async def unread_dht_answers(run: AttackRun) -> None:
    """Values of nearly a megabyte that are put, asked for on 32 streams of each of six peers, and never read."""
    author = PrivateKey.from_seed(os.urandom(32))
    envelope = seal(
        author,
        address=f"ucxl://attacker:dht@bzzz:unread/*^/{os.urandom(8).hex()}",
        content=os.urandom(900_000),
        content_type="application/octet-stream",
        version=version(_PAST_MS),
        parents=(),
    )
    await _ask(await run.peer(), encode_request(PutValue(Record(envelope.key, envelope.encoded))))
    question = prefixed(encode_request(GetValue(envelope.key)))

    async def ask() -> None:
        peer = await run.peer()
        for _ in range(32):
            stream = await peer.stream(PROTOCOL)
            await quietly(stream.write, question * 20)

    await run.times(6, ask)
    await trio.sleep(1.0)
    await _check(run)


async def forged_dht_values(run: AttackRun) -> None:
    """Values that no author signed, and providers who provide for others: none is kept, and honest peers are served."""
    author, other = (PrivateKey.from_seed(os.urandom(32)) for _ in range(2))
    envelope = seal(
        author,
        address=f"ucxl://attacker:dht@bzzz:forged/*^/{os.urandom(8).hex()}",
        content=b"signed",
        content_type="text/plain",
        version=version(_PAST_MS),
        parents=(),
    )
    forged = envelope.encoded.replace(b"signed", b"forged")
    key = multihash(os.urandom(32))
    bad = (
        PutValue(Record(envelope.key, forged)),
        PutValue(Record(os.urandom(49), envelope.encoded)),
        PutValue(Record(envelope.key, os.urandom(3000))),
        AddProvider(key, (Contact(other.peer_id),)),
    )

    async def lie() -> None:
        for request in bad:
            peer = await run.peer()
            stream = await peer.stream(PROTOCOL)
            await quietly(stream.write, prefixed(encode_request(request)))
            await quietly(stream.close)
            await quietly(until_over, stream)

    await run.times(6, lie)
    if b"forged" in await _ask(await run.peer(), encode_request(GetValue(envelope.key))):
        raise TargetFailed("it keeps a value that its author did not sign")
    if peer_id_bytes(other.peer_id) in await _ask(await run.peer(), encode_request(GetProviders(key))):
        raise TargetFailed("it keeps a provider that another peer named")
    await _check(run)


async def false_dht_providers(run: AttackRun) -> None:
    """Peers that say that they provide 20,000 keys; who provides one key is still known."""
    key = multihash(os.urandom(32))
    provider = PrivateKey.from_seed(os.urandom(32))
    honest = AddProvider(key, (Contact(provider.peer_id),))
    await _ask(await run.peer(provider), encode_request(honest), encode_request(KadPing()))

    async def provide() -> None:
        liar = PrivateKey.from_seed(os.urandom(32))
        peer, own = await run.peer(liar), (Contact(liar.peer_id),)
        stream = await peer.stream(PROTOCOL)
        for _ in range(50):
            requests = (AddProvider(multihash(os.urandom(32)), own) for _ in range(100))
            await quietly(stream.write, b"".join(prefixed(encode_request(each)) for each in requests))

    with trio.move_on_after(20):
        await run.times(4, provide)
    if peer_id_bytes(provider.peer_id) not in await _ask(await run.peer(), encode_request(GetProviders(key))):
        raise TargetFailed("it forgot an honest provider in a flood of others")
    await _check(run)


ATTACKS: tuple[Attack, ...] = (
    idle_dht_streams,
    dht_floods,
    half_dht_messages,
    long_dht_messages,
    reset_dht_streams,
    unread_dht_answers,
    forged_dht_values,
    false_dht_providers,
)
