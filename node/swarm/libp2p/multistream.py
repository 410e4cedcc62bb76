"""multistream-select: two ends agree on a protocol, for a connection or a stream.

The negotiation is libp2p's own, the reader is not: the library's reader accepts any length of up to 64 bits, and raises
UnicodeDecodeError, which no caller expects, for text that is not UTF-8.
"""

from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.utils import read_exactly
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator

from node.swarm.peer_policy import BadInput

_HEADER = b"\x13/multistream/1.0.0\n"
MESSAGE_BYTES_MAX = 1024
"""The name of a protocol, or a list of names, with its line end."""
_SECONDS_MAX = 60
"""Seconds that libp2p's own waits may take. Every caller here has a shorter deadline around the whole negotiation."""


class MalformedNegotiation(BadInput, MultiselectCommunicatorError):
    """The other side sent bytes that are no message of this protocol."""


class NotMultistream(MalformedNegotiation):
    """The first bytes of a connection are no message of this protocol at all: both ends may differ below it."""


async def propose(stream: ReadWriteCloser, *protocols: TProtocol, is_first: bool = False) -> TProtocol:
    """Ask the other side for the first of these protocols that it speaks.

    Raises what libp2p raises when it speaks none, and with `is_first` (on a new connection) `NotMultistream`. The
    caller bounds the time.
    """
    return await MultiselectClient().select_one_of(protocols, _Bounded(stream, is_first), _SECONDS_MAX)


async def accept(
    stream: ReadWriteCloser, handlers: dict[TProtocol | None, StreamHandlerFn | None], *, is_first: bool = False
) -> tuple[TProtocol, StreamHandlerFn | None]:
    """Agree to the protocol that the other side chooses among these. Raises as `propose` does."""
    protocol, handler = await Multiselect(handlers).negotiate(_Bounded(stream, is_first), _SECONDS_MAX)
    assert protocol is not None
    return protocol, handler


class _Bounded(MultiselectCommunicator):
    def __init__(self, stream: ReadWriteCloser, is_first: bool) -> None:
        super().__init__(stream)
        self._is_first = is_first

    async def read(self) -> str:
        try:
            if self._is_first:
                return await self._first()
            size = await self._size()
            message = await read_exactly(self.read_writer, size)
            if not message.endswith(b"\n"):
                raise MalformedNegotiation("a message without a line end")
            return message[:-1].decode()
        except UnicodeDecodeError as error:
            raise MalformedNegotiation("a message that is not UTF-8") from error
        except MultiselectCommunicatorError:
            raise
        except BaseLibp2pError as error:
            raise MultiselectCommunicatorError(str(error) or type(error).__name__) from error

    async def _first(self) -> str:
        """The header. It is judged by its first byte: of other bytes there may be fewer, and they would be awaited."""
        self._is_first = False
        if await read_exactly(self.read_writer, 1) != _HEADER[:1]:
            raise NotMultistream("the first bytes are not those of multistream-select")
        if await read_exactly(self.read_writer, len(_HEADER) - 1) != _HEADER[1:]:
            raise NotMultistream("the first bytes are not those of multistream-select")
        return _HEADER[1:-1].decode()

    async def _size(self) -> int:
        low = (await read_exactly(self.read_writer, 1))[0]
        size = low if low < 0x80 else (low & 0x7F) | (await read_exactly(self.read_writer, 1))[0] << 7
        if not 1 <= size <= MESSAGE_BYTES_MAX:
            raise MalformedNegotiation(f"a message of {size} bytes, and {MESSAGE_BYTES_MAX} is the most")
        return size
