"""Attacks on noise: garbage during and after the handshake, and identities of other peers."""

import contextlib
import os
import struct
from collections.abc import Callable
from itertools import product

import trio
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.crypto.keys import PrivateKey as LibraryKey
from libp2p.crypto.rsa import RSAPrivateKey
from libp2p.crypto.secp256k1 import Secp256k1PrivateKey
from libp2p.crypto.x25519 import create_new_key_pair as new_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.messages import NoiseExtensions, NoiseHandshakePayload, make_handshake_payload_sig
from libp2p.security.noise.patterns import PatternXX
from libp2p.security.noise.pb.noise_pb2 import NoiseHandshakePayload as PayloadMessage
from libp2p.security.secure_session import SecureSession

from attacks.attack_run import Attack, AttackRun
from attacks.connections import MULTISTREAM, NOISE, TargetFailed, multistream, scaled_by_load
from attacks.intruders import HANDSHAKE_SECONDS, PausableTcp, connect_pausable
from attacks.on_tcp import CLOSED_SECONDS
from node.swarm.libp2p.multistream import propose

DRIBBLERS = 40
_OPENING = multistream(MULTISTREAM, NOISE)
_YAMUX = "/yamux/1.0.0"


def packet(body: bytes, *, length: int | None = None) -> bytes:
    """A noise packet; `length` is the length that it announces."""
    return struct.pack("!H", len(body) if length is None else length) + body


class _Identity(PatternXX):
    """A handshake with an arbitrary payload in its last message."""

    def __init__(self, key: LibraryKey, payload: bytes | None = None) -> None:
        super().__init__(ID.from_pubkey(key.get_public_key()), key, new_noise_key_pair().private_key)
        self.payload = payload

    def make_handshake_payload(self, extensions: NoiseExtensions | None = None) -> NoiseHandshakePayload:
        honest = super().make_handshake_payload(extensions)
        return honest if self.payload is None else _Raw(honest.id_pubkey, self.payload)

    def signature(self) -> bytes:
        """The signature of an honest payload: by the true key, over the noise key of this handshake."""
        # Private: libp2p has no other access to the noise key.
        return make_handshake_payload_sig(self.libp2p_privkey, self._validate_noise_static_key())


class _Raw(NoiseHandshakePayload):
    def serialize(self) -> bytes:
        return self.id_sig


_Session = tuple[SecureSession, PausableTcp]
"""A session after noise, and its TCP connection."""


async def secured(run: AttackRun, identity: PatternXX | None = None) -> _Session:
    """Do the noise handshake, and nothing after it. Raises `TargetFailed` when the target does not do its part."""
    tcp = await connect_pausable(run.target.swarm)
    run.hold(tcp.abort)
    raw = RawConnection(tcp, True)
    try:
        with trio.fail_after(scaled_by_load(HANDSHAKE_SECONDS)):
            await propose(raw, TProtocol(NOISE))
            session = await (identity or _Identity(_new_key())).handshake_outbound(raw, None)
    except Exception as error:
        raise TargetFailed(f"the noise handshake was not done: {error!r}") from error
    assert isinstance(session, SecureSession)
    return session, tcp


def _new_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_bytes(os.urandom(32))


async def garbage_in_noise(run: AttackRun) -> None:
    """Packets in the handshake that are empty, short, long, cut off, or random."""

    async def throw(garbage: bytes, is_after_its_turn: bool) -> None:
        connection = await run.connection()
        await connection.send(_OPENING + (packet(os.urandom(32)) if is_after_its_turn else b"") + garbage)
        connection.finish()
        await connection.until_closed(CLOSED_SECONDS)

    garbage = [packet(b"", length=length) for length in (0, 1, 65535)]
    garbage += [packet(os.urandom(size)) for size in (0, 1, 31, 32, 33, 64, 200, 65535)]
    garbage += [packet(bytes(32)), packet(b"\xff" * 32), b"\0"]
    await run.for_each(throw, product(garbage, (False, True)))


async def garbage_after_noise(run: AttackRun) -> None:
    """Packets that are not encrypted, after a correct handshake: before the muxer is agreed on, and after."""

    async def throw(garbage: bytes) -> None:
        session, tcp = await secured(run)
        with contextlib.suppress(ConnectionClosedError):
            await tcp.write(garbage)
        tcp.finish()
        await _until_closed(session)
        intruder = await run.intruder()
        await intruder.send_packets(garbage)
        intruder.tcp.finish()
        await intruder.until_closed(CLOSED_SECONDS)

    garbage = [packet(os.urandom(size)) for size in (0, 1, 15, 16, 17, 100, 65535)]
    garbage += [os.urandom(100_000), packet(bytes(16)) * 1000]
    await run.for_each(throw, zip(garbage))


