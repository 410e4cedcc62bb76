"""Brings envelopes to peers: in order for each key, batched, a bounded window a peer, each once at a time.

Everybody who hands envelopes to peers does it here: the `real` backend, the publisher who pays hints, the reader who
repairs. Who brings one that is under way already joins it. What is handed in between two turns of the loop goes out
in one message. An envelope waits while another one of its key is under way to the same peer; when that one is not
answered, those behind it fail too, so that a peer never gets them out of order by us.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from node import trace as tracing
from node.swarm.rpc import LATE_SECONDS, CallAbandoned, Rpc, Silent, Unreachable
from protocols.envelope import Envelope
from protocols.errors import BzzzError, Unavailable
from protocols.messages import ENVELOPES_MAX, FailedReply, Merge, MergeReply, Reply

BATCHES_MAX = 8
"""Messages under way to one peer."""
SHORT_MAX, SHORT_BATCHES = 16, 4
"""The first few of these are short. The peer then commits some envelopes while it checks the next, and whoever wrote
the first goes on meanwhile: else both nodes, and all callers, would work in turn. A far peer gets long ones as well."""
BATCH_BYTES_MAX = 1 << 20
"""A message takes no further envelope above this size (one alone may be larger)."""
QUEUE_MAX = 1024
"""Envelopes that wait for one peer; above it `deliver` refuses, and the hint stays in the store."""
QUEUE_BYTES_MAX = 32 << 20
"""And their bytes."""
BYTES_PER_SECOND_MIN = 1_000_000
"""What a peer's link is taken to carry at least: large batches get more time."""

Done = Callable[[BzzzError | None], None]
"""Told once: None when the peer has committed it, else its refusal, or `Silent`, `CallAbandoned`, `Unreachable`."""


@dataclass(slots=True, eq=False)
class _Parcel:
    envelope: Envelope
    done: list[Done]
    trace: str


@dataclass(slots=True, eq=False)
class _Batch:
    parcels: list[_Parcel]
    size_bytes: int
    deadline: float
    number: int = 0


@dataclass(slots=True, eq=False)
class _Route:
    """What waits for a peer, and what is under way to it. It is gone when nothing is."""

    queue: deque[_Parcel] = field(default_factory=deque)
    queued_bytes: int = 0
    parcels: dict[bytes, _Parcel] = field(default_factory=dict)
    batches: list[_Batch] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)


