"""At the store itself, from members in good standing: forged, foreign, endless and heavy writes."""

import os

import trio

from attacks.attack_run import Attack, Siege
from attacks.connections import Fell
from attacks.honest_peers import now_ms, written
from node.swarm.base import Lane
from protocols import message_codec, messages
from protocols.clock import version
from protocols.envelope import Envelope, seal
from protocols.errors import BzzzError, ClockAhead, Malformed, Rejected, TooLarge
from protocols.keys import PrivateKey
from protocols.messages import AddProvider, GetByDigest, GetHeads, HeadsReply, Merge, MergeReply
from protocols.ucxl import key_of

_SIGNATURE_BYTES = 64


async def forged_envelopes(siege: Siege) -> None:
    """Signatures that are broken, another's or of something else; each is refused, and nothing of it is kept."""
    member = await siege.member()
    other = PrivateKey.from_seed(os.urandom(32))
    honest = written(member.key, b"honest", path="forged")
    head, signature = honest.encoded[:-_SIGNATURE_BYTES], honest.signature
    another = written(member.key, b"another", path="forged")
    forged = [
        head + bytes(64),
        head + bytes([signature[0] ^ 1]) + signature[1:],
        head + signature[:-1] + bytes([signature[-1] ^ 0x80]),
        head + another.signature,
        head + other.sign(honest.canonical),
        honest.encoded.replace(b"honest", b"forged"),
        _by(written(other, b"of another", path="forged"), member.key),
    ]
    for encoded in forged:
        await _must_be_refused(siege, encoded, Rejected)
    for encoded in (
        b"",
        b"x",
        b"\xc1",
        b"\x9a" * 1000,
        b"\x90" * 1_000_000,
        honest.encoded[:-1],
        honest.encoded + b"x",
    ):
        await _must_be_refused(siege, encoded, Malformed)
    await _must_be_refused(siege, bytes(2_000_000), TooLarge)
    ahead = seal(
        member.key,
        address=honest.address,
        content=b"",
        content_type="text/plain",
        version=version(now_ms() + 70_000, 0),
        parents=(),
    )
    await _must_be_refused(siege, ahead.encoded, ClockAhead)
    heads = await member.ask(GetHeads(honest.key, ()))
    if heads != HeadsReply((), ()):
        raise Fell(f"something that was refused is there: {heads}")


def _by(envelope: Envelope, key: PrivateKey) -> bytes:
    """An envelope that says another is its author, signed by this key."""
    return envelope.encoded[:-_SIGNATURE_BYTES] + key.sign(envelope.canonical)


async def _must_be_refused(siege: Siege, encoded: bytes, kind: type[BzzzError]) -> None:
    member = await siege.member()  # a new one for each: it may lose its place for it
    reply = await member.ask(Merge((encoded,)), Lane.BULK)
    if not isinstance(reply, MergeReply) or [isinstance(refusal.error, kind) for _, refusal in reply.refusals] != [
        True
    ]:
        raise Fell(f"{encoded[:60]!r} ({len(encoded)} bytes) was answered with {reply}, not refused as {kind.__name__}")


async def replayed_envelopes(siege: Siege) -> None:
    """The same envelope 20,000 times, and by others than its author: it is there once."""
    author, other = await siege.member(), await siege.member()
    envelope = await author.write(b"again and again")
    batch = message_codec.encode_request(1 << 40, Merge((envelope.encoded,) * messages.ENVELOPES_MAX))
    for member in (author, other):
        for _ in range(40):
            await member.send(batch, Lane.BULK)
        await member.until_answered(40)
    heads = await other.ask(GetHeads(envelope.key, ()))
    if not isinstance(heads, HeadsReply) or heads.digests != (envelope.digest,):
        raise Fell(f"after replays the heads are {heads}")


async def heavy_answers(siege: Siege) -> None:
    """40 siblings of 256 KiB, and 1,000 requests of a few bytes for all of them: 10 GiB, if they were all answered."""
    member = await siege.member()
    siblings = [written(member.key, os.urandom(256 * 1024), path="heavy") for _ in range(40)]
    for first in range(0, len(siblings), 4):
        await member.ask(Merge(tuple(one.encoded for one in siblings[first : first + 4])), Lane.BULK)
    heads = message_codec.encode_request(1 << 40, GetHeads(siblings[0].key, ()))
    same = message_codec.encode_request(1 << 40, GetByDigest((siblings[0].digest,) * messages.ENVELOPES_MAX))
    asker = await siege.member()
    asker.stop_reading(socket_too=False)
    for _ in range(500):
        if not await asker.send(heads) or not await asker.send(same):
            break
    await trio.sleep(1)
    await siege.look()


async def heavy_writes(siege: Siege) -> None:
    """Four members who write 48 MiB each as fast as the link carries it, in frames of 4 MiB, and wait for no answer."""

    async def write() -> None:
        member = await siege.member()
        envelopes = [written(member.key, os.urandom(1_000_000), path=f"heavy/{number}") for number in range(4)]
        body = message_codec.encode_request(1 << 40, Merge(tuple(envelope.encoded for envelope in envelopes)))
        for _ in range(12):
            if not await member.send(body, Lane.BULK):
                return

    with trio.move_on_after(8):
        await siege.times(4, write)
    await siege.look()


async def endless_forgeries(siege: Siege) -> None:
    """20,000 envelopes whose signatures must be checked to be refused: 50 microseconds each, of everybody's time."""
    member = await siege.member()
    honest = [written(member.key, b"x", path="forgeries") for _ in range(messages.ENVELOPES_MAX)]
    batch = tuple(one.encoded[:-1] + bytes([one.encoded[-1] ^ 1]) for one in honest)
    request = message_codec.encode_request(1 << 40, Merge(batch))
    for _ in range(80):
        if not await member.send(request, Lane.BULK):
            return
    await siege.look()


async def false_providers(siege: Siege) -> None:
    """5,000 keys that one member claims to provide."""
    member = await siege.member()
    for number in range(5_000):
        request = AddProvider(key_of(f"ucxl://a:b@c:d/*^/{number}"), 1 << 63)
        if not await member.send(message_codec.encode_request(1 << 40, request)):
            return
        if number % 500 == 499:
            await member.until_answered(number)


ATTACKS: tuple[Attack, ...] = (
    forged_envelopes,
    replayed_envelopes,
    heavy_answers,
    heavy_writes,
    endless_forgeries,
    false_providers,
)
