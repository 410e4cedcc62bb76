"""Requests and answers over frames: many at once on one stream, matched by number.

Deadlines belong to the waiter: whoever waits no longer leaves, the stream goes on, and an answer that comes late
finds nobody. A peer that misses a deadline is reported, unless it was we who were late (a stopped process, a busy
loop): then nothing was learned about the peer. How long each peer takes is measured here, of late answers too.
"""

import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import Protocol

import trio

from node import trace as tracing
from node.swarm.base import BULK_BYTES_MIN, Lane, Network
from node.swarm.limits import USUAL, SwarmLimits
from node.swarm.peer_policy import PeerPolicy
from protocols import message_codec
from protocols.errors import BzzzError, Internal, Malformed, TooManyRequests, Unavailable
from protocols.messages import AddProvider, FailedReply, Merge, Reply, Request
from protocols.policy.reputation import Offence
from protocols.policy.rtt import RttEstimator
from protocols.traceparent import is_trace

log = logging.getLogger(__name__)

LATE_SECONDS = 0.1
"""A deadline that we notice this much too late says that we were asleep, not that the peer was."""
FAIR_SECONDS = 0.02
"""Whoever had less than this to answer was not too slow: the caller was in a hurry."""
LATE_KEPT_MAX = 64
"""Requests of each peer that nobody waits for any more, and whose answers are still to tell how long it takes."""
_WITH_COMMIT = (Merge, AddProvider)
"""What waits for a disk tells nothing of the way."""


class Unreachable(Unavailable):
    """Nothing was handed to any connection: the peer is not connected, or too much waits for it already."""


class Silent(Unavailable):
    """The request went out, and no answer to it came within the deadline: it may have been carried out."""


class CallAbandoned(Unavailable):
    """We were late ourselves: nothing is known of the peer."""


class DeferredReply:
    """An answer that comes later, and that no task waits for: `keep` it once, `then` say who is told."""

    __slots__ = ("_answer", "_told")

    def __init__(self) -> None:
        self._answer: Reply | BaseException | None = None
        self._told: Callable[[Reply | BaseException], None] | None = None

    def keep(self, answer: Reply | BaseException) -> None:
        self._answer = answer
        if self._told is not None:
            self._told(answer)

    def then(self, told: Callable[[Reply | BaseException], None]) -> None:
        self._told = told
        if self._answer is not None:
            told(self._answer)

    async def wait(self) -> Reply:
        """For who has a task after all. Raises what the answer is, when it is an error."""
        if self._answer is None:
            is_kept = trio.Event()
            self.then(lambda _: is_kept.set())
            await is_kept.wait()
        assert self._answer is not None
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


class RpcService(Protocol):
    """Who answers peers, and hears who comes and goes. Plain functions must be quick and not raise."""

    def connected(self, peer: str, address: str, dialled: bool) -> None: ...

    def disconnected(self, peer: str, reason: str) -> None: ...

    def heard(self, peer: str) -> None:
        """A frame came from this peer."""
        ...

    def missed(self, peer: str, evidence: str) -> None:
        """A deadline passed without an answer from this peer; `evidence` says to what, and how long it had."""
        ...

    def serve(self, peer: str, request: Request, trace: str) -> Reply | DeferredReply | Awaitable[Reply]:
        """Answer a request: at once, later, or by something to wait for. Errors of the tree become a `FailedReply`."""
        ...


OnReply = Callable[[Reply | BzzzError], None]
_Waiting = dict[int, tuple[OnReply, type[Request], float]]
"""Who waits for an answer on one connection, and since when, by number; the object itself stands for the connection."""


