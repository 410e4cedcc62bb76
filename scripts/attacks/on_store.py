"""At the store protocol: frames that are none, messages that are none, and requests that are not one's to make."""

import os
import struct
from itertools import product
from typing import Any

import msgpack
import trio

from attacks.attack_run import Attack, Siege
from attacks.connections import MULTISTREAM, Fell, said
from attacks.intruders import until_over
from attacks.on_streams import STORE
from attacks.witness import key_after
from node.swarm.base import FRAME_BYTES_MAX, Lane
from protocols import message_codec, messages
from protocols.errors import Forbidden
from protocols.keys import peer_id_of
from protocols.messages import (
    AddProvider,
    FailedReply,
    GetByDigest,
    GetHeads,
    GetMembers,
    GetProviders,
    GetVersions,
    HeadsReply,
    Hello,
    MemberEntry,
    MembersReply,
    Merge,
    MergeReply,
    Ping,
    Pong,
    ProviderAdded,
    Reply,
    Request,
    VersionsReply,
)
from protocols.ucxl import key_of

KEY = key_of("ucxl://any:any@any:any/*^/attacked")
PIPELINED = 100_000
HALF_FRAMES = 16


def packed(*fields: Any) -> bytes:
    return bytes(msgpack.packb(fields))


BROKEN = (
    b"",
    b"\xc1",
    b"\x93\x02",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\x92" * 100_000,
    b"\x91" * 5_000 + b"\xc0",
    b"\x81\xa1a" * 5_000 + b"\xc0",
    packed(2, 1),
    packed(2, 1, "") + b"\0",
    packed(0, 1, ""),
    packed(10, 1, ""),
    packed(1 << 63, 1, ""),
    packed(-1, 1, ""),
    packed(True, 1, ""),
    packed("2", 1, ""),
    packed(2, -1, ""),
    packed(2, 1.5, ""),
    packed(2, "1", ""),
    packed(2, 1, None),
    packed(2, 1, "t" * 65),
    packed(2, 1, b"\xff"),
    packed(1, 1, ""),
    packed(1, 1, "", "bzzz", "n", "", -1, []),
    packed(1, 1, "", "bzzz", "n" * 1025, "", 1, []),
    packed(1, 1, "", "bzzz", "n", "", 1, ["/ip4/127.0.0.1/tcp/1"] * 33),
    packed(1, 1, "", "bzzz", "n", "", 1, "x"),
    packed(3, 1, "", [b"x"] * 257),
    packed(3, 1, "", ["x"]),
    packed(3, 1, "", {"a": 1}),
    packed(4, 1, "", b"/ucxl/short", []),
    packed(4, 1, "", KEY, [b"short"]),
    packed(5, 1, "", KEY, -1, 1),
    packed(5, 1, "", KEY, 1 << 64 - 1, "all"),
    packed(6, 1, "", [bytes(32)] * 257),
    packed(71, 1, "", [["x", ["y"]]] * 1025),
    packed(69, 1, "", [["ucxl://a:b@c:d/*^/x", b"not its key", bytes(32), 1, "author", False, []]], 1),
    packed(127, 1, "", "code", "message", {str(n): 1 for n in range(33)}),
    packed(127, 1, "", "code", "message", {"a": [1]}),
    bytes(msgpack.packb([2, 1, "", msgpack.ExtType(1, b"x")])),
    bytes(msgpack.packb({"kind": 2})),
)


BROKEN_LANES = (
    b"\0\0\0\1\0", b"\0\0\0\1\0", b"\0\0\0\1\7", b"\0\0\0\2\0\0", b"\xff\xff\xff\xff\0", b"\0\0\0\0", b"\0",
)  # fmt: skip


async def broken_messages(siege: Siege) -> None:
    """Every message that is none costs the connection, and so does a frame of more than 8 MiB."""

    async def breaks(body: bytes) -> None:
        member = await siege.member()
        await member.send(body)
        try:
            await member.until_over()
        except Fell as error:
            raise Fell(f"{body[:40].hex()}: {error}") from error

    async def oversizes(length: int, lane: Lane) -> None:
        member = await siege.member()
        await member.send_raw(struct.pack("!I", length) + bytes(1000), lane)
        await member.until_over()

    for first in range(0, len(BROKEN), 8):
        await siege.for_each(breaks, zip(BROKEN[first : first + 8]))
    lengths = (FRAME_BYTES_MAX + 1, 0xFFFFFFFF, 0x7FFFFFFF)
    await siege.for_each(oversizes, product(lengths, Lane))


