"""Requests and replies over frames: many at once on one stream, matched by number.

A deadline belongs to the caller: when it passes, the caller stops waiting, the stream goes on, and a late reply is
dropped. A peer that misses a deadline is reported, unless this process was late itself (stopped, or a busy loop): then
nothing was learned about the peer. Round trips are measured here for each peer, those of late replies included.

A request to a member that is not connected because no connection is kept with it waits until the member is dialled and
greeted (`_OnDemand`); the requests to one member share that dial.
"""

import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import NamedTuple, Protocol

import trio

from node import trace as tracing
from node.swarm.base import BULK_BYTES_MIN, Lane, Network
from node.swarm.deferred_reply import DeferredReply, OnResolved
from node.swarm.limits import USUAL, SwarmLimits
from node.swarm.peer_policy import PeerPolicy
from node.swarm.request_load import Excess, RequestLoad
from protocols import message_codec
from protocols.errors import BzzzError, Internal, Malformed, TooManyRequests, Unavailable
from protocols.messages import FailedReply, Merge, Ping, Reply, Request
from protocols.policy.reputation import Offence
from protocols.policy.rtt import RttEstimator
from protocols.traceparent import is_trace

log = logging.getLogger(__name__)

LATE_SECONDS = 0.1
"""When this process notices a deadline this much too late, it was asleep itself, and the peer may not have been."""
FAIR_SECONDS = 0.02
"""A peer that had less time than this to answer was not too slow: the caller was in a hurry."""
DIALS_MAX = 128
"""Dials under way for requests that wait; further ones wait for their turn. In a network that is parted many may each
take seconds, and a read must not wait behind those of hints."""
DIALLED_MAX = 256
"""Members that requests wait for; a request to a further one is not taken."""
LATE_KEPT_MAX = 64
"""Requests of each peer without a caller any more, whose late replies still give a round trip."""


class Unreachable(Unavailable):
    """Nothing was handed to any connection: the peer is not connected, or could not be in time, or too much waits for
    it already."""


class Silent(Unavailable):
    """The request was sent and no reply came within the deadline: the peer may have carried it out."""


class CallAbandoned(Unavailable):
    """This process was late itself: nothing is known of the peer."""


class RpcService(Protocol):
    """Answers requests, and is called when peers connect and disconnect. Plain functions: quick, and must not raise."""

    def connected(self, peer: str, address: str, dialled: bool) -> None: ...

    def disconnected(self, peer: str, reason: str) -> None: ...

    def heard(self, peer: str) -> None:
        """A frame came from this peer."""
        ...

    def missed(self, peer: str, evidence: str) -> None:
        """A deadline passed without a reply from this peer; `evidence` says to which request, and how long it had."""
        ...

    def is_idle(self, peer: str) -> bool:
        """Whether a peer is not connected, and is to be dialled for a request."""
        ...

    async def connect_idle(self, peer: str) -> str:
        """Dial and greet an idle peer; return '' when it is connected, else why not. Each peer once at a time."""
        ...

    def serve(self, peer: str, request: Request, trace: str) -> Reply | DeferredReply | Awaitable[Reply]:
        """Answer a request: now, later, or by an awaitable. A `BzzzError` becomes a `FailedReply`."""
        ...


OnReply = Callable[[Reply | BzzzError], None]
_Waiting = dict[int, tuple[OnReply, type[Request], float]]
"""Callbacks that wait for a reply on one connection, with the request and its time, by number. The identity of the dict
stands for the connection."""


class _OnDemand(NamedTuple):
    """A request that waits until its peer is connected."""

    request: Request
    on_reply: OnReply
    trace: str


