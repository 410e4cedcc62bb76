"""Asking several peers one question: the nearest first, the others when those are slow, until it is enough.

Hedged requests: Dean and Barroso, "The Tail at Scale" (2013). Nobody waits for a slow peer longer than for the next
one, and nobody is asked who is not needed. How long the first ones may take before the next is asked too follows what
they usually take (`protocols/policy/rtt.py`), so that far peers are not all asked at once only because they are far.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from node.swarm.rpc import LATE_SECONDS, Rpc
from protocols.errors import BzzzError, Unavailable
from protocols.messages import FailedReply, Reply, Request

PATIENCE_SECONDS = 0.05
"""Who had less than this to answer, for it was asked just before the deadline, is not blamed for its silence; nor who
had less than a few times what it usually takes."""
HEDGES_MIN = 3
"""However slow the first ones usually are, there is time to ask the next within this part of the deadline."""


class Unanswered(Unavailable):
    """These peers were asked, and too few of them answered."""

    def __init__(self, message: str, /, *, peers: Sequence[str] = (), **details: Any) -> None:
        super().__init__(message, **details)
        self.peers = tuple(peers)


@dataclass(slots=True)
class QueryResult:
    """What came of it: the answers by peer in the order they came, and who was asked in vain."""

    answers: dict[str, Reply] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    is_late: bool = False
    """This process was late itself: silence says nothing."""

    def evidence(self, name_of: Callable[[str], str] = lambda peer: peer[-8:]) -> str:
        """Who was asked and who answered, in words."""
        names = ", ".join(map(name_of, self.asked)) or "nobody"
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
    """Ask until it is enough, everybody has answered, or the deadline (trio's clock) is over.

    `request` makes the message for a peer. `at_first` (1 or more) are asked side by side, and as many again when those
    have answered and it is not enough. An error that a peer answered with counts as silence: it told nothing.
    """
    asked = QueryResult()
    round_trips = rpc.round_trips
    hedge_most = (deadline - trio.current_time()) / HEDGES_MIN
    rest = list(peers)
    under_way: dict[str, tuple[int, float]] = {}
    woken = trio.Event()

    def send_next() -> None:
        while rest:
            peer = rest.pop(0)

            def on_reply(reply: Reply | BzzzError, peer: str = peer) -> None:
                under_way.pop(peer, None)
                if isinstance(reply, BzzzError | FailedReply):
                    asked.silent.append(peer)
                    send_next()
                else:
                    asked.answers[peer] = reply
                woken.set()

            number = rpc.ask(peer, request(peer), on_reply)
            asked.asked.append(peer)
            if number is not None:
                under_way[peer] = number, trio.current_time()
                return
            asked.silent.append(peer)

    try:
        while not is_enough(asked) and (now := trio.current_time()) < deadline:
            if not under_way:
                for _ in range(at_first):
                    send_next()
            if not under_way:
                break
            woken = trio.Event()
            hedge_at = now + round_trips.hedge_delay(under_way, most=hedge_most)
            with trio.move_on_at(min(deadline, hedge_at) if rest else deadline):
                await woken.wait()
            if not woken.is_set() and trio.current_time() < deadline:
                send_next()
    finally:
        rest.clear()
        now = trio.current_time()
        asked.is_late = now > deadline + LATE_SECONDS
        for peer, (number, asked_at) in list(under_way.items()):
            asked.silent.append(peer)
            patience = round_trips.timeout(peer, least=PATIENCE_SECONDS)
            had_its_time = now >= deadline and now - asked_at >= patience
            rpc.give_up(peer, number, is_missed=had_its_time and not asked.is_late)
    return asked
