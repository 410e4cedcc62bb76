"""Delivery of envelopes to peers: batched, in order for each key, with a bounded window for each peer.

All that hands envelopes to peers does it here: the `real` backend, hinted handoff and read repair. Concurrent
deliveries of one envelope to one peer are coalesced. Envelopes that are handed in between two turns of the loop go out
in one message. An envelope waits while another one of its key is in flight to the same peer; when that one is not
acknowledged, those behind it fail too, so that a peer never gets versions of a key out of order from this node.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from node import trace as tracing
from node.swarm.rpc import LATE_SECONDS, CallAbandoned, Rpc, Silent, Unreachable
from protocols.envelope import Envelope
from protocols.errors import BzzzError, Malformed, Unavailable
from protocols.messages import ENVELOPES_MAX, FailedReply, Merge, MergeReply, Reply

BATCHES_MAX = 8
"""Messages in flight to one peer."""
SHORT_MAX, SHORT_BATCHES = 16, 4
"""Envelopes in a short message, and how many of the messages in flight are short. The peer commits the first envelopes
while it checks the next ones, and their writers go on meanwhile; otherwise both nodes, and all callers, would work in
turn. A distant peer, with more messages in flight, gets long ones as well."""
BATCH_BYTES_MAX = 1 << 20
"""A message takes no further envelope above this size (a single envelope may be larger)."""
QUEUE_MAX = 1024
"""Envelopes that wait for one peer; above it `deliver` refuses, and the hint stays in the store."""
QUEUE_BYTES_MAX = 32 << 20
"""The bytes of these envelopes; above it `deliver` refuses too."""
BYTES_PER_SECOND_MIN = 1_000_000
"""The bandwidth that the link to a peer is assumed to have at least: large batches get more time."""

OnDone = Callable[[BzzzError | None], None]
"""Called once: with None when the peer has committed the envelope, else with its refusal, or with `Silent`,
`CallAbandoned` or `Unreachable`."""


def is_final(error: BzzzError) -> bool:
    """Whether the peer refused an envelope for good. `Malformed` is no refusal: the peer's answer was not readable."""
    return not error.retryable and type(error) is not Malformed


@dataclass(slots=True, eq=False)
class _Outgoing:
    """An envelope that waits for a peer or is in flight to it."""

    envelope: Envelope
    size_bytes: int
    callbacks: list[OnDone]
    trace: str


@dataclass(slots=True, eq=False)
class _Batch:
    """A message in flight."""

    envelopes: list[_Outgoing]
    size_bytes: int
    deadline: float
    number: int = 0
    """Of the request."""


@dataclass(slots=True, eq=False)
class _PeerQueue:
    """What waits for a peer, and what is in flight to it. Removed when it is empty."""

    waiting: deque[_Outgoing] = field(default_factory=deque)
    waiting_bytes: int = 0
    by_digest: dict[bytes, _Outgoing] = field(default_factory=dict)
    """All that wait or are in flight."""
    batches: list[_Batch] = field(default_factory=list)
    keys_in_flight: set[bytes] = field(default_factory=set)