class Delivery:
    """`timeout_seconds` is how long a peer may take for a small message, beside the way there and back."""

    def __init__(self, rpc: Rpc, *, timeout_seconds: float = 1.0) -> None:
        self._rpc = rpc
        self._timeout = timeout_seconds
        self._routes: dict[str, _Route] = {}
        self._dirty: dict[str, None] = {}
        self._woken = trio.Event()

    def deliver(self, peer: str, envelope: Envelope, done: Done, trace: str | None = None) -> bool:
        """Bring an envelope to a peer. False: too much waits for it already, `done` will not be called.

        Without a `trace` it goes out under that of what is done now.
        """
        route = self._routes.setdefault(peer, _Route())
        parcel = route.parcels.get(envelope.digest)
        if parcel is not None:
            parcel.done.append(done)
            return True
        if len(route.queue) >= QUEUE_MAX or route.queued_bytes >= QUEUE_BYTES_MAX:
            return False
        parcel = route.parcels[envelope.digest] = _Parcel(
            envelope, [done], tracing.to_send() if trace is None else trace
        )
        route.queue.append(parcel)
        route.queued_bytes += len(envelope.encoded)
        if not len(route.queue) % SHORT_MAX and len(route.batches) < SHORT_BATCHES:
            self._send_now(peer, route)
        self._wake(peer)
        return True

    def room(self, peer: str) -> int:
        """How many more envelopes would be taken for a peer."""
        route = self._routes.get(peer)
        if route is None:
            return QUEUE_MAX
        return QUEUE_MAX - len(route.queue) if route.queued_bytes < QUEUE_BYTES_MAX else 0

    def usual(self, peer: str) -> float:
        """How long a peer usually takes to answer, seconds; 0 when nothing is known of it."""
        return self._rpc.round_trips.median(peer) or 0.0

    async def run(self) -> None:
        """Send what was handed in, and notice what was not answered, until cancelled."""
        while True:
            deadline = min((b.deadline for r in self._routes.values() for b in r.batches), default=float("inf"))
            self._woken = trio.Event()
            if not self._dirty:
                with trio.move_on_at(deadline):
                    await self._woken.wait()
            dirty, self._dirty = self._dirty, {}
            for peer in dirty:
                if route := self._routes.get(peer):
                    self._send(peer, route)
            self._expire(trio.current_time())
            for peer in [peer for peer, route in self._routes.items() if not route.parcels]:
                del self._routes[peer]

    def _wake(self, peer: str) -> None:
        self._dirty[peer] = None
        self._woken.set()

    def _send_now(self, peer: str, route: _Route) -> None:
        """A short message is full: the peer may work on it while those after these have their turn here.

        One that cannot be sent fails in the courier's own turn, for whoever handed it in is not told of it before.
        """
        parcels, size = self._pack(route)
        if parcels and not self._ask(peer, route, parcels, size):
            route.queue.extendleft(reversed(parcels))
            route.queued_bytes += size
            route.keys.difference_update([parcel.envelope.key for parcel in parcels])

    def _send(self, peer: str, route: _Route) -> None:
        while route.queue and len(route.batches) < BATCHES_MAX:
            parcels, size = self._pack(route)
            if not parcels:
                return
            if not self._ask(peer, route, parcels, size):
                why = Unreachable(f"{peer} is not connected, or its window is full", peer=peer)
                self._fail(route, _Batch(parcels, size, 0.0), why)
                return

    def _ask(self, peer: str, route: _Route, parcels: list[_Parcel], size: int) -> bool:
        """Send them in one message. False: that cannot be done now."""
        ahead = sum(batch.size_bytes for batch in route.batches)
        seconds = self._rpc.round_trips.timeout(peer, least=0.0) + (ahead + size) / BYTES_PER_SECOND_MIN
        seconds += self._timeout
        batch = _Batch(parcels, size, trio.current_time() + seconds)
        trace, traces = _traces(parcels)
        request = Merge(tuple(parcel.envelope.encoded for parcel in parcels), traces)

        def on_reply(reply: Reply | BzzzError) -> None:
            self._replied(peer, route, batch, reply)

        number = self._rpc.ask(peer, request, on_reply, trace)
        if number is None:
            return False
        batch.number = number
        route.batches.append(batch)
        return True

    def _pack(self, route: _Route) -> tuple[list[_Parcel], int]:
        """The next batch: in order, none whose key is under way in an earlier one."""
        parcels: list[_Parcel] = []
        held_back: list[_Parcel] = []
        held_keys: set[bytes] = set()
        own_keys: set[bytes] = set()
        size = 0
        most = SHORT_MAX if len(route.batches) < SHORT_BATCHES else ENVELOPES_MAX
        while route.queue and len(parcels) < most:
            parcel = route.queue[0]
            key = parcel.envelope.key
            if key in held_keys or (key in route.keys and key not in own_keys):
                held_keys.add(key)
                held_back.append(route.queue.popleft())
                continue
            if parcels and size + len(parcel.envelope.encoded) > BATCH_BYTES_MAX:
                break
            parcels.append(route.queue.popleft())
            own_keys.add(key)
            route.keys.add(key)
            size += len(parcel.envelope.encoded)
        route.queue.extendleft(reversed(held_back))
        route.queued_bytes -= size
        return parcels, size

    def _replied(self, peer: str, route: _Route, batch: _Batch, reply: Reply | BzzzError) -> None:
        route.batches.remove(batch)
        if isinstance(reply, MergeReply) and reply.total == len(batch.parcels):
            refusals = {at: refusal.error for at, refusal in reply.refusals}
            self._settle(route, batch, lambda at: refusals.get(at))
        elif isinstance(reply, FailedReply):
            self._fail(route, batch, self._failure(peer, reply.error))
        elif isinstance(reply, BzzzError):
            self._fail(route, batch, reply)
        else:
            self._fail(route, batch, Silent(f"{peer} did not answer for what it was sent", peer=peer))
        if route.queue:
            self._wake(peer)
        elif not route.parcels:
            self._routes.pop(peer, None)

    def _failure(self, peer: str, error: BzzzError) -> BzzzError:
        """Why nothing of a batch was taken. What is refused for good is refused one by one: this is for now alone."""
        return error if error.retryable else Unavailable(f"{peer} takes nothing now: {error.message}", peer=peer)

    def _expire(self, now: float) -> None:
        for peer, route in list(self._routes.items()):
            for batch in [b for b in route.batches if b.deadline <= now]:
                if batch not in route.batches:  # failed with an earlier one
                    continue
                is_late = now > batch.deadline + LATE_SECONDS
                route.batches.remove(batch)
                self._rpc.give_up(peer, batch.number, is_missed=not is_late)
                error = (
                    CallAbandoned("this process was too late itself to hear the answer", peer=peer)
                    if is_late
                    else Silent(f"{peer} did not acknowledge in time", peer=peer)
                )
                self._fail(route, batch, error)

    def _fail(self, route: _Route, batch: _Batch, error: BzzzError) -> None:
        """As far as is known nothing of it was taken: what waits behind it fails with it, to keep the order."""
        behind = list(route.queue)
        route.queue.clear()
        route.queued_bytes = 0
        self._settle(route, batch, lambda _: error)
        for parcel in behind:
            del route.parcels[parcel.envelope.digest]
        for parcel in behind:
            for done in parcel.done:
                done(error)

    def _settle(self, route: _Route, batch: _Batch, outcome: Callable[[int], BzzzError | None]) -> None:
        for parcel in batch.parcels:
            del route.parcels[parcel.envelope.digest]
            route.keys.discard(parcel.envelope.key)
        for at, parcel in enumerate(batch.parcels):
            error = outcome(at)
            if parcel.trace:
                with tracing.following(parcel.trace):
                    for done in parcel.done:
                        done(error)
            else:
                for done in parcel.done:
                    done(error)


def _traces(parcels: list[_Parcel]) -> tuple[str, tuple[str, ...]]:
    """The one trace of a batch, or that of each envelope in it."""
    traces = [parcel.trace for parcel in parcels]
    first = traces[0]
    if traces.count(first) == len(traces):
        return first, ()
    return "", tuple(traces)
