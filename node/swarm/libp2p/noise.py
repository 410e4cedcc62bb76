"""Noise messages after the handshake: bytes into sealed packets, and packets that came back into bytes.

libp2p's own reader takes a packet's length, then its body, then hands out as many bytes as were asked for, each step a
wait of its own. Here everything that came is opened at once (https://noiseprotocol.org, section 5.1; a packet is two
bytes of length, big endian, and at most 65,535 bytes of ciphertext, of which 16 are the tag).
"""

import struct
from typing import Any

from cryptography.exceptions import InvalidTag
from libp2p.security.secure_session import SecureSession

PLAIN_BYTES_MAX = 65535 - 16
"""More than this becomes several packets."""

_NONCE = struct.Struct("<4xQ")


class Forged(Exception):
    """A packet was not sealed by the peer; the connection is worthless from here on."""


class NoiseCipher:
    """Both directions of one session. The two keys and the counters are taken over from the handshake."""

    def __init__(self, session: SecureSession) -> None:
        protocol: Any = session.conn.noise_state.noise_protocol  # type: ignore[attr-defined]
        sending, receiving = protocol.cipher_state_encrypt, protocol.cipher_state_decrypt
        self._encrypt, self._sent = sending.cipher.cipher.encrypt, int(sending.n)
        self._decrypt, self._opened = receiving.cipher.cipher.decrypt, int(receiving.n)
        self._rest = b""

    def seal(self, plain: bytes) -> bytes:
        """One packet for every 64 KiB."""
        if len(plain) <= PLAIN_BYTES_MAX:
            return self._packet(plain)
        cuts = range(0, len(plain), PLAIN_BYTES_MAX)
        return b"".join(self._packet(plain[start : start + PLAIN_BYTES_MAX]) for start in cuts)

    def open(self, data: bytes) -> bytes:
        """What the packets completed by these bytes held; the beginning of a further one is kept. Raises `Forged`."""
        if self._rest:
            data = self._rest + data
        start, end = 0, len(data)
        plains: list[bytes] = []
        try:
            while end - start >= 2:
                stop = start + 2 + (data[start] << 8 | data[start + 1])
                if stop > end:
                    break
                plains.append(self._decrypt(_NONCE.pack(self._opened), data[start + 2 : stop], None))
                self._opened += 1
                start = stop
        except InvalidTag as error:
            raise Forged("a packet does not open with the session's key") from error
        self._rest = data[start:]
        return plains[0] if len(plains) == 1 else b"".join(plains)

    def _packet(self, plain: bytes) -> bytes:
        sealed: bytes = self._encrypt(_NONCE.pack(self._sent), plain, None)
        self._sent += 1
        return len(sealed).to_bytes(2, "big") + sealed