class Delivery:
    """`timeout_seconds` is how long a peer may take for a small message, beside the network's round trip.

    `last_sequence` is that of this node's log; `on_sequence` is called with that of a peer's log after its commit.
    """

    def __init__(
        self,
        rpc: Rpc,
        *,
        timeout_seconds: float = 1.0,
        last_sequence: Callable[[], int] = lambda: 0,
        on_sequence: Callable[[str, int], None] = lambda _, __: None,
    ) -> None:
        self._rpc = rpc
        self._last_sequence = last_sequence
        self._on_sequence = on_sequence
        self._timeout = timeout_seconds
        self._queues: dict[str, _PeerQueue] = {}
        self._to_send: dict[str, None] = {}
        """Peers whose queue changed since `run` last sent."""
        self._woken = trio.Event()

    def deliver(self, peer: str, envelope: Envelope, on_done: OnDone, trace: str | None = None) -> bool:
        """Deliver an envelope to a peer. False: too much waits for the peer already, `on_done` will not be called.

        Without a `trace` the envelope goes out under the current one.
        """
        queue = self._queues.setdefault(peer, _PeerQueue())
        outgoing = queue.by_digest.get(envelope.digest)
        if outgoing is not None:
            outgoing.callbacks.append(on_done)
            return True
        if len(queue.waiting) >= QUEUE_MAX or queue.waiting_bytes >= QUEUE_BYTES_MAX:
            return False
        size = envelope.encoded_size
        outgoing = queue.by_digest[envelope.digest] = _Outgoing(
            envelope, size, [on_done], tracing.to_send() if trace is None else trace
        )
        queue.waiting.append(outgoing)
        queue.waiting_bytes += size
        if not len(queue.waiting) % SHORT_MAX and len(queue.batches) < SHORT_BATCHES:
            self._send_now(peer, queue)
        self._wake(peer)
        return True

    def room(self, peer: str) -> int:
        """How many more envelopes `deliver` would take for a peer."""
        queue = self._queues.get(peer)
        if queue is None:
            return QUEUE_MAX
        return QUEUE_MAX - len(queue.waiting) if queue.waiting_bytes < QUEUE_BYTES_MAX else 0

    def round_trip_seconds(self, peer: str) -> float:
        """The median round trip of a peer; 0 before its first answer."""
        return self._rpc.round_trips.median(peer) or 0.0

    async def run(self) -> None:
        """Send what was handed in, and fail what is not acknowledged in time, until cancelled."""
        while True:
            deadline = min((b.deadline for q in self._queues.values() for b in q.batches), default=float("inf"))
            self._woken = trio.Event()
            if not self._to_send:
                with trio.move_on_at(deadline):
                    await self._woken.wait()
            to_send, self._to_send = self._to_send, {}
            for peer in to_send:
                if queue := self._queues.get(peer):
                    self._send(peer, queue)
            self._expire(trio.current_time())
            for peer in [peer for peer, queue in self._queues.items() if not queue.by_digest]:
                del self._queues[peer]

    def _wake(self, peer: str) -> None:
        self._to_send[peer] = None
        self._woken.set()

    def _send_now(self, peer: str, queue: _PeerQueue) -> None:
        """A short message is full: send it, so that the peer works on it while this node fills the next one.

        A message that cannot be sent is put back and fails in a turn of `run`: `on_done` must not be called before
        `deliver` has returned.
        """
        envelopes, size = self._pack(queue)
        if envelopes and not self._ask(peer, queue, envelopes, size):
            queue.waiting.extendleft(reversed(envelopes))
            queue.waiting_bytes += size
            queue.keys_in_flight.difference_update([outgoing.envelope.key for outgoing in envelopes])

    def _send(self, peer: str, queue: _PeerQueue) -> None:
        while queue.waiting and len(queue.batches) < BATCHES_MAX:
            envelopes, size = self._pack(queue)
            if not envelopes:
                return
            if not self._ask(peer, queue, envelopes, size):
                why = Unreachable(f"{peer} is not connected, or its window is full", peer=peer)
                self._fail(queue, _Batch(envelopes, size, 0.0), why)
                return

    def _ask(self, peer: str, queue: _PeerQueue, envelopes: list[_Outgoing], size: int) -> bool:
        """Send the envelopes in one message. False: nothing can be sent to the peer now."""
        ahead = sum(batch.size_bytes for batch in queue.batches)
        seconds = self._rpc.round_trips.timeout(peer, least=0.0) + (ahead + size) / BYTES_PER_SECOND_MIN
        seconds += self._timeout
        batch = _Batch(envelopes, size, trio.current_time() + seconds)
        trace, traces = _traces(envelopes)
        request = Merge(tuple(outgoing.envelope.encoded for outgoing in envelopes), traces, self._last_sequence())

        def on_reply(reply: Reply | BzzzError) -> None:
            self._replied(peer, queue, batch, reply)

        number = self._rpc.ask(peer, request, on_reply, trace)
        if number is None:
            return False
        batch.number = number
        queue.batches.append(batch)
        return True

    def _pack(self, queue: _PeerQueue) -> tuple[list[_Outgoing], int]:
        """Take the next batch from the queue, in order, without keys that are in flight in an earlier batch."""
        envelopes: list[_Outgoing] = []
        held_back: list[_Outgoing] = []
        held_keys: set[bytes] = set()
        own_keys: set[bytes] = set()
        size = 0
        most = SHORT_MAX if len(queue.batches) < SHORT_BATCHES else ENVELOPES_MAX
        while queue.waiting and len(envelopes) < most:
            outgoing = queue.waiting[0]
            key = outgoing.envelope.key
            if key in held_keys or (key in queue.keys_in_flight and key not in own_keys):
                held_keys.add(key)
                held_back.append(queue.waiting.popleft())
                continue
            if envelopes and size + outgoing.size_bytes > BATCH_BYTES_MAX:
                break
            envelopes.append(queue.waiting.popleft())
            own_keys.add(key)
            queue.keys_in_flight.add(key)
            size += outgoing.size_bytes
        queue.waiting.extendleft(reversed(held_back))
        queue.waiting_bytes -= size
        return envelopes, size

    def _replied(self, peer: str, queue: _PeerQueue, batch: _Batch, reply: Reply | BzzzError) -> None:
        queue.batches.remove(batch)
        if isinstance(reply, MergeReply) and reply.total == len(batch.envelopes):
            self._on_sequence(peer, reply.sequence)
            refusals = {at: refusal.error for at, refusal in reply.refusals}
            self._settle(queue, batch, lambda at: refusals.get(at))
        elif isinstance(reply, FailedReply):
            self._fail(queue, batch, self._failure(peer, reply.error))
        elif isinstance(reply, BzzzError):
            self._fail(queue, batch, reply)
        else:
            self._fail(queue, batch, Silent(f"{peer} did not answer for what it was sent", peer=peer))
        if queue.waiting:
            self._wake(peer)
        elif not queue.by_digest:
            self._queues.pop(peer, None)

    def _failure(self, peer: str, error: BzzzError) -> BzzzError:
        """Why a peer took nothing of a batch.

        It is always retryable: what a peer refuses for good it refuses envelope by envelope, never as a batch.
        """
        return error if error.retryable else Unavailable(f"{peer} takes nothing now: {error.message}", peer=peer)

    def _expire(self, now: float) -> None:
        for peer, queue in list(self._queues.items()):
            for batch in [b for b in queue.batches if b.deadline <= now]:
                if batch not in queue.batches:  # failed with an earlier one
                    continue
                is_late = now > batch.deadline + LATE_SECONDS
                queue.batches.remove(batch)
                is_sent = self._rpc.give_up(peer, batch.number, is_missed=not is_late)
                error: BzzzError = Silent(f"{peer} did not acknowledge in time", peer=peer)
                if not is_sent:
                    error = Unreachable(f"{peer} could not be connected in time", peer=peer)
                elif is_late:
                    error = CallAbandoned("this process was itself too late to receive the answer", peer=peer)
                self._fail(queue, batch, error)

    def _fail(self, queue: _PeerQueue, batch: _Batch, error: BzzzError) -> None:
        """The peer took nothing of a batch, as far as is known. All that waits fails with it, to keep the order."""
        behind = list(queue.waiting)
        queue.waiting.clear()
        queue.waiting_bytes = 0
        self._settle(queue, batch, lambda _: error)
        for outgoing in behind:
            del queue.by_digest[outgoing.envelope.digest]
        for outgoing in behind:
            for on_done in outgoing.callbacks:
                on_done(error)

    def _settle(self, queue: _PeerQueue, batch: _Batch, outcome: Callable[[int], BzzzError | None]) -> None:
        """Call back for each envelope of a batch; `outcome` gives the result by the envelope's index."""
        for outgoing in batch.envelopes:
            del queue.by_digest[outgoing.envelope.digest]
            queue.keys_in_flight.discard(outgoing.envelope.key)
        for at, outgoing in enumerate(batch.envelopes):
            error = outcome(at)
            if outgoing.trace:
                with tracing.following(outgoing.trace):
                    for on_done in outgoing.callbacks:
                        on_done(error)
            else:
                for on_done in outgoing.callbacks:
                    on_done(error)


def _traces(envelopes: list[_Outgoing]) -> tuple[str, tuple[str, ...]]:
    """The one trace of a batch, or the trace of each envelope in it."""
    traces = [outgoing.trace for outgoing in envelopes]
    first = traces[0]
    if traces.count(first) == len(traces):
        return first, ()
    return "", tuple(traces)