async def swollen_messages(siege: Siege) -> None:
    """8 MiB that unpack to millions of empty lists: a byte on the wire, seventy in memory, before hello and after."""
    inner = struct.pack("!BH", 0xDC, 1024) + b"\x90" * 1024
    outer = struct.pack("!BH", 0xDC, 1000) + inner * 1000
    bomb = struct.pack("!BH", 0xDC, 8) + b"\x02\x01\xa0" + outer * 5
    for says_hello in (True, False):
        member = await siege.member(says_hello=says_hello)
        for _ in range(4):
            await member.send(bomb, Lane.BULK)
        with trio.move_on_after(5):
            await member.intruder.mux.event_closed.wait()


async def requests_before_hello(siege: Siege) -> None:
    """Whoever has not said hello is answered nothing, and whoever is of another swarm is parted from."""
    requests: tuple[Request, ...] = (
        Ping(), Merge(()), GetHeads(KEY, ()), GetVersions(KEY, 0, 10), GetByDigest((bytes(32),)), GetMembers(),
        AddProvider(KEY, 1000), GetProviders(KEY),
    )  # fmt: skip
    member = await siege.member(says_hello=False, answering=lambda request, honest: None)
    for request in requests:
        reply = await member.ask(request)
        if not isinstance(reply, FailedReply) or not isinstance(reply.error, Forbidden):
            raise Fell(f"a {type(request).__name__} before hello was answered with {reply}")
    stranger = await siege.member(says_hello=False, answering=lambda request, honest: None)
    for request in (stranger.hello(network="another"), GetHeads(KEY, ())):
        reply = await stranger.ask(request)
        if not isinstance(reply, FailedReply) or not isinstance(reply.error, Forbidden):
            raise Fell(f"a member of another swarm was answered with {reply}")
    await stranger.until_over()


async def mute_peers(siege: Siege) -> None:
    """40 who open the lanes and never answer a hello, and 40 who let the target open them and never do their part."""

    async def open_and_be_mute() -> None:
        await siege.member(says_hello=False, answering=lambda request, honest: None)

    async def let_open_and_be_mute() -> None:
        await siege.peer(key_after(siege.target.peer))

    await siege.times(40, open_and_be_mute)
    await siege.times(40, let_open_and_be_mute)
    await siege.look()


async def broken_lanes(siege: Siege) -> None:
    """Lanes that are none: named twice, named wrongly, not named, or opened by the side that must not."""
    after = await siege.peer(key_after(siege.target.peer))
    before = await siege.peer()
    for peer in (before, after):
        for first in BROKEN_LANES:
            if peer.mux.is_closed:
                break
            stream = await peer.stream()
            await stream.write(said(MULTISTREAM, STORE) + first)
            await stream.close()
            siege.nursery.start_soon(until_over, stream)
    member = await siege.member()
    third = await member.intruder.stream(STORE)
    await third.write(b"\0\0\0\1\1")
    await until_over(third)


async def unasked_answers(siege: Siege) -> None:
    """10,000 answers that nobody asked for, of every kind, and wrong ones to what was asked."""
    wrong: list[Reply] = [Pong(0, 1 << 63, 1 << 63), HeadsReply((), ()), ProviderAdded(), MergeReply(1 << 40, ())]
    wrong += [VersionsReply((), 1 << 63), MembersReply(()), FailedReply("UCXL-500-INTERNAL", "x" * 1024, {})]
    turn = 0

    def answer(request: Request, honest: Reply | None) -> Reply:
        nonlocal turn
        turn += 1
        return wrong[turn % len(wrong)]

    member = await siege.member()
    for number in range(10_000):
        if not await member.send(message_codec.encode_reply(number % 5_000, wrong[number % len(wrong)])):
            return
    await member.ask(Ping())
    liar = await siege.member(answering=answer, says_hello=False)
    await liar.ask(liar.hello())
    await trio.sleep(0.3)


