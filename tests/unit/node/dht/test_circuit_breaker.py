"""The circuit breaker: which silence counts as a failure, and when; every change names its evidence."""

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


class Rig:
    """A circuit breaker to peers named n2, n3, n4, which the test plays."""

    def __init__(self, net: OneEnd, rpc: Rpc) -> None:
        self.net, self.rpc = net, rpc
        members = Members("own", replication=20)
        for peer in PEERS:
            member = Member(peer=peer, name=f"n{peer[1:]}", addresses=(), first_seen_ms=0, last_seen_ms=0)
            members.put(member).is_connected = True
        self.breaker = CircuitBreaker(
            rpc, members, threshold=3, backoff_seconds=1.0, chance=lambda: 0.0, now_ms=lambda: 0
        )  # fmt: skip
        self.changes: list[str] = []
        self.breaker.subscribe(on_change=lambda transition: self.changes.append(transition.text))

    async def round_trips(self, seconds: float) -> None:
        for peer in PEERS:
            self.rpc.ask(peer, Ping(), lambda reply: None)
        await trio.sleep(seconds)
        self.answer()

    def answer(self) -> None:
        for peer in PEERS:
            for request in self.net.requests(peer):
                self.net.answer(peer, request.id, Pong(0, 0, 0))

    async def ask_without_answer(self, *asked: str, seconds: float = 0.085) -> None:
        generation, since = self.breaker.generation, trio.current_time()
        await trio.sleep(seconds)
        self.breaker.unanswered(generation, since=since, until=since + seconds, evidence="a write", asked=asked)


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    net = OneEnd()
    async with rpc_over(net, RecordingService()) as rpc, trio.open_nursery() as nursery:
        net.come(*PEERS)
        r = Rig(net, rpc)
        nursery.start_soon(r.breaker.run)
        await trio.testing.wait_all_tasks_blocked()
        yield r
        nursery.cancel_scope.cancel()


async def test_silence_of_near_peers_opens_the_breaker_at_once_and_names_them(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.round_trips(0.001)
        for asked in (("p2", "p3"), ("p3",), ("p4",)):
            await r.ask_without_answer(*asked)
        assert r.changes == ["opened: 3 operations unanswered in 0.2 s; asked n2, n3, n4; a write"]
        assert r.breaker.openings == 1


async def test_silence_of_far_peers_counts_when_they_had_their_time(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.round_trips(0.15)
        for _ in range(3):
            await r.ask_without_answer("p2")
        assert r.changes == [], "they cannot have answered yet"
        await trio.sleep(0.5)
        assert r.changes[0].startswith("opened: 3 operations unanswered in 0.2 s; asked n2")


async def test_an_answer_within_the_time_of_far_peers_is_no_failure(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.round_trips(0.15)
        r.rpc.ask("p2", Ping(), lambda reply: None)
        for _ in range(5):
            await r.ask_without_answer("p2", seconds=0.02)
        r.answer()
        await trio.sleep(2.0)
        assert r.breaker.state is BreakerState.CLOSED
        assert r.changes == []


@pytest.mark.parametrize("seconds", [0.0, 0.019])
async def test_an_operation_with_a_short_deadline_is_no_evidence(autojump_clock: Clock, seconds: float) -> None:
    async with rig() as r:
        for _ in range(10):
            await r.ask_without_answer("p2", seconds=seconds)
        await trio.sleep(5.0)
        assert r.changes == []


async def test_a_process_that_was_late_itself_blames_no_peer(mock_clock: Clock) -> None:
    async with rig() as r:
        for _ in range(5):
            since = trio.current_time()
            mock_clock.jump(0.1 + LATE_SECONDS + 0.01)
            r.breaker.unanswered(r.breaker.generation, since=since, until=since + 0.1, evidence="", asked=PEERS)
        assert r.changes == []


async def test_operations_that_wait_to_be_judged_are_bounded(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.round_trips(0.15)
        since = trio.current_time()
        await trio.sleep(0.085)
        for _ in range(JUDGED_LATER_MAX * 3):
            r.breaker.unanswered(0, since=since, until=since + 0.085, evidence="", asked=PEERS)
        # Private: an operation that is judged and one that never was have the same effect.
        assert r.breaker._judged_later == JUDGED_LATER_MAX
        await trio.sleep(0.5)
        assert r.breaker._judged_later == 0
        assert r.breaker.state is not BreakerState.CLOSED


async def test_a_closing_breaker_names_the_peer_that_answered(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.round_trips(0.001)
        for _ in range(3):
            await r.ask_without_answer(*PEERS)
        r.breaker.sign_of_life("n3 is here")
        await trio.sleep(0.01)
        r.net.answer("p3", r.net.requests("p3")[-1].id, Pong(0, 0, 0))
        await trio.sleep(0.01)
        assert r.changes[1:] == ["half-opened: a sign of life: n3 is here", "closed: n3 answered a ping in 10.0 ms"]


async def test_a_probe_without_an_answer_names_the_peers_it_asked(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.round_trips(0.001)
        for _ in range(3):
            await r.ask_without_answer(*PEERS)
        await trio.sleep(1.2)
        assert r.changes[1:] == [
            "half-opened: the backoff is over",
            "opened: a ping was not answered; asked n2, n3, n4",
        ]
