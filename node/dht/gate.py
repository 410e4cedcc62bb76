"""The way to the swarm, and the breaker that shuts it: runs `protocols/breaker.py` and pings in its name."""

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import trio

from node.driver import Driver
from node.swarm.calls import FAIR_SECONDS, LATE_SECONDS, Calls
from node.swarm.calls import Abandoned as CallAbandoned
from node.swarm.members import Members
from protocols import breaker
from protocols.breaker import Breaker, State
from protocols.codes import BzzzError
from protocols.messages import Ping

log = logging.getLogger(__name__)

PROBE_PEERS_MAX = 8
"""How many connected peers one probe pings, side by side; one answer is enough."""
PROBE_SECONDS = 0.5
CHANGES_KEPT = 64


class Transition(NamedTuple):
    """One change of the breaker, for the log, the health report and the metrics."""

    at_ms: int
    before: State
    after: State
    why: str


class Gate:
    """Asked before each call to the swarm (`is_open`, in the sense of a gate), told after it."""

    def __init__(
        self,
        calls: Calls,
        members: Members,
        *,
        threshold: int,
        backoff_seconds: float,
        chance: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._calls = calls
        self._members = members
        self._now_ms = now_ms
        self._breaker = Breaker(threshold=threshold, backoff_seconds=backoff_seconds, chance=chance)
        self._driver: Driver[breaker.Event, breaker.Effect] = Driver(self._breaker, self._carry_out)
        self._nursery: trio.Nursery | None = None
        self.transitions: deque[Transition] = deque(maxlen=CHANGES_KEPT)
        self.openings = 0
        self.recoveries = 0
        self.opened_at_ms: int | None = None
        self.recovered_at_ms: int | None = None
        self.on_transition: Callable[[Transition], None] = lambda _: None
        """Told of each change in the moment of it: quick, does not wait, does not raise."""

    @property
    def lets_through(self) -> bool:
        """True: the swarm may be asked (the breaker is closed)."""
        return self._breaker.is_closed

    @property
    def state(self) -> State:
        return self._breaker.state

    @property
    def why(self) -> str:
        """The evidence of the breaker's last change, in words."""
        return self._breaker.why

    @property
    def generation(self) -> int:
        """Named again with the outcome of a call that begins now."""
        return self._breaker.generation

    def succeeded(self, generation: int) -> None:
        self._driver.tell(breaker.Succeeded(generation))

    def failed(self, generation: int, evidence: str) -> None:
        self._driver.tell(breaker.Failed(generation, evidence))

    def unanswered(self, generation: int, *, since: float, until: float, evidence: str) -> None:
        """Peers were asked, and what was waited for did not come in that time (trio's clock).

        When one of them answered anything meanwhile, the swarm is there: it refused, or our own work stands before
        this. When we were late ourselves, or the time was too short for anybody, nothing is known.
        """
        if any(self._calls.answered_at(presence.member.peer) > since for presence in self._members.all()):
            self.succeeded(generation)
        elif until - since >= FAIR_SECONDS and trio.current_time() <= until + LATE_SECONDS:
            self.failed(generation, evidence)

    def unasked(self, generation: int, evidence: str) -> None:
        """Nobody was asked, for none of those who should be can be reached: a failure when there is nobody else."""
        if not self._members.reachable():
            self.failed(generation, evidence)

    def sign_of_life(self, evidence: str) -> None:
        """A peer was heard, dialled or sighted."""
        if self._breaker.learned is State.OPEN:
            self._driver.tell(breaker.SignOfLife(evidence))

    def force(self, state: State, why: str) -> None:
        """Somebody wants it open or closed; what the breaker learns meanwhile holds again after `release`."""
        self._driver.tell(breaker.Forced(state, why))

    def release(self, why: str) -> None:
        """The force is over, if there was one."""
        self._driver.tell(breaker.Released(why))

    def tune(self, *, threshold: int, backoff_seconds: float) -> None:
        """Other limits from now on; what was counted stays."""
        self._driver.tell(breaker.Tuned(threshold, backoff_seconds))

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._driver.run()
        finally:
            self._nursery = None

    def _carry_out(self, effect: breaker.Effect) -> None:
        match effect:
            case breaker.Probe(generation) if self._nursery is not None:
                self._nursery.start_soon(self._probe, generation)
            case breaker.Changed(before, after, why):
                transition = Transition(self._now_ms(), before, after, why)
                self.transitions.append(transition)
                self._count(transition)
                self.on_transition(transition)
                level = logging.WARNING if after is State.OPEN and before is State.CLOSED else logging.INFO
                log.log(level, "the breaker is %s (was %s): %s", after, before, why)
            case _:
                pass

    def _count(self, transition: Transition) -> None:
        """From closed to anything else is an opening, the way back a recovery, by itself or because it was forced."""
        if transition.before is State.CLOSED:
            self.openings += 1
            self.opened_at_ms = transition.at_ms
        elif transition.after is State.CLOSED:
            self.recoveries += 1
            self.recovered_at_ms = transition.at_ms

    async def _probe(self, generation: int) -> None:
        peers = [p.member.peer for p in self._members.all() if p.is_connected][:PROBE_PEERS_MAX]
        outcomes: list[bool | None] = []

        async def ping(peer: str, scope: trio.CancelScope) -> None:
            try:
                await self._calls.call(peer, Ping(), timeout=PROBE_SECONDS)
            except CallAbandoned:
                outcomes.append(None)
            except BzzzError:
                outcomes.append(False)
            else:
                outcomes.append(True)
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(ping, peer, nursery.cancel_scope)
        if True in outcomes:
            self._driver.tell(breaker.Succeeded(generation))
        elif None in outcomes:
            self._driver.tell(breaker.Abandoned(generation))
        else:
            asked = ", ".join(peer[-8:] for peer in peers) or "nobody, for no peer is connected"
            self._driver.tell(breaker.Failed(generation, f"a ping was not answered; asked {asked}"))
