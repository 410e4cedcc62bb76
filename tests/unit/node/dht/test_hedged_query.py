"""Hedged query: no more peers are asked than needed, none after the deadline, and none is blamed without reason."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from node.dht.hedged_query import PATIENCE_SECONDS, QueryResult, ask
from node.swarm.rpc import LATE_SECONDS, Rpc
from protocols.errors import StorageFull
from protocols.messages import ContentReply, FailedReply, GetHeads, HeadsReply, Reply
from protocols.policy.rtt import HEDGE_SECONDS_DEFAULT
from protocols.ucxl import key_of
from tests.unit.one_end import OneEnd, RecordingService, rpc_over, unanswered

Clock = trio.testing.MockClock
QUESTION = GetHeads(key_of("ucxl://a:b@c:d/*^"), ())
PEERS = ("a", "b", "c", "d", "e")
NOTHING = HeadsReply((), ())
FAILED = FailedReply.of(StorageFull("no room"))


class Rig:
    """One query in the background."""

    def __init__(self, net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        self.net = net
        self.service = service
        self.rpc = rpc
        self.nursery = nursery
        self.over = trio.Event()
        self.ended_at = -1.0
        self.result = QueryResult()

    async def start(
        self, *, enough: int = 2, at_first: int = 2, seconds: float = 0.1, peers: tuple[str, ...] = PEERS
    ) -> None:
        async def put() -> None:
            self.result = await ask(
                self.rpc, peers, lambda peer: QUESTION, at_first=at_first,
                is_enough=lambda result: len(result.answers) >= enough, deadline=trio.current_time() + seconds,
            )  # fmt: skip
            self.ended_at = trio.current_time()
            self.over.set()

        self.nursery.start_soon(put)
        await trio.testing.wait_all_tasks_blocked()

    @property
    def asked(self) -> str:
        """The peers that got a request, in order."""
        return "".join(sent.peer for sent in self.net.sent)

    async def answer(self, peer: str, reply: Reply = NOTHING) -> None:
        self.net.answer(peer, self.net.requests(peer)[-1].id, reply)
        await trio.testing.wait_all_tasks_blocked()

    def requests_left(self) -> int:
        # Private: nothing else shows a request that is left behind; a late answer to it would be ignored.
        return sum(len(waiters) for waiters in self.rpc._waiting.values())

    async def end(self) -> QueryResult:
        await self.over.wait()
        assert unanswered(self.rpc) == 0, "a request is left behind"
        accounted_for = [*self.result.answers, *self.result.silent]
        assert sorted(self.result.asked) == sorted(accounted_for)
        return self.result


@asynccontextmanager
async def rig(*peers: str) -> AsyncIterator[Rig]:
    net, service = OneEnd(), RecordingService()
    async with rpc_over(net, service) as rpc, trio.open_nursery() as nursery:
        net.come(*(peers or PEERS))
        yield Rig(net, service, rpc, nursery)
        nursery.cancel_scope.cancel()


async def test_only_the_nearest_peers_are_asked_when_their_answers_are_enough(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.start()
        assert r.asked == "ab"
        await r.answer("b")
        await r.answer("a")
        result = await r.end()
        assert r.ended_at == 0.0
        assert list(result.answers) == ["b", "a"]
        assert result.silent == []
        assert r.asked == "ab"


async def test_a_slow_peer_delays_the_query_only_until_the_next_peer_is_asked(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.start()
        await r.answer("a")
        await trio.sleep(HEDGE_SECONDS_DEFAULT * 1.01)
        assert r.asked == "abc"
        await r.answer("c")
        result = await r.end()
        assert list(result.answers) == ["a", "c"]
        assert result.silent == ["b"]
        assert r.service.missed_peers == [], "its time was not over yet"


async def test_one_more_peer_is_asked_after_each_hedge_delay(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.start(seconds=1.0)
        for count in (3, 4, 5, 5, 5):
            await trio.sleep(HEDGE_SECONDS_DEFAULT * 1.0001)
            assert r.asked == "abcde"[:count]


async def test_when_the_answers_are_not_enough_the_next_peers_are_asked_at_once(autojump_clock: Clock) -> None:
    """A key is absent when most of its holders say so, and the quick ones are not most of them."""
    async with rig() as r:
        await r.start(enough=3)
        await r.answer("a")
        assert r.asked == "ab", "one is still under way"
        await r.answer("b")
        assert r.asked == "abcd"
        await r.answer("d")
        result = await r.end()
        assert r.ended_at == 0.0
        assert list(result.answers) == ["a", "b", "d"]


async def test_a_query_ends_when_every_peer_has_answered(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.start(enough=9, at_first=1)
        for peer in PEERS:
            await r.answer(peer)
        result = await r.end()
        assert r.ended_at == 0.0
        assert list(result.answers) == list(PEERS)


@pytest.mark.parametrize("how", ["an error", "a connection that ends", "another kind of answer"])
async def test_a_peer_without_an_answer_is_replaced_at_once_and_not_blamed(autojump_clock: Clock, how: str) -> None:
    async with rig() as r:
        await r.start()
        if how == "a connection that ends":
            r.net.go("a")
            await trio.testing.wait_all_tasks_blocked()
        else:
            await r.answer("a", FAILED if how == "an error" else ContentReply(b""))
        assert r.asked == "abc"
        assert trio.current_time() == 0.0
        await r.answer("b")
        await r.answer("c")
        result = await r.end()
        assert list(result.answers) == ["b", "c"]
        assert result.silent == ["a"]
        assert r.service.missed_peers == []


async def test_peers_that_are_not_connected_are_skipped(autojump_clock: Clock) -> None:
    async with rig("b", "d") as r:
        await r.start()
        assert r.asked == "bd"
        await r.answer("b")
        await r.answer("d")
        result = await r.end()
        assert result.silent == ["a", "c"]
        assert result.evidence() == "asked a, b, c, d; 2 answered"


async def test_a_query_ends_at_once_when_no_peer_can_be_asked(autojump_clock: Clock) -> None:
    async with rig("elsewhere") as r:
        await r.start()
        result = await r.end()
        assert r.ended_at == 0.0
        assert (result.answers, result.silent) == ({}, list(PEERS))
        await r.start(peers=())
    assert QueryResult().evidence() == "asked no peer; 0 answered"


async def test_a_query_ends_at_the_deadline_and_blames_peers_that_had_their_time(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.start(seconds=0.09)
        await trio.sleep(0.015)
        await r.answer("b")
        result = await r.end()
        assert r.ended_at == pytest.approx(0.09)
        assert list(result.answers) == ["b"]
        assert not result.is_late
        assert r.asked == "abcde"
        assert r.service.missed_peers == ["a", "c"]


async def test_a_peer_asked_just_before_the_deadline_is_not_blamed(autojump_clock: Clock) -> None:
    async with rig() as r:
        await r.start(seconds=HEDGE_SECONDS_DEFAULT + PATIENCE_SECONDS * 0.8)
        result = await r.end()
        assert set(result.silent) >= {"a", "b", "c"}
        assert "a" in r.service.missed_peers
        assert "c" not in r.service.missed_peers, "it had less time than a fair answer may take"
        r.service.events.clear()
        await r.start(seconds=PATIENCE_SECONDS / 2)
        await trio.sleep(1.0)
        assert r.service.missed_peers == []


async def test_no_peer_is_asked_after_the_deadline(autojump_clock: Clock) -> None:
    async with rig() as r:
        await trio.sleep(1.0)
        for seconds in (0.0, -1.0):
            await r.start(seconds=seconds)
            assert (await r.end()).asked == []
        assert r.asked == ""
        assert r.service.missed_peers == []


async def test_a_query_that_ended_late_says_so_and_blames_no_peer(mock_clock: Clock) -> None:
    async with rig() as r:
        await r.start(seconds=0.1)
        mock_clock.jump(0.1 + LATE_SECONDS + 0.01)
        result = await r.end()
        assert result.is_late
        assert r.service.missed_peers == []
        assert r.asked == "ab", "no further peer is asked then"


async def test_a_caller_that_is_cancelled_leaves_nothing_behind(autojump_clock: Clock) -> None:
    async with rig() as r:
        with trio.move_on_after(0.03):
            await ask(r.rpc, PEERS, lambda peer: QUESTION, at_first=2, is_enough=lambda result: False, deadline=9.0)
        assert r.requests_left() == 0
        assert r.service.missed_peers == []
        sent = r.asked
        for peer in sent:
            r.net.answer(peer, r.net.requests(peer)[0].id, FAILED)
        await trio.sleep(1.0)
        assert r.asked == sent, "a late error makes the query ask no further peer"


async def test_each_peer_can_be_asked_its_own_question(autojump_clock: Clock) -> None:
    async with rig() as r:
        have = {peer: bytes([number]) * 32 for number, peer in enumerate(PEERS)}
        question: Callable[[str], Any] = lambda peer: GetHeads(QUESTION.key, (have[peer],))  # noqa: E731
        with trio.move_on_after(0.01):
            await ask(r.rpc, PEERS, question, at_first=5, is_enough=lambda result: False, deadline=9.0)
        assert {sent.peer: sent.frame.message.have for sent in r.net.sent} == {p: (h,) for p, h in have.items()}  # type: ignore[union-attr]
