"""At noise: garbage before, in and after the handshake, and identities that are somebody else's."""

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

from attacks.attack_run import Attack, Siege
from attacks.connections import MULTISTREAM, NOISE, Fell, patient, said
from attacks.intruders import HANDSHAKE_SECONDS, Ear, ear
from attacks.on_tcp import CLOSED_SECONDS
from node.swarm.libp2p.multistream import propose

DRIBBLERS = 40
_OPENING = said(MULTISTREAM, NOISE)
_YAMUX = "/yamux/1.0.0"


def packet(body: bytes, *, length: int | None = None) -> bytes:
    """A noise packet; `length` is what it claims to have."""
    return struct.pack("!H", len(body) if length is None else length) + body


class _Identity(PatternXX):
    """A handshake whose last message says what it likes."""

    def __init__(self, key: LibraryKey, payload: bytes | None = None) -> None:
        super().__init__(ID.from_pubkey(key.get_public_key()), key, new_noise_key_pair().private_key)
        self.payload = payload

    def make_handshake_payload(self, extensions: NoiseExtensions | None = None) -> NoiseHandshakePayload:
        honest = super().make_handshake_payload(extensions)
        return honest if self.payload is None else _Raw(honest.id_pubkey, self.payload)

    def signature(self) -> bytes:
        """By the true key, over this handshake's noise key: what an honest payload holds."""
        return make_handshake_payload_sig(self.libp2p_privkey, self._validate_noise_static_key())


class _Raw(NoiseHandshakePayload):
    def serialize(self) -> bytes:
        return self.id_sig


_Session = tuple[SecureSession, Ear]
"""A session after noise, and the wire under it."""


async def secured(siege: Siege, identity: PatternXX | None = None) -> _Session:
    """The noise handshake, and nothing after it. Raises `Fell` when the target does not do its part."""
    wire = await ear(siege.target.swarm)
    siege.hold(wire.abort)
    raw = RawConnection(wire, True)
    try:
        with trio.fail_after(patient(HANDSHAKE_SECONDS)):
            await propose(raw, TProtocol(NOISE))
            session = await (identity or _Identity(_new_key())).handshake_outbound(raw, None)
    except Exception as error:
        raise Fell(f"the noise handshake was not done: {error!r}") from error
    assert isinstance(session, SecureSession)
    return session, wire


def _new_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_bytes(os.urandom(32))


async def garbage_in_noise(siege: Siege) -> None:
    """Packets in the handshake that are empty, short, long, cut off, or anything but what they should be."""

    async def throw(garbage: bytes, is_after_its_turn: bool) -> None:
        line = await siege.line()
        await line.send(_OPENING + (packet(os.urandom(32)) if is_after_its_turn else b"") + garbage)
        line.finish()
        await line.until_closed(CLOSED_SECONDS)

    garbage = [packet(b"", length=length) for length in (0, 1, 65535)]
    garbage += [packet(os.urandom(size)) for size in (0, 1, 31, 32, 33, 64, 200, 65535)]
    garbage += [packet(bytes(32)), packet(b"\xff" * 32), b"\0"]
    await siege.for_each(throw, product(garbage, (False, True)))


async def garbage_after_noise(siege: Siege) -> None:
    """Packets that nobody sealed, after a handshake as it should be: before the muxer is agreed on, and after."""

    async def throw(garbage: bytes) -> None:
        session, wire = await secured(siege)
        with contextlib.suppress(ConnectionClosedError):
            await wire.write(garbage)
        wire.finish()
        await _until_closed(session)
        intruder = await siege.intruder()
        await intruder.send_sealed(garbage)
        intruder.wire.finish()
        await intruder.until_closed(CLOSED_SECONDS)

    garbage = [packet(os.urandom(size)) for size in (0, 1, 15, 16, 17, 100, 65535)]
    garbage += [os.urandom(100_000), packet(bytes(16)) * 1000]
    await siege.for_each(throw, zip(garbage))


