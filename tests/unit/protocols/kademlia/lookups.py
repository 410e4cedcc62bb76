"""Lookups on places of eight bits, without an event loop: the name of a peer is its place, and answers take time."""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

from protocols.errors import InvalidPayload
from protocols.kademlia.contact import Contact
from protocols.kademlia.lookup import Lookup, LookupOptions
from protocols.kademlia.lookup_events import Ended, ReplyReceived, RequestFailed, Result, SendRequest
from protocols.kademlia.lookup_purposes import ClosestPeers, Purpose
from protocols.policy.machine import Tick
from tests.unit.ticks import due

OWN = "11111111"
Reply = ReplyReceived[Any] | RequestFailed
Answer = tuple[float, Reply] | None
"""What a peer answers, after how many seconds; None for never."""


def place(name: str) -> int:
    if len(name) != 8:
        raise InvalidPayload("not a name of eight bits", field="peer", expected="8 bits")
    return int(name, 2)


def contacts(*names: str) -> tuple[Contact, ...]:
    return tuple(map(Contact, names))


def lookup(target: str, seeds: Sequence[str], purpose: Purpose[Any] | None = None, **options: Any) -> Lookup[Any]:
    """k is 3, alpha 2; a request is slow after 1 s and fails after 4 s."""
    sizes = {"k": 3, "alpha": 2, "slow_seconds": 1.0, "request_seconds": 4.0, "seconds_max": 60.0, **options}
    return Lookup(
        place(target), contacts(*seeds), purpose or ClosestPeers(),
        own=OWN, now=0.0, place_of=place, options=LookupOptions(**sizes),
    )  # fmt: skip


def asked(effects: Sequence[SendRequest | Ended]) -> list[str]:
    return [effect.contact.peer for effect in effects if isinstance(effect, SendRequest)]


def play(machine: Lookup[Any], answer: Callable[[Contact], Answer]) -> tuple[Result, list[str]]:
    """Run a lookup to its end. Returns its result, and which peers were asked, in order."""
    queue: list[tuple[float, int, Reply]] = []
    order: list[str] = []
    now, effects = 0.0, machine.handle(Tick(), 0.0)
    while True:
        for effect in effects:
            if isinstance(effect, Ended):
                assert machine.deadline is None
                return effect.result, order
            order.append(effect.contact.peer)
            if (reply := answer(effect.contact)) is not None:
                heappush(queue, (now + reply[0], len(order), reply[1]))
        if queue and queue[0][0] <= due(machine):
            now, _, event = heappop(queue)
            effects = machine.handle(event, now)
        else:
            assert due(machine) < float("inf"), "it waits for ever"
            now = due(machine)
            effects = machine.handle(Tick(), now)
            assert due(machine) > now or machine.deadline is None, "it spins"