class Rpc:
    """The `Receiver` of one network. Sends requests to peers, and has a service answer theirs while it runs."""

    _service: RpcService
    """Set by `run`, before the network starts and so before any peer connects."""

    def __init__(
        self, network: Network, *, peer_policy: PeerPolicy | None = None, limits: SwarmLimits | None = None
    ) -> None:
        """`peer_policy` records peers that break the rules."""
        self.network = network
        self.peer_policy = peer_policy or PeerPolicy()
        self.limits = limits or USUAL
        self.load = RequestLoad(self.limits)
        self.round_trips = RttEstimator()
        """Of the peers that are connected."""
        self._number = 0
        self._waiting: dict[str, _Waiting] = {}
        self._late: dict[str, dict[int, tuple[type[Request], float]]] = {}
        """Requests without a caller any more, with their times, by peer and number."""
        self._answered_at: dict[str, float] = {}
        self._used_at: dict[str, float] = {}
        """By connected peer: when a request went to it or came from it last. A ping of this node is no use."""
        self._on_demand: dict[str, dict[int, _OnDemand]] = {}
        """By peer that is being connected: the requests that wait for that, by number."""
        self._dials = trio.CapacityLimiter(DIALS_MAX)
        self._nursery: trio.Nursery | None = None

    async def run(self, service: RpcService, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the network and have `service` answer peers until cancelled.

        Raises `ListenFailed` before it has started.
        """
        self._service = service
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await nursery.start(self.network.run, self)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it closes: a request that is answered now must not start a task in it

    # -- requests to peers --------------------------------------------------------------------------------------

    def ask(self, peer: str, request: Request, on_reply: OnReply, trace: str = "") -> int | None:
        """Send a request; `on_reply` is called once, with the reply or an error. None: nothing was sent.

        The caller keeps the deadline, and calls `give_up` with the returned number when it has passed. Without a
        `trace` the request goes out under the current one.
        """
        self._number += 1
        number, trace = self._number, trace or tracing.to_send()
        if peer not in self._waiting and self._nursery is not None and self._service.is_idle(peer):
            return number if self._ask_on_demand(peer, number, _OnDemand(request, on_reply, trace)) else None
        return number if self._ask_now(peer, number, request, on_reply, trace) else None

    def _ask_now(self, peer: str, number: int, request: Request, on_reply: OnReply, trace: str) -> bool:
        waiting = self._waiting.get(peer)
        if waiting is None or len(waiting) >= self.limits.in_flight_max:
            if waiting is not None:
                why = f"has not answered {len(waiting):,} requests of this node: it gets no more until it answers some"
                self.peer_policy.limit_counters.hit("requests_not_sent", peer, why)
            return False
        if not self._send(peer, message_codec.encode_request(number, request, trace)):
            return False
        now = trio.current_time()
        waiting[number] = on_reply, type(request), now
        if type(request) is not Ping:
            self._used_at[peer] = now
        return True

    def give_up(self, peer: str, number: int, *, is_missed: bool) -> bool:
        """Stop waiting for this reply; return whether the request was sent at all.

        `is_missed`: the peer had its time, and is reported to the service if it got the request.
        """
        if self._on_demand.get(peer, {}).pop(number, None) is not None:
            return False
        waiter = self._waiting.get(peer, {}).pop(number, None)
        if waiter is None:
            return True
        _, request, asked_at = waiter
        late = self._late.setdefault(peer, {})
        late[number] = request, asked_at
        if len(late) > LATE_KEPT_MAX:
            del late[next(iter(late))]
        if is_missed:
            ms = (trio.current_time() - asked_at) * 1000.0
            self._service.missed(peer, f"no answer to a {request.__name__} within {ms:.0f} ms")
        return True

    # -- members that are dialled for a request -----------------------------------------------------------------

    def _ask_on_demand(self, peer: str, number: int, waiting: _OnDemand) -> bool:
        """Have a request wait until its peer is connected. False: too much waits already."""
        requests = self._on_demand.get(peer)
        if requests is None:
            if len(self._on_demand) >= DIALLED_MAX:
                return False
            assert self._nursery is not None, "asked while it runs"
            requests = self._on_demand[peer] = {}
            with tracing.following(""):  # the dial is for all that wait for it
                self._nursery.start_soon(self._connect, peer)
        if len(requests) >= self.limits.in_flight_max:
            return False
        requests[number] = waiting
        return True

    async def _connect(self, peer: str) -> None:
        """Connect a peer, and send what waits for it; or else fail that."""
        why = "this node stops"
        try:
            async with self._dials:
                why = await self._service.connect_idle(peer)
        finally:
            requests = self._on_demand.pop(peer)
        for number, (request, on_reply, trace) in requests.items():
            if why or not self._ask_now(peer, number, request, on_reply, trace):
                on_reply(Unreachable(f"{peer} cannot be reached: {why or 'its connection ended at once'}", peer=peer))

    def idle_seconds(self, peer: str) -> float:
        """How long the connection with a peer was not used: no request is under way, and none came or went since."""
        if self._waiting.get(peer) or self.load.requests.get(peer) or peer in self._on_demand:
            return 0.0
        return trio.current_time() - self._used_at.get(peer, -inf)

    def answered_at(self, peer: str) -> float:
        """When the last reply of this peer came, in time or late, on trio's clock; minus infinity: never."""
        return self._answered_at.get(peer, -inf)

    async def call(self, peer: str, request: Request, *, timeout: float, trace: str = "") -> Reply:
        """Ask and wait. Raises `Unreachable`, `Silent`, `CallAbandoned`, or the error that the peer answered with."""
        replies: list[Reply | BzzzError] = []
        done = trio.Event()

        def on_reply(reply: Reply | BzzzError) -> None:
            replies.append(reply)
            done.set()

        deadline = trio.current_time() + timeout
        number = self.ask(peer, request, on_reply, trace)
        if number is None:
            raise Unreachable(f"{peer} is not connected, or too much waits for it already", peer=peer)
        is_sent = True
        try:
            with trio.move_on_at(deadline):
                await done.wait()
        finally:
            if not replies:
                is_over = deadline <= trio.current_time() <= deadline + LATE_SECONDS
                had_its_time = timeout >= self.round_trips.timeout(peer, least=FAIR_SECONDS)
                is_sent = self.give_up(peer, number, is_missed=is_over and had_its_time)
        if not replies and not is_sent:
            raise Unreachable(f"{peer} could not be connected within {timeout * 1000:.0f} ms", peer=peer)
        if not replies:
            if trio.current_time() > deadline + LATE_SECONDS:
                raise CallAbandoned(f"this process was itself too late to receive the answer of {peer}", peer=peer)
            raise Silent(f"{peer} did not answer within {timeout * 1000:.0f} ms", peer=peer)
        if isinstance(replies[0], BzzzError):
            raise replies[0]
        if isinstance(replies[0], FailedReply):
            raise replies[0].error
        return replies[0]

    # -- the receiver -------------------------------------------------------------------------------------------

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self._waiting[peer] = {}
        self._late.pop(peer, None)
        self._used_at[peer] = trio.current_time()
        self._service.connected(peer, address, dialled)

    def disconnected(self, peer: str, reason: str) -> None:
        self._late.pop(peer, None)
        self._used_at.pop(peer, None)
        self.round_trips.forget(peer)
        for on_reply, _, _ in list(self._waiting.pop(peer, {}).values()):
            on_reply(Silent(f"the connection to {peer} ended before it answered: {reason}", peer=peer))
        self._service.disconnected(peer, reason)

    def received(self, peer: str, lane: Lane, frame: bytes) -> None:
        try:
            decoded = message_codec.decode(frame)
        except Malformed as error:
            self.peer_policy.limit_counters.count("messages_malformed")
            self.peer_policy.blame(peer, Offence.BROKEN_RULES, f"malformed message: {error.message}")
            self.network.disconnect(peer, f"malformed message: {error.message}")
            return
        self._service.heard(peer)
        if decoded.is_reply:
            self._answered(peer, decoded.id, decoded.message)  # type: ignore[arg-type]  # decode: what is_reply is a Reply
            return
        self._serve(peer, decoded.id, decoded.message, decoded.trace, len(frame))  # type: ignore[arg-type]  # else a Request

    def _answered(self, peer: str, number: int, reply: Reply) -> None:
        now = self._answered_at[peer] = trio.current_time()
        waiter = self._waiting.get(peer, {}).pop(number, None)
        if waiter is None:
            if late := self._late.get(peer, {}).pop(number, None):
                self._observe(peer, *late, now)
            return
        on_reply, request, asked_at = waiter
        self._observe(peer, request, asked_at, now)
        if message_codec.is_reply_to(reply, request):
            on_reply(reply)
        else:
            why = f"answered a {request.__name__} with a {type(reply).__name__}, which is no answer to it"
            self.peer_policy.limit_counters.count("answers_wrong")
            self.peer_policy.blame(peer, Offence.WRONG_ANSWER, why)
            on_reply(Silent(f"{peer} {why}", peer=peer))

    def _observe(self, peer: str, request: type[Request], asked_at: float, now: float) -> None:
        if request is not Merge:  # which waits for the disk of the peer
            self.round_trips.observe(peer, now - asked_at, now)

    # -- requests of peers --------------------------------------------------------------------------------------

    def _serve(self, peer: str, number: int, request: Request, trace: str, size: int) -> None:
        """Answer a request under its trace, so that its work here has the same trace as at its source."""
        self._used_at[peer] = trio.current_time()
        traces = request.traces if isinstance(request, Merge) and request.traces else (trace,)
        known = [each for each in traces if each and is_trace(each)]
        if not known:
            self._answer(peer, number, request, trace, size)
            return
        with tracing.following(known):
            log.debug("serves a %s of %s", type(request).__name__, peer)
            self._answer(peer, number, request, trace, size)

    def _answer(self, peer: str, number: int, request: Request, trace: str, size: int) -> None:
        if self._nursery is None:  # this node stops
            return
        if excess := self.load.excess(peer, size):
            self._refuse(peer, number, excess)
            return
        try:
            reply = self._service.serve(peer, request, trace)
        except BzzzError as error:
            reply = FailedReply.of(error)
        if isinstance(reply, tuple):
            self._send(peer, message_codec.encode_reply(number, reply))
            return
        self.load.begin(peer, size)
        connection = self._waiting.get(peer)

        def on_resolved(outcome: Reply | BaseException) -> None:
            self._resolved(peer, connection, number, outcome, size)

        if isinstance(reply, DeferredReply):
            reply.on_resolved(on_resolved)
        else:
            self._nursery.start_soon(self._wait_for, reply, on_resolved)

    def _refuse(self, peer: str, number: int, excess: Excess) -> None:
        if excess.is_of_all:
            self.peer_policy.limit_counters.hit("requests_refused_for_all", "", excess.why)
        else:
            self.peer_policy.blame(peer, Offence.FLOOD, excess.why)
        self.peer_policy.limit_counters.count("requests_refused")
        self._send(
            peer, message_codec.encode_reply(number, FailedReply.of(TooManyRequests(f"{excess.why}; slow down")))
        )

    async def _wait_for(self, reply: Awaitable[Reply], on_resolved: OnResolved) -> None:
        try:
            outcome = await reply
        except Exception as error:
            on_resolved(error)
        except BaseException as error:
            on_resolved(error)
            raise
        else:
            on_resolved(outcome)

    def _resolved(
        self, peer: str, connection: _Waiting | None, number: int, outcome: Reply | BaseException, size: int
    ) -> None:
        """Send a late reply, if the connection that the request came by still stands.

        A peer that started again counts from one again: a reply to a request of its former run would be taken for the
        reply to another request.
        """
        self.load.end(peer, size)
        if isinstance(outcome, BzzzError):
            outcome = FailedReply.of(outcome)
        elif isinstance(outcome, Exception):
            log.error("a request of %s could not be carried out", peer, exc_info=outcome)
            outcome = FailedReply.of(Internal("the peer met an error of its own"))
        if self._waiting.get(peer) is connection and not isinstance(outcome, BaseException):
            self._send(peer, message_codec.encode_reply(number, outcome))

    def _send(self, peer: str, frame: bytes) -> bool:
        lane = Lane.BULK if len(frame) >= BULK_BYTES_MIN else Lane.SMALL
        return self.network.send(peer, lane, frame)
