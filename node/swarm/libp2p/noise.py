"""Noise after the handshake: bytes into encrypted packets, and received packets into bytes.

A packet is two bytes of length, big endian, and at most 65,535 bytes of ciphertext, of which 16 are the tag
(https://noiseprotocol.org, section 5.1). libp2p's own reader reads a packet's length, then its body, then returns as
many bytes as were asked for, each step with a wait of its own. Here all packets of one read are decrypted at once.
"""

import struct
from typing import Any

from cryptography.exceptions import InvalidTag
from libp2p.security.secure_session import SecureSession

PLAIN_BYTES_MAX = 65535 - 16
"""Bytes in one packet; more become several packets."""

_NONCE = struct.Struct("<4xQ")


class DecryptFailed(Exception):
    """The peer did not encrypt this packet; the connection is useless from here on."""


class NoiseSession:
    """Both directions of one session, with the two keys and the counters of the handshake."""

    def __init__(self, session: SecureSession) -> None:
        protocol: Any = session.conn.noise_state.noise_protocol  # type: ignore[attr-defined]
        sending, receiving = protocol.cipher_state_encrypt, protocol.cipher_state_decrypt
        self._encrypt, self._encrypted = sending.cipher.cipher.encrypt, int(sending.n)
        self._decrypt, self._decrypted = receiving.cipher.cipher.decrypt, int(receiving.n)
        self._rest = b""

    def encrypt(self, plain: bytes) -> bytes:
        """One packet for each 64 KiB."""
        if len(plain) <= PLAIN_BYTES_MAX:
            return self._packet(plain)
        cuts = range(0, len(plain), PLAIN_BYTES_MAX)
        return b"".join(self._packet(plain[start : start + PLAIN_BYTES_MAX]) for start in cuts)

    def decrypt(self, data: bytes) -> bytes:
        """The content of the packets that these bytes complete; the start of a further packet is kept.

        Raises `DecryptFailed`.
        """
        if self._rest:
            data = self._rest + data
        start, end = 0, len(data)
        plains: list[bytes] = []
        try:
            while end - start >= 2:
                stop = start + 2 + (data[start] << 8 | data[start + 1])
                if stop > end:
                    break
                plains.append(self._decrypt(_NONCE.pack(self._decrypted), data[start + 2 : stop], None))
                self._decrypted += 1
                start = stop
        except InvalidTag as error:
            raise DecryptFailed("a packet cannot be decrypted with the session's key") from error
        self._rest = data[start:]
        return plains[0] if len(plains) == 1 else b"".join(plains)

    def _packet(self, plain: bytes) -> bytes:
        packet: bytes = self._encrypt(_NONCE.pack(self._encrypted), plain, None)
        self._encrypted += 1
        return len(packet).to_bytes(2, "big") + packet