async def pipelined_pings(siege: Siege) -> None:
    """100,000 pings in one go: every one is answered, and nobody else waits."""
    member = await siege.member()
    before = member.replies
    chunk = b"".join(map(_framed, (message_codec.encode_request(1 << 40 | number, Ping()) for number in range(1000))))
    with trio.move_on_after(15):
        for _ in range(PIPELINED // 1000):
            await member.send_raw(chunk)
        await siege.look()
        await member.until_answered(before + PIPELINED, seconds=15)
        return
    raise Fell(f"only {member.replies - before} of {PIPELINED} pings were answered within 15 s")


async def pipelined_look_ups(siege: Siege) -> None:
    """20,000 look-ups in one go: each is answered or refused, or the connection given up, and nobody else waits."""
    member = await siege.member()
    chunk = _framed(message_codec.encode_request(1 << 40, GetHeads(KEY, ()))) * 500
    for _ in range(40):
        if not await member.send_raw(chunk):
            break
    await siege.look()


def _framed(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


async def unread_answers(siege: Siege) -> None:
    """Ten members who ask for a megabyte again and again, and read no answer: at the socket, and at the stream."""
    content = os.urandom(900_000)
    author = await siege.member()
    envelope = await author.write(content)

    async def ask(is_deaf: bool) -> None:
        member = await siege.member()
        request = message_codec.encode_request(1 << 40, GetHeads(envelope.key, ()))
        member.stop_reading(socket_too=is_deaf)
        with trio.move_on_after(3):
            for _ in range(400):
                if not await member.send(request):
                    return

    await siege.for_each(ask, [(True,), (False,)] * 5)
    await siege.look()


async def half_frames(siege: Siege) -> None:
    """Members who announce frames of 8 MiB on both lanes, send all but the last byte, and wait."""

    async def send_half() -> None:
        member = await siege.member()
        for lane in Lane:
            await member.send_raw(struct.pack("!I", FRAME_BYTES_MAX), lane)
            for _ in range(FRAME_BYTES_MAX // 65536 - 1):
                if not await member.send_raw(bytes(65536), lane):
                    return

    with trio.move_on_after(6):
        await siege.times(HALF_FRAMES, send_half)
    await siege.look()


async def dribbled_frames(siege: Siege) -> None:
    """Frames a byte at a time: a ping comes in 20 pieces and is answered all the same."""
    member = await siege.member()
    body = message_codec.encode_request(1 << 40, Ping())
    before = member.replies
    for one in _framed(body):
        await member.send_raw(bytes([one]), Lane.BULK)  # on the other one the member answers what it is asked
        await trio.sleep(0.02)
    await member.until_answered(before + 1)


async def repeated_hellos(siege: Siege) -> None:
    """5,000 hellos of one member, each with other names and addresses, and none of them its own."""
    member = await siege.member()
    for number in range(5_000):
        addresses = tuple(f"/ip4/127.0.0.{number % 200 + 1}/tcp/{at}/p2p/{member.key.peer_id}" for at in range(1, 33))
        hello = Hello(siege.target.network, (f"n{number}-" * 64)[:64], "", 1 << 62, addresses)
        if not await member.send(message_codec.encode_request(1 << 40 | number, hello)):
            return
    await member.ask(Ping())


async def false_members(siege: Siege) -> None:
    """Told of 1,000 members with 32 addresses each, all of them a socket that takes every call and says nothing."""
    listener = trio.socket.socket()
    siege.hold(listener.close)
    await listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    port = listener.getsockname()[1]
    calls = 0
    told = [MemberEntry(peer, _places(peer, port)) for peer in (_some_peer() for _ in range(messages.MEMBERS_MAX))]

    async def take() -> None:
        nonlocal calls
        while True:
            connection, _ = await listener.accept()
            siege.hold(connection.close)
            calls += 1

    def answer(request: Request, honest: Reply | None) -> Reply | None:
        return MembersReply(tuple(told)) if isinstance(request, GetMembers) else honest

    siege.nursery.start_soon(take)
    member = await siege.member(says_hello=False, answering=answer)
    await member.say_hello()
    await trio.sleep(2)
    await siege.look()
    if calls > 2_000:
        raise Fell(f"{calls} connections were made for one member's tale")


def _some_peer() -> str:
    return peer_id_of(os.urandom(32))


def _places(peer: str, port: int) -> tuple[str, ...]:
    return tuple(f"/ip4/127.0.{at}.1/tcp/{port}/p2p/{peer}" for at in range(messages.ADDRESSES_MAX))


ATTACKS: tuple[Attack, ...] = (
    broken_messages,
    swollen_messages,
    requests_before_hello,
    mute_peers,
    broken_lanes,
    unasked_answers,
    pipelined_pings,
    pipelined_look_ups,
    unread_answers,
    half_frames,
    dribbled_frames,
    repeated_hellos,
    false_members,
)