async def empty_packets(run: AttackRun) -> None:
    """100,000 correctly encrypted packets without content."""
    intruder = await run.intruder()
    for _ in range(100):
        if not await intruder.send_packets(b"".join(intruder.mux.noise.encrypt(b"") for _ in range(1000))):
            return
        await trio.lowlevel.checkpoint()


async def dribbled_noise(run: AttackRun) -> None:
    """Slowloris during and after the handshake: packets of 64 KiB, byte by byte."""

    async def dribble(is_secured: bool) -> None:
        if is_secured:
            intruder = await run.intruder()
            send = intruder.send_packets
        else:
            connection = await run.connection()
            await connection.send(_OPENING)
            send = connection.send
        while await send(b"\xff"):
            await trio.sleep(0.2)

    for number in range(DRIBBLERS):
        run.nursery.start_soon(dribble, number % 2 == 0)
    await trio.sleep(0.5)
    await run.check()


async def forged_identities(run: AttackRun) -> None:
    """Peer ids of others: the target's own, another peer's, or one without a valid key."""
    other = _new_key()
    theirs = other.get_public_key().serialize()
    target = b"\x08\x01\x12\x20" + ID.from_base58(run.target.peer).to_bytes()[-32:]
    await _must_be_refused(run, "no payload", lambda mine: b"")
    await _must_be_refused(run, "garbage", lambda mine: os.urandom(500))
    await _must_be_refused(run, "a payload without a signature", lambda mine: _payload(theirs, b""))
    await _must_be_refused(run, "another's key", lambda mine: _payload(theirs, mine.signature()))
    await _must_be_refused(run, "another's signature", lambda mine: _payload(theirs, other.sign(b"something else")))
    await _must_be_refused(run, "a signature of zeros", lambda mine: _payload(theirs, bytes(64)))
    await _must_be_refused(run, "the target's own key", lambda mine: _payload(target, mine.signature()))
    await _must_be_refused(run, "a key of no length", lambda mine: _payload(b"\x08\x01\x12\x00", mine.signature()))
    await _must_be_refused(run, "a key of no kind", lambda mine: _payload(b"\x08\x63" + theirs[2:], mine.signature()))
    weak = b"\x08\x01\x12\x20" + b"\x01" + bytes(31)  # of small order: signatures under it can be made without a key
    await _must_be_refused(run, "a weak key", lambda mine: _payload(weak, b"\x01" + bytes(63)))


async def other_kinds_of_keys(run: AttackRun) -> None:
    """RSA and secp256k1 keys are refused: all peer ids are Ed25519, and an RSA signature can be slow to check."""
    await _must_be_refused(run, "an RSA key", None, RSAPrivateKey.new(2048))
    await _must_be_refused(run, "a secp256k1 key", None, Secp256k1PrivateKey.new())


def _payload(key: bytes, signature: bytes) -> bytes:
    return PayloadMessage(identity_key=key, identity_sig=signature).SerializeToString()


async def _must_be_refused(
    run: AttackRun, what: str, payload: Callable[[_Identity], bytes] | None, key: LibraryKey | None = None
) -> None:
    """Do the handshake with this payload in its last message; the target must hang up and agree to no muxer."""
    identity = _Identity(key or _new_key())
    if payload is not None:
        identity.payload = payload(identity)
    session, _ = await secured(run, identity)
    with contextlib.suppress(ConnectionClosedError):
        await session.write(multistream(MULTISTREAM, _YAMUX))
    if answer := await _until_closed(session):
        raise TargetFailed(f"{what} was accepted, and answered {answer!r}")


async def _until_closed(session: SecureSession) -> bytes:
    """The decrypted bytes until the target hangs up. Raises `TargetFailed` when it does not in time."""
    found = b""
    with trio.move_on_after(CLOSED_SECONDS):
        with contextlib.suppress(Exception):
            while more := await session.read():
                found += more
        return found
    raise TargetFailed(f"a connection was still open after {CLOSED_SECONDS:g} s")


ATTACKS: tuple[Attack, ...] = (
    garbage_in_noise,
    garbage_after_noise,
    empty_packets,
    dribbled_noise,
    forged_identities,
    other_kinds_of_keys,
)
