"""Answers to requests over frames: under their numbers, in any order, and no error of a peer ends the node."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from node.swarm.deferred_reply import DeferredReply
from node.swarm.limits import SwarmLimits
from node.swarm.rpc import Rpc, Silent
from protocols import message_codec
from protocols.errors import Conflict, Forbidden, StorageFull, TooManyRequests, Unavailable
from protocols.messages import FailedReply, GetHeads, GetMembers, HeadsReply, Merge, MergeReply, Ping, Reply
from tests.unit.node.swarm.rpc_stories import KEY, PONG, Caller, Clock, run
from tests.unit.one_end import OneEnd, RecordingService


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