async def empty_packets(siege: Siege) -> None:
    """100,000 packets that are sealed as they should be, and hold nothing."""
    intruder = await siege.intruder()
    for _ in range(100):
        if not await intruder.send_sealed(b"".join(intruder.mux.noise.encrypt(b"") for _ in range(1000))):
            return
        await trio.lowlevel.checkpoint()


async def dribbled_noise(siege: Siege) -> None:
    """Slowloris in the handshake, and behind it: packets of 64 KiB, a byte at a time."""

    async def dribble(is_secured: bool) -> None:
        if is_secured:
            intruder = await siege.intruder()
            send = intruder.send_sealed
        else:
            line = await siege.line()
            await line.send(_OPENING)
            send = line.send
        while await send(b"\xff"):
            await trio.sleep(0.2)

    for number in range(DRIBBLERS):
        siege.nursery.start_soon(dribble, number % 2 == 0)
    await trio.sleep(0.5)
    await siege.look()


async def forged_identities(siege: Siege) -> None:
    """A peer id that is somebody else's: the target's own, another's, or none that a key leads to."""
    other = _new_key()
    theirs = other.get_public_key().serialize()
    target = b"\x08\x01\x12\x20" + ID.from_base58(siege.target.peer).to_bytes()[-32:]
    await _must_be_refused(siege, "no payload", lambda mine: b"")
    await _must_be_refused(siege, "garbage", lambda mine: os.urandom(500))
    await _must_be_refused(siege, "a payload without a signature", lambda mine: _payload(theirs, b""))
    await _must_be_refused(siege, "another's key", lambda mine: _payload(theirs, mine.signature()))
    await _must_be_refused(siege, "another's signature", lambda mine: _payload(theirs, other.sign(b"something else")))
    await _must_be_refused(siege, "a signature of zeros", lambda mine: _payload(theirs, bytes(64)))
    await _must_be_refused(siege, "the target's own key", lambda mine: _payload(target, mine.signature()))
    await _must_be_refused(siege, "a key of no length", lambda mine: _payload(b"\x08\x01\x12\x00", mine.signature()))
    await _must_be_refused(siege, "a key of no kind", lambda mine: _payload(b"\x08\x63" + theirs[2:], mine.signature()))
    weak = b"\x08\x01\x12\x20" + b"\x01" + bytes(31)  # of small order: signatures under it can be made without a key
    await _must_be_refused(siege, "a weak key", lambda mine: _payload(weak, b"\x01" + bytes(63)))


async def other_kinds_of_keys(siege: Siege) -> None:
    """Keys that are no Ed25519 keys: this swarm's peer ids are, and checking an RSA signature may take its time."""
    await _must_be_refused(siege, "an RSA key", None, RSAPrivateKey.new(2048))
    await _must_be_refused(siege, "a secp256k1 key", None, Secp256k1PrivateKey.new())


def _payload(key: bytes, signature: bytes) -> bytes:
    return PayloadMessage(identity_key=key, identity_sig=signature).SerializeToString()


async def _must_be_refused(
    siege: Siege, what: str, payload: Callable[[_Identity], bytes] | None, key: LibraryKey | None = None
) -> None:
    """Do the handshake with this in its last message; the target must hang up and agree to no muxer."""
    identity = _Identity(key or _new_key())
    if payload is not None:
        identity.payload = payload(identity)
    session, _ = await secured(siege, identity)
    with contextlib.suppress(ConnectionClosedError):
        await session.write(said(MULTISTREAM, _YAMUX))
    if answer := await _until_closed(session):
        raise Fell(f"{what} was let in, and answered {answer!r}")


async def _until_closed(session: SecureSession) -> bytes:
    """What came, opened. Raises `Fell` when the target does not hang up in time."""
    found = b""
    with trio.move_on_after(CLOSED_SECONDS):
        with contextlib.suppress(Exception):
            while more := await session.read():
                found += more
        return found
    raise Fell(f"a connection was still open after {CLOSED_SECONDS:g} s")


ATTACKS: tuple[Attack, ...] = (
    garbage_in_noise,
    garbage_after_noise,
    empty_packets,
    dribbled_noise,
    forged_identities,
    other_kinds_of_keys,
)
