"""multistream-select: two ends agree on a protocol, for a connection or a stream.

libp2p's own negotiation, over a reader of ours: the library's believes any length that it is sent, up to what 64 bits
can say, and lets text that is not UTF-8 escape as an error that nobody expects.
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

MESSAGE_BYTES_MAX = 1024
"""A protocol's name, or a list of what was asked for, with its line end."""
_ENOUGH = 60
"""Seconds that libp2p's own waits may take: longer than the deadline that every caller here has round the whole."""


class Garbage(BadInput, MultiselectCommunicatorError):
    """The other side sent what is no message of this protocol."""


async def propose(stream: ReadWriteCloser, *protocols: TProtocol) -> TProtocol:
    """Ask the other side for a protocol, the first of these that it speaks.

    Raises what libp2p raises when it speaks none; the caller bounds it.
    """
    return await MultiselectClient().select_one_of(protocols, _Bounded(stream), _ENOUGH)


async def accept(
    stream: ReadWriteCloser, handlers: dict[TProtocol | None, StreamHandlerFn | None]
) -> tuple[TProtocol, StreamHandlerFn | None]:
    """Agree to one of these protocols, the other side choosing. Raises as `propose` does."""
    protocol, handler = await Multiselect(handlers).negotiate(_Bounded(stream), _ENOUGH)
    assert protocol is not None
    return protocol, handler


class _Bounded(MultiselectCommunicator):
    async def read(self) -> str:
        try:
            size = await self._size()
            message = await read_exactly(self.read_writer, size)
            if not message.endswith(b"\n"):
                raise Garbage("a message without a line end")
            return message[:-1].decode()
        except UnicodeDecodeError as error:
            raise Garbage("a message that is not UTF-8") from error
        except MultiselectCommunicatorError:
            raise
        except BaseLibp2pError as error:
            raise MultiselectCommunicatorError(str(error) or type(error).__name__) from error

    async def _size(self) -> int:
        low = (await read_exactly(self.read_writer, 1))[0]
        size = low if low < 0x80 else (low & 0x7F) | (await read_exactly(self.read_writer, 1))[0] << 7
        if not 1 <= size <= MESSAGE_BYTES_MAX:
            raise Garbage(f"a message of {size} bytes, and {MESSAGE_BYTES_MAX} is the most")
        return size
