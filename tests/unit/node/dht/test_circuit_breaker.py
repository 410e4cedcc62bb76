"""The gate: which silence counts as a failure, and when, and that every change of the breaker names its evidence."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from node.dht.circuit_breaker import JUDGED_LATER_MAX, CircuitBreaker
from node.store.members import Member
from node.swarm.members import Members
from node.swarm.rpc import LATE_SECONDS, Rpc
from protocols.messages import Ping, Pong
from protocols.policy.breaker import BreakerState
from tests.unit.one_end import OneEnd, RecordingService, rpc_over

Clock = trio.testing.MockClock
PEERS = ("p2", "p3", "p4")


class Way:
    """A gate before peers named n2, n3, n4, which the test plays."""

    def __init__(self, net: OneEnd, rpc: Rpc) -> None:
        self.net, self.rpc = net, rpc
        members = Members("own", replication=20)
        for peer in PEERS:
            member = Member(peer=peer, name=f"n{peer[1:]}", addresses=(), first_seen_ms=0, last_seen_ms=0)
            members.put(member).is_connected = True
        self.breaker = CircuitBreaker(
            rpc, members, threshold=3, backoff_seconds=1.0, chance=lambda: 0.0, now_ms=lambda: 0
        )  # fmt: skip
        self.told: list[str] = []
        self.breaker.subscribe(on_change=lambda transition: self.told.append(transition.text))

    async def round_trips(self, seconds: float) -> None:
        for peer in PEERS:
            self.rpc.ask(peer, Ping(), lambda reply: None)
        await trio.sleep(seconds)
        self.answer()

    def answer(self) -> None:
        for peer in PEERS:
            for request in self.net.requests(peer):
                self.net.answer(peer, request.id, Pong(0, 0, 0))

    async def ask_in_vain(self, *asked: str, seconds: float = 0.085) -> None:
        generation, since = self.breaker.generation, trio.current_time()
        await trio.sleep(seconds)
        self.breaker.unanswered(generation, since=since, until=since + seconds, evidence="a write", asked=asked)


@asynccontextmanager
async def way() -> AsyncIterator[Way]:
    net = OneEnd()
    async with rpc_over(net, RecordingService()) as rpc, trio.open_nursery() as nursery:
        net.come(*PEERS)
        one = Way(net, rpc)
        nursery.start_soon(one.breaker.run)
        await trio.testing.wait_all_tasks_blocked()
        yield one
        nursery.cancel_scope.cancel()


async def test_silence_of_near_peers_opens_it_at_once_and_they_are_named(autojump_clock: Clock) -> None:
    async with way() as one:
        await one.round_trips(0.001)
        for asked in (("p2", "p3"), ("p3",), ("p4",)):
            await one.ask_in_vain(*asked)
        assert one.told == ["opened: 3 operations unanswered in 0.2 s; asked n2, n3, n4; a write"]
        assert one.breaker.openings == 1


async def test_silence_of_far_peers_counts_when_they_had_their_time(autojump_clock: Clock) -> None:
    async with way() as one:
        await one.round_trips(0.15)
        for _ in range(3):
            await one.ask_in_vain("p2")
        assert one.told == [], "they cannot have answered yet"
        await trio.sleep(0.5)
        assert one.told[0].startswith("opened: 3 operations unanswered in 0.2 s; asked n2")


async def test_an_answer_within_the_time_of_far_peers_is_no_failure(autojump_clock: Clock) -> None:
    async with way() as one:
        await one.round_trips(0.15)
        one.rpc.ask("p2", Ping(), lambda reply: None)
        for _ in range(5):
            await one.ask_in_vain("p2", seconds=0.02)
        one.answer()
        await trio.sleep(2.0)
        assert one.breaker.state is BreakerState.CLOSED
        assert one.told == []


@pytest.mark.parametrize("seconds", [0.0, 0.019])
async def test_who_was_in_a_hurry_learned_nothing(autojump_clock: Clock, seconds: float) -> None:
    async with way() as one:
        for _ in range(10):
            await one.ask_in_vain("p2", seconds=seconds)
        await trio.sleep(5.0)
        assert one.told == []


async def test_a_process_that_was_late_itself_blames_nobody(mock_clock: Clock) -> None:
    async with way() as one:
        for _ in range(5):
            since = trio.current_time()
            mock_clock.jump(0.1 + LATE_SECONDS + 0.01)
            one.breaker.unanswered(one.breaker.generation, since=since, until=since + 0.1, evidence="", asked=PEERS)
        assert one.told == []


async def test_judgements_that_wait_are_bounded(autojump_clock: Clock) -> None:
    async with way() as one:
        await one.round_trips(0.15)
        since = trio.current_time()
        await trio.sleep(0.085)
        for _ in range(JUDGED_LATER_MAX * 3):
            one.breaker.unanswered(0, since=since, until=since + 0.085, evidence="", asked=PEERS)
        assert one.breaker._judged_later == JUDGED_LATER_MAX
        await trio.sleep(0.5)
        assert one.breaker._judged_later == 0
        assert one.breaker.state is not BreakerState.CLOSED


async def test_closing_names_who_answered(autojump_clock: Clock) -> None:
    async with way() as one:
        await one.round_trips(0.001)
        for _ in range(3):
            await one.ask_in_vain(*PEERS)
        one.breaker.sign_of_life("n3 is here")
        await trio.sleep(0.01)
        one.net.answer("p3", one.net.requests("p3")[-1].id, Pong(0, 0, 0))
        await trio.sleep(0.01)
        assert one.told[1:] == ["half-opened: a sign of life: n3 is here", "closed: n3 answered a ping in 10.0 ms"]


async def test_a_probe_that_nobody_answers_names_whom_it_asked(autojump_clock: Clock) -> None:
    async with way() as one:
        await one.round_trips(0.001)
        for _ in range(3):
            await one.ask_in_vain(*PEERS)
        await trio.sleep(1.2)
        assert one.told[1:] == ["half-opened: the backoff is over", "opened: a ping was not answered; asked n2, n3, n4"]
