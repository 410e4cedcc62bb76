"""Asking several peers one question: hedged, no further than needed, never past the deadline, and fair in its blame."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from node.dht.hedged_query import PATIENCE_SECONDS, QueryResult, ask
from node.swarm.rpc import LATE_SECONDS, Rpc
from protocols.errors import StorageFull
from protocols.messages import FailedReply, GetHeads, HeadsReply, ProviderAdded, Reply
from protocols.policy.rtt import HEDGE_SECONDS_DEFAULT
from protocols.ucxl import key_of
from tests.unit.one_end import OneEnd, RecordingService, rpc_over, unanswered

Clock = trio.testing.MockClock
QUESTION = GetHeads(key_of("ucxl://a:b@c:d/*^"), ())
PEERS = ("a", "b", "c", "d", "e")
NOTHING = HeadsReply((), ())
FAILED = FailedReply.of(StorageFull("no room"))


class Round:
    """One question put to peers, in the background."""

    def __init__(self, net: OneEnd, told: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        self.net = net
        self.told = told
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
                is_enough=lambda asked: len(asked.answers) >= enough, deadline=trio.current_time() + seconds,
            )  # fmt: skip
            self.ended_at = trio.current_time()
            self.over.set()

        self.nursery.start_soon(put)
        await trio.testing.wait_all_tasks_blocked()

    @property
    def asked(self) -> str:
        """Whom a request has reached, in order."""
        return "".join(sent.peer for sent in self.net.sent)

    async def answer(self, peer: str, reply: Reply = NOTHING) -> None:
        self.net.answer(peer, self.net.requests(peer)[-1].id, reply)
        await trio.testing.wait_all_tasks_blocked()

    async def end(self) -> QueryResult:
        await self.over.wait()
        assert unanswered(self.rpc) == 0, "a request is left behind"
        accounted_for = [*self.result.answers, *self.result.silent]
        assert sorted(self.result.asked) == sorted(accounted_for)
        return self.result


@asynccontextmanager
async def round_of(*peers: str) -> AsyncIterator[Round]:
    net, told = OneEnd(), RecordingService()
    async with rpc_over(net, told) as rpc, trio.open_nursery() as nursery:
        net.come(*(peers or PEERS))
        yield Round(net, told, rpc, nursery)
        nursery.cancel_scope.cancel()


async def test_the_nearest_are_asked_first_and_nobody_else_when_they_are_enough(autojump_clock: Clock) -> None:
    async with round_of() as r:
        await r.start()
        assert r.asked == "ab"
        await r.answer("b")
        await r.answer("a")
        asked = await r.end()
        assert r.ended_at == 0.0
        assert list(asked.answers) == ["b", "a"]
        assert asked.silent == []
        assert r.asked == "ab"


async def test_a_slow_peer_is_waited_for_no_longer_than_for_the_next_one(autojump_clock: Clock) -> None:
    async with round_of() as r:
        await r.start()
        await r.answer("a")
        await trio.sleep(HEDGE_SECONDS_DEFAULT * 1.01)
        assert r.asked == "abc"
        await r.answer("c")
        asked = await r.end()
        assert list(asked.answers) == ["a", "c"]
        assert asked.silent == ["b"]
        assert r.told.missed_peers == [], "its time was not over yet"


async def test_one_more_is_asked_at_each_turn_until_all_are(autojump_clock: Clock) -> None:
    async with round_of() as r:
        await r.start(seconds=1.0)
        for count in (3, 4, 5, 5, 5):
            await trio.sleep(HEDGE_SECONDS_DEFAULT * 1.0001)
            assert r.asked == "abcde"[:count]


async def test_answers_that_are_not_enough_lead_to_the_next_ones_at_once(autojump_clock: Clock) -> None:
    """A thing is absent when most of its holders say so, and those who answered quickly are not most of them."""
    async with round_of() as r:
        await r.start(enough=3)
        await r.answer("a")
        assert r.asked == "ab", "one is still under way"
        await r.answer("b")
        assert r.asked == "abcd"
        await r.answer("d")
        asked = await r.end()
        assert r.ended_at == 0.0
        assert list(asked.answers) == ["a", "b", "d"]


async def test_when_everybody_has_answered_it_is_over_though_it_is_not_enough(autojump_clock: Clock) -> None:
    async with round_of() as r:
        await r.start(enough=9, at_first=1)
        for peer in PEERS:
            await r.answer(peer)
        asked = await r.end()
        assert r.ended_at == 0.0
        assert list(asked.answers) == list(PEERS)


@pytest.mark.parametrize("how", ["an error", "a connection that ends", "another kind of answer"])
async def test_who_tells_nothing_is_replaced_at_once_and_not_blamed(autojump_clock: Clock, how: str) -> None:
    async with round_of() as r:
        await r.start()
        if how == "a connection that ends":
            r.net.go("a")
            await trio.testing.wait_all_tasks_blocked()
        else:
            await r.answer("a", FAILED if how == "an error" else ProviderAdded())
        assert r.asked == "abc"
        assert trio.current_time() == 0.0
        await r.answer("b")
        await r.answer("c")
        asked = await r.end()
        assert list(asked.answers) == ["b", "c"]
        assert asked.silent == ["a"]
        assert r.told.missed_peers == []


async def test_who_is_not_connected_is_passed_over(autojump_clock: Clock) -> None:
    async with round_of("b", "d") as r:
        await r.start()
        assert r.asked == "bd"
        await r.answer("b")
        await r.answer("d")
        asked = await r.end()
        assert asked.silent == ["a", "c"]
        assert asked.evidence() == "asked a, b, c, d; 2 answered"


async def test_when_nobody_can_be_asked_it_is_over_at_once(autojump_clock: Clock) -> None:
    async with round_of("elsewhere") as r:
        await r.start()
        asked = await r.end()
        assert r.ended_at == 0.0
        assert (asked.answers, asked.silent) == ({}, list(PEERS))
        await r.start(peers=())
    assert QueryResult().evidence() == "asked no peer; 0 answered"


async def test_at_the_deadline_it_ends_and_who_had_its_time_is_blamed(autojump_clock: Clock) -> None:
    async with round_of() as r:
        await r.start(seconds=0.09)
        await trio.sleep(0.015)
        await r.answer("b")
        asked = await r.end()
        assert r.ended_at == pytest.approx(0.09)
        assert list(asked.answers) == ["b"]
        assert not asked.is_late
        assert r.asked == "abcde"
        assert r.told.missed_peers == ["a", "c"]


async def test_who_was_asked_just_before_the_deadline_is_not_blamed(autojump_clock: Clock) -> None:
    async with round_of() as r:
        await r.start(seconds=HEDGE_SECONDS_DEFAULT + PATIENCE_SECONDS * 0.8)
        asked = await r.end()
        assert set(asked.silent) >= {"a", "b", "c"}
        assert "a" in r.told.missed_peers
        assert "c" not in r.told.missed_peers, "it had less time than a fair answer may take"
        r.told.events.clear()
        await r.start(seconds=PATIENCE_SECONDS / 2)
        await trio.sleep(1.0)
        assert r.told.missed_peers == []


async def test_past_the_deadline_nobody_is_asked(autojump_clock: Clock) -> None:
    async with round_of() as r:
        await trio.sleep(1.0)
        for seconds in (0.0, -1.0):
            await r.start(seconds=seconds)
            assert (await r.end()).asked == []
        assert r.asked == ""
        assert r.told.missed_peers == []


async def test_who_was_late_itself_says_so_and_blames_nobody(mock_clock: Clock) -> None:
    async with round_of() as r:
        await r.start(seconds=0.1)
        mock_clock.jump(0.1 + LATE_SECONDS + 0.01)
        asked = await r.end()
        assert asked.is_late
        assert r.told.missed_peers == []
        assert r.asked == "ab", "nor is anybody else asked then"


async def test_a_caller_that_is_cancelled_leaves_nothing_behind(autojump_clock: Clock) -> None:
    async with round_of() as r:
        with trio.move_on_after(0.03):
            await ask(r.rpc, PEERS, lambda peer: QUESTION, at_first=2, is_enough=lambda asked: False, deadline=9.0)
        assert sum(len(waiters) for waiters in r.rpc._waiting.values()) == 0
        assert r.told.missed_peers == []
        sent = r.asked
        for peer in sent:
            r.net.answer(peer, r.net.requests(peer)[0].id, FAILED)
        await trio.sleep(1.0)
        assert r.asked == sent, "a late error makes nobody ask another one"


async def test_each_peer_can_be_asked_something_of_its_own(autojump_clock: Clock) -> None:
    async with round_of() as r:
        have = {peer: bytes([number]) * 32 for number, peer in enumerate(PEERS)}
        question: Callable[[str], Any] = lambda peer: GetHeads(QUESTION.key, (have[peer],))  # noqa: E731
        with trio.move_on_after(0.01):
            await ask(r.rpc, PEERS, question, at_first=5, is_enough=lambda asked: False, deadline=9.0)
        assert {sent.peer: sent.frame.message.have for sent in r.net.sent} == {p: (h,) for p, h in have.items()}  # type: ignore[union-attr]
