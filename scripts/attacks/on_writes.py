"""Attacks on the store by members: forged, replayed, heavy and endless writes, and heavy answers."""

import os
import struct

import msgpack
import trio

from attacks.attack_run import Attack, AttackRun
from attacks.connections import TargetFailed
from attacks.honest_peers import make_envelope, now_ms
from node.swarm.base import Lane
from protocols import message_codec, messages
from protocols.clock import version
from protocols.envelope import Envelope, seal
from protocols.errors import BzzzError, ClockAhead, Malformed, Rejected, TooLarge
from protocols.header import DOMAIN
from protocols.keys import PrivateKey
from protocols.messages import GetByDigest, GetHeads, HeadsReply, Merge, MergeReply


async def forged_envelopes(run: AttackRun) -> None:
    """Envelopes with invalid signatures, malformed or ahead of the clock: each is refused, and none is kept."""
    member = await run.member()
    other = PrivateKey.from_seed(os.urandom(32))
    honest = make_envelope(member.key, b"honest", path="forged")
    header, signature, content = honest.header, honest.signature, honest.content
    another = make_envelope(member.key, b"another", path="forged")
    forged = [
        _encoded(header, bytes(64), content),
        _encoded(header, bytes([signature[0] ^ 1]) + signature[1:], content),
        _encoded(header, signature[:-1] + bytes([signature[-1] ^ 0x80]), content),
        _encoded(header, another.signature, content),
        _encoded(header, other.sign(DOMAIN + header), content),
        _encoded(header, member.key.sign(header), content),
        _encoded(header.replace(b"/plain", b"/plane"), signature, content),
        _by(make_envelope(other, b"of another", path="forged"), member.key),
    ]
    for encoded in forged:
        await _must_be_refused(run, encoded, Rejected)
    for encoded in (
        b"",
        b"x",
        b"\xc1",
        b"\x93" * 1000,
        b"\x93" + b"\xc6\xff\xff\xff\xff" * 3,
        b"\x90" * 1_000_000,
        honest.encoded[:-1],
        honest.encoded + b"x",
        honest.notice.encoded,
        _encoded(header, signature, b"forged"),
        _encoded(header, signature, content + b"x"),
        b"\x93\xc6" + struct.pack("!I", len(header)) + header + b"\xc4\x40" + signature + b"\xc4\x06" + content,
    ):
        await _must_be_refused(run, encoded, Malformed)
    await _must_be_refused(run, bytes(2_000_000), TooLarge)
    ahead = seal(
        member.key,
        address=honest.address,
        content=b"",
        content_type="text/plain",
        version=version(now_ms() + 70_000, 0),
        parents=(),
    )
    await _must_be_refused(run, ahead.encoded, ClockAhead)
    heads = await member.ask(GetHeads(honest.key, ()))
    if heads != HeadsReply((), ()):
        raise TargetFailed(f"an envelope that was refused is a head: {heads}")


def _by(envelope: Envelope, key: PrivateKey) -> bytes:
    """An envelope of another author, signed by this key."""
    return _encoded(envelope.header, key.sign(DOMAIN + envelope.header), envelope.content)


def _encoded(header: bytes, signature: bytes, content: bytes) -> bytes:
    return bytes(msgpack.packb([header, signature, content]))


async def _must_be_refused(run: AttackRun, encoded: bytes, kind: type[BzzzError]) -> None:
    member = await run.member()  # a new one for each envelope, because it may be banned for it
    reply = await member.ask(Merge((encoded,)), Lane.BULK)
    refusals = [refusal.error for _, refusal in reply.refusals] if isinstance(reply, MergeReply) else []
    if [isinstance(error, kind) for error in refusals] != [True]:
        raise TargetFailed(
            f"{encoded[:60]!r} ({len(encoded)} bytes) was answered with {reply}, not refused as {kind.__name__}"
        )


async def replayed_envelopes(run: AttackRun) -> None:
    """The same envelope 20,000 times, by its author and by another member: it is stored once."""
    author, other = await run.member(), await run.member()
    envelope = await author.write(b"again and again")
    batch = message_codec.encode_request(1 << 40, Merge((envelope.encoded,) * messages.ENVELOPES_MAX))
    for member in (author, other):
        for _ in range(40):
            await member.send(batch, Lane.BULK)
        await member.until_answered(40)
    heads = await other.ask(GetHeads(envelope.key, ()))
    if not isinstance(heads, HeadsReply) or heads.digests != (envelope.digest,):
        raise TargetFailed(f"after replays the heads are {heads}")


async def heavy_answers(run: AttackRun) -> None:
    """40 siblings of 256 KiB, and 1,000 small requests for all of them: 10 GiB if each were answered."""
    member = await run.member()
    siblings = [make_envelope(member.key, os.urandom(256 * 1024), path="heavy") for _ in range(40)]
    for first in range(0, len(siblings), 4):
        await member.ask(Merge(tuple(sibling.encoded for sibling in siblings[first : first + 4])), Lane.BULK)
    heads = message_codec.encode_request(1 << 40, GetHeads(siblings[0].key, ()))
    same = message_codec.encode_request(1 << 40, GetByDigest((siblings[0].digest,) * messages.ENVELOPES_MAX))
    asker = await run.member()
    asker.stop_reading(socket_too=False)
    for _ in range(500):
        if not await asker.send(heads) or not await asker.send(same):
            break
    await trio.sleep(1)
    await run.check()


async def heavy_writes(run: AttackRun) -> None:
    """Four members that write 48 MiB each as fast as they can, in frames of 4 MiB, and wait for no reply."""

    async def write() -> None:
        member = await run.member()
        envelopes = [make_envelope(member.key, os.urandom(1_000_000), path=f"heavy/{number}") for number in range(4)]
        body = message_codec.encode_request(1 << 40, Merge(tuple(envelope.encoded for envelope in envelopes)))
        for _ in range(12):
            if not await member.send(body, Lane.BULK):
                return

    with trio.move_on_after(8):
        await run.times(4, write)
    await run.check()


async def endless_forgeries(run: AttackRun) -> None:
    """20,000 envelopes with bad signatures, each of which takes 50 microseconds to check."""
    member = await run.member()
    honest = [make_envelope(member.key, b"x", path="forgeries") for _ in range(messages.ENVELOPES_MAX)]
    batch = tuple(
        _encoded(one.header, bytes([one.signature[0] ^ 1]) + one.signature[1:], one.content) for one in honest
    )
    request = message_codec.encode_request(1 << 40, Merge(batch))
    for _ in range(80):
        if not await member.send(request, Lane.BULK):
            return
    await run.check()


ATTACKS: tuple[Attack, ...] = (
    forged_envelopes,
    replayed_envelopes,
    heavy_answers,
    heavy_writes,
    endless_forgeries,
)
