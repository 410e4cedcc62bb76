"""Circuit breaker to the swarm: runs `protocols/policy/breaker.py`, and sends the pings of its probes.

When a caller's deadline is short, its operation may end before a far swarm can have answered it. Nothing is known then;
the operation is judged later, when the peers that were asked have had their time. The caller does not wait for that.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from node.driver import Driver
from node.swarm.members import Members
from node.swarm.rpc import FAIR_SECONDS, LATE_SECONDS, CallAbandoned, Rpc
from protocols.errors import BzzzError
from protocols.messages import Ping
from protocols.policy import breaker
from protocols.policy.breaker import Breaker, BreakerState

log = logging.getLogger(__name__)

PROBE_PEERS_MAX = 8
"""Connected peers that one probe pings, side by side; one answer is enough."""
PROBE_SECONDS = 0.5
"""How long a peer may take to answer a probe; longer when its round trips are long."""
JUDGED_LATER_MAX = 64
"""Operations that wait to be judged later; further ones are not judged, for they would be no new evidence."""
_VERBS = {BreakerState.OPEN: "opened", BreakerState.CLOSED: "closed", BreakerState.HALF_OPEN: "half-opened"}


class Transition(NamedTuple):
    """One change of the breaker's state, for the log, the health report and the metrics."""

    at_ms: int
    before: BreakerState
    after: BreakerState
    why: str

    @property
    def text(self) -> str:
        """The change and its evidence: `opened: 3 operations unanswered in 2.1 s; asked n2, n3, n4`."""
        return f"{_VERBS[self.after]}: {self.why}"


