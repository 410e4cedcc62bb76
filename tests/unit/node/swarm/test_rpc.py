"""Requests and replies over frames: each reply reaches its caller, silence is blamed, and no wait is endless."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from node.swarm.base import BULK_BYTES_MIN, Lane
from node.swarm.deferred_reply import DeferredReply
from node.swarm.limits import SwarmLimits
from node.swarm.rpc import LATE_SECONDS, CallAbandoned, Rpc, Silent, Unreachable
from protocols import message_codec
from protocols.errors import BzzzError, Conflict, Forbidden, StorageFull, TooManyRequests, Unavailable
from protocols.messages import (
    EnvelopesReply,
    FailedReply,
    GetHeads,
    GetMembers,
    HeadsReply,
    Merge,
    MergeReply,
    Ping,
    Pong,
    ProviderAdded,
    Reply,
)
from protocols.ucxl import key_of
from tests.unit.one_end import OneEnd, RecordingService, rpc_over, unanswered

Clock = trio.testing.MockClock
KEY = key_of("ucxl://a:b@c:d/*^")
PONG = Pong(1, 0, 0)


class Caller:
    """A call in the background, and its outcome."""

    def __init__(
        self, nursery: trio.Nursery, rpc: Rpc, peer: str, request: Any = None, *, timeout: float = 1.0
    ) -> None:
        self.outcome: Reply | BzzzError | None = None
        self.ended_at: float | None = None
        self.over = trio.Event()
        nursery.start_soon(self._call, rpc, peer, request or Ping(), timeout)

    async def _call(self, rpc: Rpc, peer: str, request: Any, timeout: float) -> None:
        try:
            self.outcome = await rpc.call(peer, request, timeout=timeout)
        except BzzzError as error:
            self.outcome = error
        self.ended_at = trio.current_time()
        self.over.set()


Story = Callable[[OneEnd, RecordingService, Rpc, trio.Nursery], Awaitable[None]]


async def run(story: Story, *peers: str, limits: SwarmLimits | None = None) -> None:
    """Run a story over an `Rpc`, with these peers connected."""
    net, service = OneEnd(), RecordingService()
    async with rpc_over(net, service, limits=limits) as rpc, trio.open_nursery() as nursery:
        net.come(*peers)
        await story(net, service, rpc, nursery)
        nursery.cancel_scope.cancel()


# -- asking -----------------------------------------------------------------------------------------------------


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
            (Merge((b"e",)), ProviderAdded()), (Merge((b"e",)), PONG), (GetHeads(KEY, ()), EnvelopesReply(())),
            (Ping(), ProviderAdded()),
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


# -- answering --------------------------------------------------------------------------------------------------


async def test_a_request_is_answered_under_its_number(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        service.answers[Ping] = PONG
        net.ask("a", 77, Ping(), "trace-2")
        net.ask("a", 5, GetMembers())
        assert net.replies("a") == [(77, PONG), (5, FailedReply.of(Forbidden("the test gave no answer")))]
        assert service.traces == ["trace-2", ""]
        assert service.events[-2:] == [("heard", "a"), ("heard", "a")]

    await run(story, "a")


def deferred(nursery: trio.Nursery, reply: Awaitable[Reply]) -> DeferredReply:
    """The same reply, by a callback instead of an awaitable."""
    deferred_reply = DeferredReply()

    async def resolve() -> None:
        try:
            deferred_reply.resolve(await reply)
        except Exception as error:
            deferred_reply.resolve(error)

    nursery.start_soon(resolve)
    return deferred_reply


def awaited(nursery: trio.Nursery, reply: Awaitable[Reply]) -> Awaitable[Reply]:
    return reply


both_ways = pytest.mark.parametrize("given", [awaited, deferred])


@both_ways
async def test_a_slow_request_is_answered_when_it_is_done_and_delays_no_other(
    given: Callable[..., Any], autojump_clock: Clock
) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        async def later(seconds: float, outcome: Reply | Exception) -> Reply:
            await trio.sleep(seconds)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        service.answers[Merge] = given(nursery, later(3.0, MergeReply(1, ())))
        net.ask("a", 1, Merge((b"e",)))
        service.answers[GetHeads] = given(nursery, later(1.0, Conflict("read again")))
        net.ask("a", 2, GetHeads(KEY, ()))
        service.answers[GetMembers] = given(nursery, later(2.0, ValueError("a defect")))
        net.ask("a", 3, GetMembers())
        service.answers[Ping] = PONG
        net.ask("a", 4, Ping())
        assert [number for number, _ in net.replies("a")] == [4]
        await trio.sleep(4.0)
        assert [number for number, _ in net.replies("a")] == [4, 2, 3, 1]
        by_number = dict(net.replies("a"))
        assert by_number[1] == MergeReply(1, ())
        assert by_number[2] == FailedReply.of(Conflict("read again"))
        assert isinstance(by_number[3], FailedReply)
        assert by_number[3].code == "UCXL-500-INTERNAL"
        assert "defect" not in by_number[3].message, "a defect of this node is not described to others"
        assert rpc.load.requests == {}

    await run(story, "a")


async def test_a_deferred_reply_that_is_resolved_already_is_sent_at_once(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        deferred_reply = DeferredReply()
        deferred_reply.resolve(MergeReply(1, ()))
        service.answers[Merge] = deferred_reply
        net.ask("a", 1, Merge((b"e",)))
        assert net.replies("a") == [(1, MergeReply(1, ()))]
        assert await deferred_reply.wait() == MergeReply(1, ())

    await run(story, "a")


@both_ways
async def test_a_late_reply_goes_out_on_the_connection_of_its_request_or_not_at_all(
    given: Callable[..., Any], autojump_clock: Clock
) -> None:
    """A peer that starts again counts from one again: a reply to its former run would acknowledge another request."""

    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        async def slow_commit() -> Reply:
            await trio.sleep(2.0)
            return MergeReply(1, ())

        service.answers[Merge] = given(nursery, slow_commit())
        net.ask("a", 1, Merge((b"former run",)))
        await trio.sleep(1.0)
        net.go("a", "killed")
        net.come("a")
        service.answers[Merge] = FailedReply.of(StorageFull("no room"))
        net.ask("a", 1, Merge((b"this run",)))
        await trio.sleep(5.0)
        assert net.replies("a") == [(1, FailedReply.of(StorageFull("no room")))]
        assert rpc.load.requests == {}

    await run(story, "a")


async def test_a_peer_with_too_many_requests_is_asked_to_slow_down(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        async def later() -> Reply:
            await trio.sleep(1.0)
            return HeadsReply((), ())

        for number in (1, 2):
            service.answers[GetHeads] = later()
            net.ask("a", number, GetHeads(KEY, ()))
        net.ask("a", 3, GetHeads(KEY, ()))
        ((number, reply),) = net.replies("a")
        assert number == 3
        assert isinstance(reply, FailedReply)
        assert isinstance(reply.error, TooManyRequests)
        service.answers[GetHeads] = later()
        net.ask("b", 1, GetHeads(KEY, ()))
        assert net.replies("b") == [], "another peer is not affected"
        await trio.sleep(2.0)
        service.answers[GetHeads] = HeadsReply((), ())
        net.ask("a", 4, GetHeads(KEY, ()))
        assert sorted(number for number, _ in net.replies("a")) == [1, 2, 3, 4]

    await run(story, "a", "b", limits=SwarmLimits(serving_max=2))


async def test_a_malformed_message_costs_the_connection_and_nothing_else(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        caller = Caller(nursery, rpc, "a", timeout=9.0)
        await net.until_sent("a", 1)
        for frame in (b"\xc1", b"", message_codec.encode_request(1, Ping()) + b"\x00"):
            net.garble("a", frame)
            ((peer, reason),) = net.given_up
            assert peer == "a"
            assert reason.startswith("malformed message")
            await caller.over.wait()
            assert type(caller.outcome) is Silent
            net.come("a")
            net.given_up.clear()
        assert ("heard", "a") not in service.events

    await run(story, "a")


async def test_no_error_of_this_node_or_of_a_peer_ends_the_node(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        async def odd() -> Reply:
            raise Unavailable("x" * 10_000, object=object(), text="y" * 10_000)

        service.answers[GetHeads] = odd()
        net.ask("a", 1, GetHeads(KEY, ()))
        await trio.testing.wait_all_tasks_blocked()
        ((_, reply),) = net.replies("a")
        assert isinstance(reply, FailedReply)
        caller = Caller(nursery, rpc, "a")
        (asked,) = await net.until_sent("a", 1)
        net.answer("a", asked.id, FailedReply("UCXL-503-UNAVAILABLE", "later", {"message": 1, "self": 2}))
        await caller.over.wait()
        assert isinstance(caller.outcome, Unavailable)

    await run(story, "a")


async def test_connections_are_reported_to_the_service(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        net.come("a")
        net.go("a")
        net.come("a")
        assert service.events == [("connected", "a"), ("disconnected", "a"), ("connected", "a")]

    await run(story)
