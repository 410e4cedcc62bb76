"""Hedged query: asks several peers one question, the nearest first, and further ones when the first are slow.

Source: Dean and Barroso, "The Tail at Scale" (2013). A slow peer delays the query only until the next peer is asked,
and no more peers are asked than needed. The delay before the next peer is asked follows the round trips of the first
ones (`protocols/policy/rtt.py`); with a fixed delay all far peers would be asked at once only because they are far.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from node.swarm.rpc import LATE_SECONDS, Rpc, Unreachable
from protocols.errors import BzzzError, Unavailable
from protocols.messages import FailedReply, Reply, Request

PATIENCE_SECONDS = 0.05
"""A peer that was asked so shortly before the deadline is not blamed for its silence; nor is a peer that had less time
than a few of its usual round trips."""
HEDGES_MIN = 3
"""The delay before the next peer is asked is at most this part of the deadline, however slow the first peers are."""


class Unanswered(Unavailable):
    """These peers were asked, and too few of them answered."""

    def __init__(self, message: str, /, *, peers: Sequence[str] = (), **details: Any) -> None:
        super().__init__(message, **details)
        self.peers = tuple(peers)


@dataclass(slots=True)
class QueryResult:
    """The answers by peer in the order they came, the peers that were asked, and those that gave no answer."""

    answers: dict[str, Reply] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    unsent: list[str] = field(default_factory=list)
    """Those of the silent ones that could not be connected in time: nothing was sent to them."""
    is_late: bool = False
    """This process was late itself: the silence of a peer proves nothing."""

    def evidence(self, name_of: Callable[[str], str] = lambda peer: peer[-8:]) -> str:
        """Which peers were asked and how many answered, in words."""
        names = ", ".join(map(name_of, self.asked)) or "no peer"
        return f"asked {names}; {len(self.answers)} answered"


async def ask(
    rpc: Rpc,
    peers: Sequence[str],
    request: Callable[[str], Request],
    *,
    at_first: int,
    is_enough: Callable[[QueryResult], bool],
    deadline: float,
) -> QueryResult:
    """Ask until `is_enough`, until every peer has answered, or until the deadline (trio's clock).

    `request` makes the message for a peer. `at_first` (1 or more) peers are asked side by side, and as many again when
    these have answered and it is not enough. An error as an answer counts as silence.
    """
    return await _HedgedQuery(rpc, peers, request, at_first, is_enough, deadline).run()


class _HedgedQuery:
    """One query under way."""

    def __init__(
        self,
        rpc: Rpc,
        peers: Sequence[str],
        request: Callable[[str], Request],
        at_first: int,
        is_enough: Callable[[QueryResult], bool],
        deadline: float,
    ) -> None:
        self._rpc = rpc
        self._not_asked = list(peers)
        self._request = request
        self._at_first = at_first
        self._is_enough = is_enough
        self._deadline = deadline
        self._under_way: dict[str, tuple[int, float]] = {}
        """The request's number and when it was sent, by peer."""
        self._answered = trio.Event()
        self._result = QueryResult()

    async def run(self) -> QueryResult:
        try:
            await self._ask_until_enough()
        finally:
            self._not_asked.clear()  # an error that comes now must not ask the next peer
            self._give_up_unanswered()
        return self._result

    async def _ask_until_enough(self) -> None:
        hedge_most = (self._deadline - trio.current_time()) / HEDGES_MIN
        while not self._is_enough(self._result) and (now := trio.current_time()) < self._deadline:
            if not self._under_way:
                for _ in range(self._at_first):
                    self._ask_next()
            if not self._under_way:
                break
            self._answered = trio.Event()
            hedge_at = now + self._rpc.round_trips.hedge_delay(self._under_way, most=hedge_most)
            with trio.move_on_at(min(self._deadline, hedge_at) if self._not_asked else self._deadline):
                await self._answered.wait()
            if not self._answered.is_set() and trio.current_time() < self._deadline:
                self._ask_next()

    def _ask_next(self) -> None:
        """Ask the next peer that a request can be sent to."""
        while self._not_asked:
            peer = self._not_asked.pop(0)
            number = self._rpc.ask(peer, self._request(peer), partial(self._on_reply, peer))
            self._result.asked.append(peer)
            if number is not None:
                self._under_way[peer] = number, trio.current_time()
                return
            self._result.silent.append(peer)

    def _on_reply(self, peer: str, reply: Reply | BzzzError) -> None:
        self._under_way.pop(peer, None)
        if isinstance(reply, BzzzError | FailedReply):
            self._result.silent.append(peer)
            if isinstance(reply, Unreachable):
                self._result.unsent.append(peer)
            self._ask_next()
        else:
            self._result.answers[peer] = reply
        self._answered.set()

    def _give_up_unanswered(self) -> None:
        now = trio.current_time()
        self._result.is_late = now > self._deadline + LATE_SECONDS
        for peer, (number, asked_at) in list(self._under_way.items()):
            self._result.silent.append(peer)
            patience = self._rpc.round_trips.timeout(peer, least=PATIENCE_SECONDS)
            had_its_time = now >= self._deadline and now - asked_at >= patience
            if not self._rpc.give_up(peer, number, is_missed=had_its_time and not self._result.is_late):
                self._result.unsent.append(peer)