class CircuitBreaker:
    """Callers ask `is_closed` before each call to the swarm, and report the outcome with the `generation` after it."""

    def __init__(
        self,
        rpc: Rpc,
        members: Members,
        *,
        threshold: int,
        backoff_seconds: float,
        chance: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._rpc = rpc
        self._members = members
        self._now_ms = now_ms
        self._breaker = Breaker(threshold=threshold, backoff_seconds=backoff_seconds, chance=chance)
        self._driver: Driver[breaker.Event, breaker.Effect] = Driver(self._breaker, self._carry_out)
        self._nursery: trio.Nursery | None = None
        self._judged_later = 0
        self.openings = 0
        """How often it opened, by itself or because an operator forced it."""
        self.recoveries = 0
        self.opened_at_ms: int | None = None
        self.recovered_at_ms: int | None = None
        self._on_change: list[Callable[[Transition], None]] = []
        self._on_sign_of_life: list[Callable[[], None]] = []

    def subscribe(
        self, *, on_change: Callable[[Transition], None], on_sign_of_life: Callable[[], None] = lambda: None
    ) -> None:
        """Call `on_change` at each change, and `on_sign_of_life` at each sign of life that is reported here.

        Both must be quick, must not wait and must not raise.
        """
        self._on_change.append(on_change)
        self._on_sign_of_life.append(on_sign_of_life)

    @property
    def is_closed(self) -> bool:
        """Whether the swarm may be asked."""
        return self._breaker.is_closed

    @property
    def state(self) -> BreakerState:
        return self._breaker.state

    @property
    def why(self) -> str:
        """The evidence for the last change of state, in words."""
        return self._breaker.why

    @property
    def generation(self) -> int:
        """Read when a call begins, and given back with its outcome: a late outcome of an earlier state is ignored."""
        return self._breaker.generation

    def succeeded(self, generation: int) -> None:
        self._driver.handle(breaker.Succeeded(generation))

    def failed(self, generation: int, evidence: str, asked: Sequence[str] = ()) -> None:
        """No peer answered an operation; `asked` are the peers that did not."""
        names = tuple(map(self._members.name_of, asked))
        self._driver.handle(breaker.Failed(generation, evidence, names))

    def unanswered(
        self, generation: int, *, since: float, until: float, evidence: str, asked: Sequence[str] = ()
    ) -> None:
        """These peers were asked, and the answer did not come between `since` and `until` (trio's clock).

        When any peer answered anything meanwhile, the swarm is there: it refused, or other work of this node was before
        this operation. When this process was late itself, or the deadline was too short for any peer, nothing is known.
        When it was too short for these peers, whose round trips are longer, the operation is judged when their time is
        over.
        """
        if self._has_answered(since):
            self.succeeded(generation)
        elif until - since >= FAIR_SECONDS and trio.current_time() <= until + LATE_SECONDS:
            due = since + self._rpc.round_trips.timeout_of_all(asked or self._members.answering(), least=FAIR_SECONDS)
            if due <= until:
                self.failed(generation, evidence, asked)
            elif self._nursery is not None and self._judged_later < JUDGED_LATER_MAX:
                self._judged_later += 1
                self._nursery.start_soon(self._judge_later, generation, since, due, evidence, tuple(asked))

    async def _judge_later(
        self, generation: int, since: float, due: float, evidence: str, asked: tuple[str, ...]
    ) -> None:
        try:
            await trio.sleep_until(due)
        finally:
            self._judged_later -= 1
        if self._has_answered(since):
            self.succeeded(generation)
        elif trio.current_time() <= due + LATE_SECONDS:
            self.failed(generation, evidence, asked)

    def _has_answered(self, since: float) -> bool:
        return any(self._rpc.answered_at(presence.member.peer) > since for presence in self._members.all())

    def unasked(self, generation: int, evidence: str) -> None:
        """No peer was asked, because no holder can be reached: a failure when no member at all can be reached."""
        if not self._members.answering():
            self.failed(generation, evidence)

    def heard(self, peer: str) -> None:
        """A frame of this peer was received."""
        if self._breaker.learned is BreakerState.OPEN:
            self._driver.handle(breaker.SignOfLife(f"a frame of {self._members.name_of(peer)}"))

    def sign_of_life(self, evidence: str) -> None:
        """A peer connected, or answered again."""
        if self._breaker.learned is BreakerState.OPEN:
            self._driver.handle(breaker.SignOfLife(evidence))
        for on_sign_of_life in self._on_sign_of_life:
            on_sign_of_life()

    def force(self, state: BreakerState, why: str) -> None:
        """Force the breaker open or closed; it goes on learning meanwhile, and follows that after `release`."""
        self._driver.handle(breaker.Forced(state, why))

    def release(self, why: str) -> None:
        """End the force, if there is one."""
        self._driver.handle(breaker.Released(why))

    def tune(self, *, threshold: int, backoff_seconds: float) -> None:
        """Use other limits from now on; the counts stay."""
        self._driver.handle(breaker.Tuned(threshold, backoff_seconds))

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await self._driver.run()
            finally:
                self._nursery = None  # before it closes: a late event must not start a task in it

    def _carry_out(self, effect: breaker.Effect) -> None:
        match effect:
            case breaker.Probe(generation) if self._nursery is not None:
                self._nursery.start_soon(self._probe, generation)
            case breaker.Changed(before, after, why):
                transition = Transition(self._now_ms(), before, after, why)
                self._count(transition)
                for on_change in self._on_change:
                    on_change(transition)
                level = (
                    logging.WARNING if after is BreakerState.OPEN and before is BreakerState.CLOSED else logging.INFO
                )
                log.log(level, "the breaker %s (it was %s)", transition.text, before)
            case _:
                pass

    def _count(self, transition: Transition) -> None:
        """Leaving closed is an opening, returning to it a recovery; whether by itself or by force."""
        if transition.before is BreakerState.CLOSED:
            self.openings += 1
            self.opened_at_ms = transition.at_ms
        elif transition.after is BreakerState.CLOSED:
            self.recoveries += 1
            self.recovered_at_ms = transition.at_ms

    async def _probe(self, generation: int) -> None:
        peers = [p.member.peer for p in self._members.all() if p.is_connected][:PROBE_PEERS_MAX]
        outcomes: list[bool | None] = []
        answered: list[str] = []

        async def ping(peer: str, scope: trio.CancelScope) -> None:
            started = trio.current_time()
            timeout = self._rpc.round_trips.timeout(peer, least=PROBE_SECONDS)
            try:
                await self._rpc.call(peer, Ping(), timeout=timeout)
            except CallAbandoned:
                outcomes.append(None)
            except BzzzError:
                outcomes.append(False)
            else:
                outcomes.append(True)
                ms = (trio.current_time() - started) * 1000.0
                answered.append(f"{self._members.name_of(peer)} answered a ping in {ms:.1f} ms")
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(ping, peer, nursery.cancel_scope)
        if True in outcomes:
            self._driver.handle(breaker.Succeeded(generation, answered[0]))
        elif None in outcomes:
            self._driver.handle(breaker.Abandoned(generation))
        else:
            self.failed(generation, "a ping was not answered" if peers else "no peer is connected", peers)
