"""Length-prefixed messages out of a stream of bytes: the length is a varint, as in libp2p's protocols."""

_LENGTH_BYTES_MAX = 4


class MessageTooLong(Exception):
    """The other side announced a message that is too long; the message says how long."""


class MessageSplitter:
    """Splits bytes into messages, wherever the bytes were cut."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = bytearray()

    @property
    def held_bytes(self) -> int:
        """Bytes kept of an incomplete message."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now. Raises `MessageTooLong`, before anything of such a message is kept."""
        self._held += data
        messages: list[bytes] = []
        start = 0
        while (found := self._length(start)) is not None:
            body, size = found
            if body + size > len(self._held):
                break
            start = body + size
            messages.append(bytes(self._held[body:start]))
        del self._held[:start]
        return messages

    def _length(self, start: int) -> tuple[int, int] | None:
        """Where the body of the message at an offset begins, and its length; None while the length is incomplete."""
        size = 0
        for at, byte in enumerate(self._held[start : start + _LENGTH_BYTES_MAX]):
            size |= (byte & 0x7F) << (7 * at)
            if byte < 0x80:
                if size > self._bytes_max:
                    raise MessageTooLong(f"announced a message of {size:,} bytes, and {self._bytes_max:,} is the most")
                return start + at + 1, size
        if len(self._held) >= start + _LENGTH_BYTES_MAX:
            raise MessageTooLong(f"announced a message whose length has more than {_LENGTH_BYTES_MAX} bytes")
        return None


def prefixed(message: bytes) -> bytes:
    """A message behind its length."""
    length, rest = bytearray(), len(message)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*length, rest]) + message
