"""Private networks: every byte of a connection is encrypted with the network's key, below noise.

The specification is libp2p's 'Pre-shared Key Based Private Networks in IPFS': each side sends a random nonce of 24
bytes, and then everything through XSalsa20 (Bernstein, "Extending the Salsa20 nonce"). Nothing is authenticated here:
noise does that. With another key, or without one, the first message of multistream-select cannot be read, and both
sides give up at once (`upgrade.py`). The library has a layer of its own, which differs from the specification: its
cipher is Salsa20 with a nonce of 8 bytes.
"""

import os
import socket
import struct

from Crypto.Cipher import Salsa20
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.utils import read_exactly

from node.swarm.libp2p.tcp import TcpConnection

NONCE_BYTES = 24
_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_MASK = 0xFFFFFFFF
_QUARTERS = (
    (0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11),
    (0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14),
)  # fmt: skip
"""The words of each quarter round: of the columns, then of the rows."""


class WrongNetworkKey(Exception):
    """The two sides do not have the same network key."""


def xsalsa20(key: bytes, nonce: bytes) -> "Salsa20.Salsa20Cipher":
    """The stream cipher for a key of 32 and a nonce of 24 bytes."""
    return Salsa20.new(key=_hsalsa20(key, nonce[:16]), nonce=nonce[16:])


def _hsalsa20(key: bytes, nonce: bytes) -> bytes:
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", nonce)
    x = [_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3]]
    for _ in range(10):
        for a, b, c, d in _QUARTERS:
            x[b] ^= _rotated(x[a] + x[d], 7)
            x[c] ^= _rotated(x[b] + x[a], 9)
            x[d] ^= _rotated(x[c] + x[b], 13)
            x[a] ^= _rotated(x[d] + x[c], 18)
    return struct.pack("<8I", *(x[word] for word in (0, 5, 10, 15, 6, 7, 8, 9)))


def _rotated(word: int, by: int) -> int:
    word &= _MASK
    return (word << by | word >> (32 - by)) & _MASK


class PrivateConnection(TcpConnection):
    """A TCP connection whose bytes are encrypted once `exchange_nonces` has ended."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._sending: Salsa20.Salsa20Cipher | None = None
        self._receiving: Salsa20.Salsa20Cipher | None = None
        self._ahead = b""
        """Bytes that are encrypted, and that the kernel had no room for: the caller offers them again."""

    async def exchange_nonces(self, key: bytes) -> None:
        """Agree on the two streams. Raises `WrongNetworkKey` when the other side hangs up before its nonce."""
        own = os.urandom(NONCE_BYTES)
        await self.write(own)
        try:
            other = await read_exactly(self, NONCE_BYTES)
        except ConnectionClosedError:
            raise WrongNetworkKey("what answers there hung up: it has no network key, and this node has one") from None
        self._sending, self._receiving = xsalsa20(key, own), xsalsa20(key, other)

    def receive(self, size: int) -> bytes | None:
        data = super().receive(size)
        return self._receiving.decrypt(data) if data and self._receiving is not None else data

    def transmit(self, data: bytes | memoryview) -> int:
        if self._sending is None:
            return super().transmit(data)
        if len(data) > len(self._ahead):
            self._ahead += self._sending.encrypt(data[len(self._ahead) :])
        taken = super().transmit(self._ahead[: len(data)])
        self._ahead = self._ahead[taken:]
        return taken
