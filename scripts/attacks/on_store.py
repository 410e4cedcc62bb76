"""Attacks on the store protocol: malformed frames and messages, requests without a right to them, and floods."""

import os
import struct
from itertools import product
from typing import Any

import msgpack
import trio

from attacks.attack_run import Attack, AttackRun
from attacks.connections import MULTISTREAM, TargetFailed, multistream
from attacks.intruders import until_over
from attacks.on_streams import STORE
from attacks.witness import key_after
from node.swarm.base import FRAME_BYTES_MAX, Lane
from protocols import message_codec
from protocols.errors import Forbidden
from protocols.messages import (
    ContentReply,
    FailedReply,
    GetByDigest,
    GetContent,
    GetHeads,
    GetMembers,
    GetMissing,
    GetVersions,
    HeadsReply,
    MembersReply,
    Merge,
    MergeReply,
    Ping,
    Pong,
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


async def broken_messages(run: AttackRun) -> None:
    """Every malformed message costs the connection, and so does a frame of more than 8 MiB."""

    async def breaks(body: bytes) -> None:
        member = await run.member()
        await member.send(body)
        try:
            await member.until_over()
        except TargetFailed as error:
            raise TargetFailed(f"{body[:40].hex()}: {error}") from error

    async def oversizes(length: int, lane: Lane) -> None:
        member = await run.member()
        await member.send_raw(struct.pack("!I", length) + bytes(1000), lane)
        await member.until_over()

    for first in range(0, len(BROKEN), 8):
        await run.for_each(breaks, zip(BROKEN[first : first + 8]))
    lengths = (FRAME_BYTES_MAX + 1, 0xFFFFFFFF, 0x7FFFFFFF)
    await run.for_each(oversizes, product(lengths, Lane))


async def swollen_messages(run: AttackRun) -> None:
    """8 MiB that unpack to millions of empty lists (70 bytes in memory for each byte sent), before hello and after."""
    inner = struct.pack("!BH", 0xDC, 1024) + b"\x90" * 1024
    outer = struct.pack("!BH", 0xDC, 1000) + inner * 1000
    bomb = struct.pack("!BH", 0xDC, 8) + b"\x02\x01\xa0" + outer * 5
    for says_hello in (True, False):
        member = await run.member(says_hello=says_hello)
        for _ in range(4):
            await member.send(bomb, Lane.BULK)
        with trio.move_on_after(5):
            await member.intruder.mux.event_closed.wait()


async def requests_before_hello(run: AttackRun) -> None:
    """Requests before hello are refused, and a member of another swarm is disconnected."""
    requests: tuple[Request, ...] = (
        Ping(), Merge(()), GetHeads(KEY, ()), GetVersions(KEY, 0, 10), GetByDigest((bytes(32),)), GetMembers(),
        GetContent(bytes(32)),
        GetMissing((bytes(32),)),
    )  # fmt: skip
    member = await run.member(says_hello=False, make_reply=lambda request, honest: None)
    for request in requests:
        reply = await member.ask(request)
        if not isinstance(reply, FailedReply) or not isinstance(reply.error, Forbidden):
            raise TargetFailed(f"a {type(request).__name__} before hello was answered with {reply}")
    stranger = await run.member(says_hello=False, make_reply=lambda request, honest: None)
    for request in (stranger.hello(network="another"), GetHeads(KEY, ())):
        reply = await stranger.ask(request)
        if not isinstance(reply, FailedReply) or not isinstance(reply.error, Forbidden):
            raise TargetFailed(f"a member of another swarm was answered with {reply}")
    await stranger.until_over()


async def mute_peers(run: AttackRun) -> None:
    """40 peers that open the lanes and never answer a hello, and 40 that do not answer when the target opens them."""

    async def open_and_be_mute() -> None:
        await run.member(says_hello=False, make_reply=lambda request, honest: None)

    async def let_open_and_be_mute() -> None:
        await run.peer(key_after(run.target.peer))

    for open_ in (open_and_be_mute, let_open_and_be_mute):
        for _ in range(4):  # at once they would be too many handshakes for a target with few descriptors
            await run.times(10, open_)
    await run.check()


async def broken_lanes(run: AttackRun) -> None:
    """Invalid lanes: named twice, named wrongly, not named, or opened by the wrong side."""
    after = await run.peer(key_after(run.target.peer))
    before = await run.peer()
    for peer in (before, after):
        for first in BROKEN_LANES:
            if peer.mux.is_closed:
                break
            stream = await peer.stream()
            await stream.write(multistream(MULTISTREAM, STORE) + first)
            await stream.close()
            run.nursery.start_soon(until_over, stream)
    member = await run.member()
    third = await member.intruder.stream(STORE)
    await third.write(b"\0\0\0\1\1")
    await until_over(third)


async def unasked_answers(run: AttackRun) -> None:
    """10,000 replies of every kind without a request, and wrong replies to requests."""
    wrong: list[Reply] = [Pong(0, 1 << 63, 1 << 63), HeadsReply((), ()), ContentReply(b"x"), MergeReply(1 << 40, ())]
    wrong += [
        VersionsReply((b"\x92", bytes(2000)), 1 << 63, 0),
        MembersReply(()),
        FailedReply("UCXL-500-INTERNAL", "x" * 1024, {}),
    ]
    turn = 0

    def answer(request: Request, honest: Reply | None) -> Reply:
        nonlocal turn
        turn += 1
        return wrong[turn % len(wrong)]

    member = await run.member()
    for number in range(10_000):
        if not await member.send(message_codec.encode_reply(number % 5_000, wrong[number % len(wrong)])):
            return
    await member.ask(Ping())
    liar = await run.member(make_reply=answer, says_hello=False)
    await liar.ask(liar.hello())
    await trio.sleep(0.3)


async def pipelined_pings(run: AttackRun) -> None:
    """100,000 pings without a wait: each is answered, and no other peer waits."""
    member = await run.member()
    before = member.replies
    chunk = b"".join(map(_framed, (message_codec.encode_request(1 << 40 | number, Ping()) for number in range(1000))))
    with trio.move_on_after(15):
        for _ in range(PIPELINED // 1000):
            await member.send_raw(chunk)
        await run.check()
        await member.until_answered(before + PIPELINED, seconds=15)
        return
    raise TargetFailed(f"only {member.replies - before} of {PIPELINED} pings were answered within 15 s")


async def pipelined_look_ups(run: AttackRun) -> None:
    """20,000 look-ups without a wait: each is answered or refused, or the connection is closed; no other peer waits."""
    member = await run.member()
    chunk = _framed(message_codec.encode_request(1 << 40, GetHeads(KEY, ()))) * 500
    for _ in range(40):
        if not await member.send_raw(chunk):
            break
    await run.check()


def _framed(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


async def unread_answers(run: AttackRun) -> None:
    """Ten members that request a megabyte again and again, and read no reply: from the socket, or from the stream."""
    content = os.urandom(900_000)
    author = await run.member()
    envelope = await author.write(content)

    async def ask(socket_too: bool) -> None:
        member = await run.member()
        request = message_codec.encode_request(1 << 40, GetHeads(envelope.key, ()))
        member.stop_reading(socket_too=socket_too)
        with trio.move_on_after(3):
            for _ in range(400):
                if not await member.send(request):
                    return

    await run.for_each(ask, [(True,), (False,)] * 5)
    await run.check()


async def half_frames(run: AttackRun) -> None:
    """Members that announce frames of 8 MiB on both lanes, send most of them, and wait."""

    async def send_half() -> None:
        member = await run.member()
        for lane in Lane:
            await member.send_raw(struct.pack("!I", FRAME_BYTES_MAX), lane)
            for _ in range(FRAME_BYTES_MAX // 65536 - 1):
                if not await member.send_raw(bytes(65536), lane):
                    return

    with trio.move_on_after(6):
        await run.times(HALF_FRAMES, send_half)
    await run.check()


async def dribbled_frames(run: AttackRun) -> None:
    """Frames byte by byte: a ping in single bytes is still answered."""
    member = await run.member()
    body = message_codec.encode_request(1 << 40, Ping())
    before = member.replies
    for byte in _framed(body):
        await member.send_raw(bytes([byte]), Lane.BULK)  # the member replies to requests on the other lane
        await trio.sleep(0.02)
    await member.until_answered(before + 1)


async def numbers_beyond_any_store(run: AttackRun) -> None:
    """Requests with the greatest numbers that a message can have."""
    member = await run.member()
    for number in ((1 << 31), (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        for request in (GetVersions(KEY, number, number), GetVersions(KEY, number, 0)):
            await member.ask(request)
    await run.check()


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
    numbers_beyond_any_store,
)
