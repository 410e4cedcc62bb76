"""Asks one peer over one stream of the DHT, which is opened when it is needed and closed when it is idle.

Questions are sent in order and answered in order. A deadline belongs to the caller: who gives up leaves its place in
the order, and its late answer is dropped. When the stream ends, the first unanswered question has failed, since it may
be the reason; those behind it are asked again on another stream. A stream that brought answers and then ended may have
been closed by a peer that closes after each answer: nothing has failed then, and all that is unanswered is asked again.
"""

from collections import deque
from collections.abc import Awaitable, Callable

import trio
from libp2p.abc import INetStream
from libp2p.network.stream.net_stream import NetStream

from node.swarm.base import KadFailed
from node.swarm.libp2p.message_splitter import MessageSplitter, MessageTooLong
from node.swarm.libp2p.yamux_stream import YamuxStream
from protocols.errors import Malformed
from protocols.kademlia.message_codec import is_answer_to_add_provider
from protocols.kademlia.messages import MESSAGE_BYTES_MAX

IDLE_SECONDS = 60.0
"""A stream on which nothing was sent and nothing came for so long is closed."""
QUEUED_BYTES_MAX = 4 * 1024 * 1024
"""Bytes that may wait to be written to the peer; with more it gets no further question."""


class Question:
    """Messages to a peer, already with their lengths, and the answer to the last one."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.answer: bytes | None = None
        self.why = ""
        """Why there is no answer."""
        self.is_given_up = False
        self.over = trio.Event()

    def fail(self, why: str) -> None:
        self.why = why
        self.over.set()


class KadClient:
    """`open_stream` opens a stream for the protocol to the peer, and raises when it cannot. `blame` is called with what
    the peer did against the rules."""

    def __init__(
        self, open_stream: Callable[[], Awaitable[INetStream]], blame: Callable[[str], None], *, asked_max: int
    ) -> None:
        self._open_stream = open_stream
        self._blame = blame
        self._asked_max = asked_max
        self._questions: deque[Question] = deque()
        """Those that are not answered, in order."""
        self._stream: YamuxStream | None = None
        self._splitter = MessageSplitter(MESSAGE_BYTES_MAX)
        self._answered = 0
        """On this stream."""
        self._used_at = trio.current_time()
        self._over = trio.Event()
        self._why = ""

    def ask(self, question: Question) -> None:
        """Send a question, now or when the stream is open. Raises `KadFailed` when the peer has too many already."""
        queued = self._stream.queued if self._stream is not None else 0
        if len(self._questions) >= self._asked_max or queued > QUEUED_BYTES_MAX:
            raise KadFailed(f"it has not answered {len(self._questions)} questions yet")
        self._questions.append(question)
        self._used_at = trio.current_time()
        if self._stream is not None and not self._stream.is_done:
            self._stream.offer(question.data)

    async def run(self) -> None:
        """Until the stream is idle, or the peer cannot be asked. All questions are over then."""
        why = "this node stops"
        try:
            while True:
                try:
                    stream = await self._open_stream()
                except Exception as error:
                    why = f"it opened no stream for the DHT: {error}"
                    return
                why = await self._use(stream)
                self._drop_given_up()
                if not self._answered and self._questions:
                    self._questions.popleft().fail(why)
                if not self._questions:
                    return
        finally:
            self._stream = None
            while self._questions:
                self._questions.popleft().fail(why)

    def _drop_given_up(self) -> None:
        self._questions = deque(question for question in self._questions if not question.is_given_up)

    async def _use(self, net_stream: INetStream) -> str:
        """Ask over a stream until it is over, or idle. Returns how it ended."""
        assert isinstance(net_stream, NetStream)
        stream = net_stream.muxed_stream
        assert isinstance(stream, YamuxStream)
        self._stream, self._splitter, self._answered = stream, MessageSplitter(MESSAGE_BYTES_MAX), 0
        self._over, self._why = trio.Event(), ""
        self._drop_given_up()
        try:
            for question in self._questions:
                stream.offer(question.data)
            stream.attach(self._received, self._ended)
            while not self._over.is_set():
                with trio.move_on_at(self._used_at + IDLE_SECONDS):
                    await self._over.wait()
                if not self._over.is_set() and trio.current_time() >= self._used_at + IDLE_SECONDS:
                    self._ended(f"it was silent for {IDLE_SECONDS:.0f} s")
        finally:
            self._stream = None
            with trio.CancelScope(shield=True):
                await net_stream.reset()
        return self._why

    def _received(self, data: bytes) -> None:
        """Called by the connection's reader."""
        if self._over.is_set():
            return
        self._used_at = trio.current_time()
        try:
            for message in self._splitter.feed(data):
                self._take(message)
        except (MessageTooLong, Malformed) as error:
            self._blame(str(error))
            self._ended(str(error))

    def _take(self, message: bytes) -> None:
        if is_answer_to_add_provider(message):
            return
        if not self._questions:
            raise Malformed("an answer to nothing")
        question = self._questions.popleft()
        self._answered += 1
        question.answer = message
        question.over.set()

    def _ended(self, how: str) -> None:
        if not self._over.is_set():
            self._why = f"the stream ended: {how}"
            self._over.set()
