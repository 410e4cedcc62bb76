"""Requests and replies over frames: each reply reaches its caller, silence is blamed, and no wait is endless."""

import pytest
import trio
import trio.testing

from node.swarm.base import BULK_BYTES_MIN, Lane
from node.swarm.limits import SwarmLimits
from node.swarm.rpc import LATE_SECONDS, CallAbandoned, Rpc, Silent, Unreachable
from protocols.errors import BzzzError, StorageFull
from protocols.messages import (
    ContentReply,
    EnvelopesReply,
    FailedReply,
    GetHeads,
    Merge,
    MergeReply,
    Ping,
    Pong,
    Reply,
)
from tests.unit.node.swarm.rpc_stories import KEY, PONG, Caller, Clock, run
from tests.unit.one_end import OneEnd, RecordingService, unanswered


async def test_each_reply_reaches_its_caller_in_any_order(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        callers = [Caller(nursery, rpc, peer) for peer in ("a", "a", "b", "a")]
        asked = [*await net.until_sent("a", 3), *await net.until_sent("b", 1)]
        assert len({frame.id for frame in asked}) == 4
        for sent in reversed(net.sent):
            net.answer(sent.peer, sent.frame.id, Pong(sent.frame.id, 0, 0))
        for caller in callers:
            await caller.over.wait()
        assert {caller.outcome for caller in callers} == {Pong(frame.id, 0, 0) for frame in asked}
        assert unanswered(rpc) == 0
        assert service.missed_peers == []

    await run(story, "a", "b")


async def test_a_request_carries_its_trace(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        assert rpc.ask("a", Ping(), lambda reply: None, "trace-1") is not None
        assert net.requests("a")[0].trace == "trace-1"

    await run(story, "a")


async def test_a_peer_that_is_not_connected_is_unreachable_and_no_caller_waits(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        with pytest.raises(Unreachable):
            await rpc.call("nobody", Ping(), timeout=1.0)
        net.is_full = True
        with pytest.raises(Unreachable):
            await rpc.call("a", Ping(), timeout=1.0)
        assert trio.current_time() == 0.0
        assert unanswered(rpc) == 0
        assert service.missed_peers == [], "no peer is blamed for a request that was never sent"

    await run(story, "a")


async def test_a_peer_with_too_much_unanswered_is_unreachable_until_some_is(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        numbers = [rpc.ask("a", Ping(), lambda reply: None) for _ in range(2)]
        assert rpc.ask("a", Ping(), lambda reply: None) is None
        assert rpc.ask("b", Ping(), lambda reply: None) is not None
        assert numbers[0] is not None
        net.answer("a", numbers[0], PONG)
        assert rpc.ask("a", Ping(), lambda reply: None) is not None

    await run(story, "a", "b", limits=SwarmLimits(in_flight_max=2))


async def test_requests_not_sent_to_a_peer_with_too_much_unanswered_are_counted_and_logged_once_a_minute(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        def refused(times: int) -> None:
            assert [rpc.ask("a", Ping(), lambda reply: None) for _ in range(times)] == [None] * times

        assert rpc.ask("nobody", Ping(), lambda reply: None) is None
        for _ in range(2):
            assert rpc.ask("a", Ping(), lambda reply: None) is not None
        refused(50)
        await trio.sleep(61.0)
        refused(1)
        assert rpc.peer_policy.limit_counters.counts.requests_not_sent == 51
        first, second = [record.getMessage() for record in caplog.records]
        assert first == "a: has not answered 2 requests of this node: it gets no more until it answers some"
        assert second == f"{first} (and 49 more like it before)"

    await run(story, "a", limits=SwarmLimits(in_flight_max=2))


async def test_silence_until_the_deadline_is_a_miss_and_a_late_reply_is_dropped(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        caller = Caller(nursery, rpc, "a", timeout=0.5)
        await caller.over.wait()
        assert type(caller.outcome) is Silent
        assert caller.ended_at == 0.5
        assert service.missed_peers == ["a"]
        assert unanswered(rpc) == 0
        net.answer("a", net.requests("a")[0].id, PONG)
        assert service.missed_peers == ["a"]
        assert net.given_up == [], "a late reply breaks no rule"

    await run(story, "a")


async def test_a_distant_peer_has_its_time_before_it_is_blamed(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        for number in range(3):
            caller = Caller(nursery, rpc, "a", timeout=1.0)
            asked = (await net.until_sent("a", number + 1))[-1]
            await trio.sleep(0.15)
            net.answer("a", asked.id, PONG)
            await caller.over.wait()
        caller = Caller(nursery, rpc, "a", timeout=0.3)
        await caller.over.wait()
        assert type(caller.outcome) is Silent
        assert service.missed_peers == [], "the caller was in a hurry, and the peer is distant"
        caller = Caller(nursery, rpc, "a", timeout=0.5)
        await caller.over.wait()
        assert service.missed_peers == ["a"]

    await run(story, "a")


async def test_late_replies_are_round_trips_too(autojump_clock: Clock) -> None:
    """In a network that has become slow all replies are late at first; without them the timeouts would never grow."""

    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        caller = Caller(nursery, rpc, "a", timeout=0.1)
        await caller.over.wait()
        await trio.sleep(0.2)
        net.answer("a", net.requests("a")[0].id, PONG)
        assert rpc.round_trips.median("a") == pytest.approx(0.3)
        net.answer("a", net.requests("a")[0].id, PONG)
        net.go("a")
        assert rpc.round_trips.median("a") is None, "when it returns, its path may be another one"

    await run(story, "a")


async def test_a_reply_after_a_commit_is_no_round_trip(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        assert rpc.ask("a", Merge((b"envelope",)), lambda reply: None) is not None
        await trio.sleep(3.0)
        net.answer("a", net.requests("a")[0].id, MergeReply(1, ()))
        assert rpc.round_trips.median("a") is None

    await run(story, "a")


async def test_a_process_that_was_late_itself_blames_no_peer(mock_clock: Clock) -> None:
    """The process was stopped or its loop was busy: the reply may wait in the socket."""

    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        caller = Caller(nursery, rpc, "a", timeout=0.5)
        await net.until_sent("a", 1)
        mock_clock.jump(0.5 + LATE_SECONDS + 0.01)
        await caller.over.wait()
        assert type(caller.outcome) is CallAbandoned
        assert service.missed_peers == []
        assert unanswered(rpc) == 0

    await run(story, "a")


async def test_a_cancelled_caller_blames_no_peer(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        with trio.move_on_after(0.2) as scope:
            await rpc.call("a", Ping(), timeout=1.0)
        assert scope.cancelled_caught
        assert service.missed_peers == []
        assert unanswered(rpc) == 0
        net.answer("a", net.requests("a")[0].id, PONG)

    await run(story, "a")


async def test_the_error_of_a_peer_is_raised_with_its_type(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        caller = Caller(nursery, rpc, "a", GetHeads(KEY, ()))
        (asked,) = await net.until_sent("a", 1)
        net.answer("a", asked.id, FailedReply.of(StorageFull("no room", free_bytes=0)))
        await caller.over.wait()
        assert type(caller.outcome) is StorageFull
        assert caller.outcome.details == {"free_bytes": 0}
        assert service.missed_peers == [], "an error is a reply"

    await run(story, "a")


async def test_a_reply_of_another_kind_is_silence(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        for request, wrong in (
            (Merge((b"e",)), ContentReply(b"")), (Merge((b"e",)), PONG), (GetHeads(KEY, ()), EnvelopesReply(())),
            (Ping(), ContentReply(b"")),
        ):  # fmt: skip
            caller = Caller(nursery, rpc, "a", request)
            asked = (await net.until_sent("a", len(net.requests("a")) + 1))[-1]
            net.answer("a", asked.id, wrong)
            await caller.over.wait()
            assert isinstance(caller.outcome, Silent), "the peer may have carried it out"
        assert unanswered(rpc) == 0

    await run(story, "a")


async def test_a_reply_without_a_request_is_ignored(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        replies: list[Reply | BzzzError] = []
        number = rpc.ask("a", Ping(), replies.append)
        assert number is not None
        net.answer("b", number, PONG)
        assert replies == [], "a reply of another peer is not for this request"
        net.answer("a", number, PONG)
        net.answer("a", number, Pong(9, 9, 9))
        assert replies == [PONG], "and a request has one reply"

    await run(story, "a", "b")


async def test_a_connection_that_ends_fails_its_callers_at_once_and_once(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        here = [Caller(nursery, rpc, "a", timeout=60.0) for _ in range(3)]
        there = Caller(nursery, rpc, "b", timeout=60.0)
        replies: list[Reply | BzzzError] = []
        await net.until_sent("a", 3)
        await net.until_sent("b", 1)
        number = rpc.ask("a", Ping(), replies.append)
        assert number is not None
        net.go("a", "reset by peer")
        for caller in here:
            await caller.over.wait()
            assert type(caller.outcome) is Silent
            assert "reset by peer" in caller.outcome.message
        assert trio.current_time() == 0.0
        assert [type(reply) for reply in replies] == [Silent]
        rpc.give_up("a", number, is_missed=True)
        assert service.missed_peers == [], "a disconnected peer is not suspect as well"
        assert not there.over.is_set()
        net.answer("b", net.requests("b")[0].id, PONG)
        await there.over.wait()
        assert there.outcome == PONG
        assert unanswered(rpc) == 0

    await run(story, "a", "b")


async def test_a_request_from_the_callback_of_a_lost_connection_is_not_sent(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        again: list[int | None] = []
        for _ in range(3):
            rpc.ask("a", Ping(), lambda reply: again.append(rpc.ask("a", Ping(), lambda reply: None)))
        net.go("a")
        assert again == [None, None, None]
        assert unanswered(rpc) == 0

    await run(story, "a")


async def test_a_reply_to_the_former_connection_is_none_on_the_next(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        replies: list[Reply | BzzzError] = []
        old = rpc.ask("a", Ping(), replies.append)
        assert old is not None
        net.go("a")
        net.come("a")
        replies.clear()
        new = rpc.ask("a", Ping(), replies.append)
        net.answer("a", old, PONG)
        assert replies == []
        assert new is not None
        net.answer("a", new, PONG)
        assert replies == [PONG]

    await run(story, "a")


async def test_giving_up_twice_or_after_the_reply_blames_no_peer(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        number = rpc.ask("a", Ping(), lambda reply: None)
        assert number is not None
        net.answer("a", number, PONG)
        rpc.give_up("a", number, is_missed=True)
        rpc.give_up("nobody", number, is_missed=True)
        assert service.missed_peers == []

    await run(story, "a")


async def test_a_large_frame_takes_the_bulk_lane_and_a_small_one_does_not(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        rpc.ask("a", Merge((b"x" * BULK_BYTES_MIN,)), lambda reply: None)
        rpc.ask("a", Merge((b"x",)), lambda reply: None)
        assert [sent.lane for sent in net.sent] == [Lane.BULK, Lane.SMALL]

    await run(story, "a")