class Rpc:
    """The `Receiver` over one network. It asks peers, and has a service answer theirs while it runs."""

    _service: RpcService
    """Set by `run`, before the network starts and so before anything is connected."""

    def __init__(
        self, network: Network, *, peer_policy: PeerPolicy | None = None, limits: SwarmLimits | None = None
    ) -> None:
        """`peer_policy` hears of peers that break the rules."""
        self.network = network
        self.peer_policy = peer_policy or PeerPolicy()
        self.limits = limits or USUAL
        self._number = 0
        self._waiting: dict[str, _Waiting] = {}
        self._late: dict[str, dict[int, tuple[type[Request], float]]] = {}
        """By peer and number: what was asked when, and nobody waits for any more."""
        self.round_trips = RttEstimator()
        """Of the peers that are connected."""
        self._answered_at: dict[str, float] = {}
        self._serving: dict[str, int] = {}
        self._serving_bytes: dict[str, int] = {}
        self._serving_bytes_in_all = 0
        self._nursery: trio.Nursery | None = None

    async def run(self, service: RpcService, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the network and have `service` answer peers until cancelled.

        Raises `ListenFailed` before it has started.
        """
        self._service = service
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self.network.run, self)
                task_status.started()
        finally:
            self._nursery = None

    # -- asking -----------------------------------------------------------------------------------------------

    def ask(self, peer: str, request: Request, on_reply: OnReply, trace: str = "") -> int | None:
        """Send a request; `on_reply` is called once, with the answer or an error. None: nothing was sent.

        The caller keeps the deadline, and calls `give_up` with the number when it has passed. Without a `trace` it goes
        out under that of what is done now.
        """
        waiting = self._waiting.get(peer)
        if waiting is None or len(waiting) >= self.limits.in_flight_max:
            if waiting is not None:
                why = f"has not answered {len(waiting):,} requests of ours: no more go to it until some are answered"
                self.peer_policy.limit_counters.hit("requests_not_sent", peer, why)
            return None
        self._number += 1
        number = self._number
        frame = message_codec.encode_request(number, request, trace or tracing.to_send())
        if not self._send(peer, frame):
            return None
        waiting[number] = on_reply, type(request), trio.current_time()
        return number

    def give_up(self, peer: str, number: int, *, is_missed: bool) -> None:
        """Wait for this answer no longer. `is_missed`: the peer had its time, and is reported."""
        waiter = self._waiting.get(peer, {}).pop(number, None)
        if waiter is None:
            return
        _, request, asked_at = waiter
        late = self._late.setdefault(peer, {})
        late[number] = request, asked_at
        if len(late) > LATE_KEPT_MAX:
            del late[next(iter(late))]
        if is_missed:
            ms = (trio.current_time() - asked_at) * 1000.0
            self._service.missed(peer, f"no answer to a {request.__name__} within {ms:.0f} ms")

    def answered_at(self, peer: str) -> float:
        """When this peer answered anything last, in time or late, on trio's clock; minus infinity: never."""
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
        try:
            with trio.move_on_at(deadline):
                await done.wait()
        finally:
            if not replies:
                is_over = deadline <= trio.current_time() <= deadline + LATE_SECONDS
                had_its_time = timeout >= self.round_trips.timeout(peer, least=FAIR_SECONDS)
                self.give_up(peer, number, is_missed=is_over and had_its_time)
        if not replies:
            if trio.current_time() > deadline + LATE_SECONDS:
                raise CallAbandoned(f"this process was too late itself to hear {peer}", peer=peer)
            raise Silent(f"{peer} did not answer within {timeout * 1000:.0f} ms", peer=peer)
        if isinstance(replies[0], BzzzError):
            raise replies[0]
        if isinstance(replies[0], FailedReply):
            raise replies[0].error
        return replies[0]

    # -- the receiver -----------------------------------------------------------------------------------------

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self._waiting[peer] = {}
        self._late.pop(peer, None)
        self._service.connected(peer, address, dialled)

    def disconnected(self, peer: str, reason: str) -> None:
        self._late.pop(peer, None)
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
                self._took(peer, *late, now)
            return
        on_reply, request, asked_at = waiter
        self._took(peer, request, asked_at, now)
        if message_codec.is_reply_to(reply, request):
            on_reply(reply)
        else:
            why = f"answered a {request.__name__} with a {type(reply).__name__}, which says nothing of it"
            self.peer_policy.limit_counters.count("answers_wrong")
            self.peer_policy.blame(peer, Offence.WRONG_ANSWER, why)
            on_reply(Silent(f"{peer} {why}", peer=peer))

    def _took(self, peer: str, request: type[Request], asked_at: float, now: float) -> None:
        if request not in _WITH_COMMIT:
            self.round_trips.observe(peer, now - asked_at, now)

    def _serve(self, peer: str, number: int, request: Request, trace: str, size: int) -> None:
        """Answer a request; what is done and logged for it belongs to its trace, here as where it comes from."""
        traces = request.traces if isinstance(request, Merge) and request.traces else (trace,)
        known = [one for one in traces if one and is_trace(one)]
        if not known:
            self._answer(peer, number, request, trace, size)
            return
        with tracing.following(known):
            log.debug("serves a %s of %s", type(request).__name__, peer)
            self._answer(peer, number, request, trace, size)

    def _answer(self, peer: str, number: int, request: Request, trace: str, size: int) -> None:
        if why := self._overload(peer, size):
            self.peer_policy.limit_counters.count("requests_refused")
            self._send(peer, message_codec.encode_reply(number, FailedReply.of(TooManyRequests(f"{why}; slow down"))))
            return
        try:
            reply = self._service.serve(peer, request, trace)
        except BzzzError as error:
            reply = FailedReply.of(error)
        if isinstance(reply, tuple):
            self._send(peer, message_codec.encode_reply(number, reply))
            return
        self._serving[peer] = self._serving.get(peer, 0) + 1
        self._serving_bytes[peer] = self._serving_bytes.get(peer, 0) + size
        self._serving_bytes_in_all += size
        connection = self._waiting.get(peer)

        def told(answer: Reply | BaseException) -> None:
            self._served(peer, connection, number, answer, size)

        if isinstance(reply, DeferredReply):
            reply.then(told)
        elif self._nursery is not None:
            self._nursery.start_soon(self._wait_for, reply, told)

    def _overload(self, peer: str, size: int) -> str:
        """Why a further request of this peer, of so many bytes, is too much; '' when it is not.

        One alone is never too large: its frame was not. For what all have under way together nobody is blamed.
        """
        why, limits = "", self.limits
        if (count := self._serving.get(peer, 0)) >= limits.serving_max:
            why = f"{count} requests of this peer are under way"
        elif count and (under_way := self._serving_bytes[peer]) + size > limits.serving_bytes_max:
            why = f"requests of {under_way:,} bytes of this peer are under way"
        elif (in_all := self._serving_bytes_in_all) and in_all + size > limits.serving_bytes_in_all_max:
            why = f"requests of {in_all:,} bytes of all peers are under way"
            self.peer_policy.limit_counters.hit("requests_refused_for_all", "", why)
            return why
        if why:
            self.peer_policy.blame(peer, Offence.FLOOD, why)
        return why

    async def _wait_for(self, reply: Awaitable[Reply], told: Callable[[Reply | BaseException], None]) -> None:
        try:
            answer = await reply
        except Exception as error:
            told(error)
        except BaseException as error:
            told(error)
            raise
        else:
            told(answer)

    def _served(
        self, peer: str, connection: _Waiting | None, number: int, answer: Reply | BaseException, size: int
    ) -> None:
        """Answer on the connection that the request came by, or not at all.

        A peer that started again counts from one again: what its former life asked would answer something else.
        """
        self._serving[peer] -= 1
        self._serving_bytes[peer] -= size
        self._serving_bytes_in_all -= size
        if not self._serving[peer]:
            del self._serving[peer], self._serving_bytes[peer]
        if isinstance(answer, BzzzError):
            answer = FailedReply.of(answer)
        elif isinstance(answer, Exception):
            log.error("a request of %s could not be carried out", peer, exc_info=answer)
            answer = FailedReply.of(Internal("the peer met an error of its own"))
        if self._waiting.get(peer) is connection and not isinstance(answer, BaseException):
            self._send(peer, message_codec.encode_reply(number, answer))

    def _send(self, peer: str, frame: bytes) -> bool:
        lane = Lane.BULK if len(frame) >= BULK_BYTES_MIN else Lane.SMALL
        return self.network.send(peer, lane, frame)
