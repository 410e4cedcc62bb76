"""The upgrade of a TCP connection: secured by noise, with the peer's id proved, and muxed by yamux.

The handshakes are libp2p's own (multistream-select, noise XX). After them the session's keys and the socket go to
`noise.py` and `yamux.py`, and libp2p's layers are dropped. No other security protocol or muxer is offered or accepted,
in particular not plaintext, which libp2p's `new_host` accepts by default.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as new_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise import patterns
from libp2p.security.noise.messages import NoiseHandshakePayload
from libp2p.security.noise.patterns import PatternXX
from libp2p.security.noise.pb.noise_pb2 import NoiseHandshakePayload as PayloadMessage
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.secure_session import SecureSession

from node.swarm.libp2p import yamux
from node.swarm.libp2p.multistream import NotMultistream, accept, propose
from node.swarm.libp2p.noise import NoiseSession
from node.swarm.libp2p.pnet import PrivateConnection, WrongNetworkKey
from node.swarm.libp2p.tcp import TcpConnection
from node.swarm.limit_counters import LimitCounters
from node.swarm.limits import USUAL, SwarmLimits
from node.swarm.peer_policy import BadInput

YAMUX = TProtocol(yamux.PROTOCOL)
_ED25519 = b"\x08\x01\x12\x20"
"""The start of the protobuf of an Ed25519 public key; exactly 32 bytes of key follow."""


class Ed25519Payload(NoiseHandshakePayload):
    """The identity of the other side, with an Ed25519 key only, as every peer id here is.

    libp2p accepts RSA and secp256k1 keys as well. Such a peer would be connected under an id that nothing else here can
    read, and may choose an RSA exponent with which the check of a signature takes 50 ms. The handshake of libp2p has no
    parameter for it, so this class is put in the place of libp2p's own.
    """

    @classmethod
    def deserialize(cls, protobuf_bytes: bytes) -> NoiseHandshakePayload:
        key = PayloadMessage.FromString(protobuf_bytes).identity_key
        if len(key) != len(_ED25519) + 32 or not key.startswith(_ED25519):
            raise ValueError("the other side's key is not an Ed25519 key")
        return super().deserialize(protobuf_bytes)


patterns.NoiseHandshakePayload = Ed25519Payload  # type: ignore[attr-defined]


class Upgrader:
    """Holds the node's identity, and the key of its network, None for none.

    Both directions raise what libp2p raises, and `WrongNetworkKey`; the caller bounds their time.
    """

    def __init__(
        self,
        seed: bytes,
        *,
        network_key: bytes | None = None,
        limits: SwarmLimits = USUAL,
        limit_counters: LimitCounters | None = None,
    ) -> None:
        self._network_key = network_key
        self.is_private = network_key is not None
        self.connection: type[TcpConnection] = TcpConnection if network_key is None else PrivateConnection
        """What an upgrade takes."""
        private = Ed25519PrivateKey.from_bytes(seed)
        self.key_pair = KeyPair(private, private.get_public_key())
        self.noise_key = new_noise_key_pair().private_key
        self.session_key = self.noise_key.get_public_key().to_bytes()
        self.limits = limits
        self._limit_counters = limit_counters

    async def outbound(self, tcp: TcpConnection) -> yamux.YamuxConnection:
        """Upgrade a connection that this node dialled. `peer_id` of the result is proved; the caller checks it."""
        await self._protect(tcp)
        raw = RawConnection(tcp, True)
        with self._judged(is_inbound=False):
            await propose(raw, NOISE, is_first=True)
        session = await self._handshake().handshake_outbound(raw, None)
        await propose(session, YAMUX)
        return self._mux(tcp, session, is_initiator=True)

    async def inbound(self, tcp: TcpConnection) -> yamux.YamuxConnection:
        """Upgrade a connection that another node dialled."""
        await self._protect(tcp)
        raw = RawConnection(tcp, False)
        with self._judged(is_inbound=True):
            await accept(raw, {NOISE: None}, is_first=True)
        session = await self._handshake().handshake_inbound(raw)
        await accept(session, {YAMUX: None})
        return self._mux(tcp, session, is_initiator=False)

    async def _protect(self, tcp: TcpConnection) -> None:
        if self._network_key is not None:
            assert isinstance(tcp, PrivateConnection)
            await tcp.exchange_nonces(self._network_key)

    @contextmanager
    def _judged(self, *, is_inbound: bool) -> Iterator[None]:
        """What cannot be read at the start of a connection is encrypted with another key, or not at all; the other side
        may find that out first, and hang up.

        A node without a key does not say so of what dials it, which may be anything.
        """
        try:
            yield
        except Exception as error:
            is_unread = isinstance(BadInput.among_causes(error), NotMultistream)
            hung_up = self._network_key is not None and not is_inbound and _is_closed(error)
            if (not is_unread and not hung_up) or (is_inbound and self._network_key is None):
                raise
            if self._network_key is None:
                why = "what answers there is no libp2p node, or has a network key, and this node has none"
            else:
                why = "the node there has another network key than this node, or none"
            raise WrongNetworkKey(why) from None

    def _handshake(self) -> PatternXX:
        return PatternXX(ID.from_pubkey(self.key_pair.public_key), self.key_pair.private_key, self.noise_key)

    def _mux(self, tcp: TcpConnection, session: object, *, is_initiator: bool) -> yamux.YamuxConnection:
        assert isinstance(session, SecureSession)
        mux = yamux.YamuxConnection(
            tcp,
            NoiseSession(session),
            session.get_remote_peer(),
            is_initiator=is_initiator,
            early=session._drain(None),
            limits=self.limits,
            limit_counters=self._limit_counters,
        )
        mux.session_key = session.remote_permanent_pubkey.to_bytes()
        return mux


def _is_closed(error: BaseException | None) -> bool:
    """Whether the end of the connection is the cause of an error."""
    while error is not None and not isinstance(error, ConnectionClosedError):
        error = error.__cause__
    return error is not None


def describe(error: BaseException) -> str:
    """The cause of a connection's failure in words, without libp2p's wrapping exceptions, which often say nothing."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else str(error)
    return str(error) or type(error).__name__
