"""Asking several peers one question: the nearest first, the others when those are slow, until it is enough.

Hedged requests: Dean and Barroso, "The Tail at Scale" (2013). Nobody waits for a slow peer longer than for the next
one, and nobody is asked who is not needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from node.swarm.calls import LATE_SECONDS, Calls
from protocols.codes import BzzzError
from protocols.messages import Failed, Reply, Request

HEDGE_SECONDS = 0.02
"""How long the first ones may take before the next is asked too."""
PATIENCE_SECONDS = 0.05
"""Who had less than this to answer, for it was asked just before the deadline, is not blamed for its silence."""


@dataclass(slots=True)
class Asked:
    """What came of it: the answers by peer in the order they came, and who was asked in vain."""

    answers: dict[str, Reply] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    is_late: bool = False
    """This process was late itself: silence says nothing."""

    def evidence(self) -> str:
        """Who was asked and who answered, in words."""
        names = ", ".join(peer[-8:] for peer in self.asked) or "nobody"
        return f"asked {names}; {len(self.answers)} answered"


async def ask(
    calls: Calls,
    peers: Sequence[str],
    request: Callable[[str], Request],
    *,
    at_first: int,
    is_enough: Callable[[Asked], bool],
    deadline: float,
) -> Asked:
    """Ask until it is enough, everybody has answered, or the deadline (trio's clock) is over.

    `request` makes the message for a peer. `at_first` (1 or more) are asked side by side, and as many again when those
    have answered and it is not enough. An error that a peer answered with counts as silence: it told nothing.
    """
    asked = Asked()
    rest = list(peers)
    under_way: dict[str, tuple[int, float]] = {}
    woken = trio.Event()

    def send_next() -> None:
        while rest:
            peer = rest.pop(0)

            def on_reply(reply: Reply | BzzzError, peer: str = peer) -> None:
                under_way.pop(peer, None)
                if isinstance(reply, BzzzError | Failed):
                    asked.silent.append(peer)
                    send_next()
                else:
                    asked.answers[peer] = reply
                woken.set()

            number = calls.ask(peer, request(peer), on_reply)
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
            with trio.move_on_at(min(deadline, now + HEDGE_SECONDS) if rest else deadline):
                await woken.wait()
            if not woken.is_set() and trio.current_time() < deadline:
                send_next()
    finally:
        rest.clear()
        now = trio.current_time()
        asked.is_late = now > deadline + LATE_SECONDS
        for peer, (number, asked_at) in list(under_way.items()):
            asked.silent.append(peer)
            had_its_time = now >= deadline and now - asked_at >= PATIENCE_SECONDS
            calls.give_up(peer, number, is_missed=had_its_time and not asked.is_late)
    return asked
