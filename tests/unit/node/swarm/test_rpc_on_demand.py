"""Requests to members that are not connected because no connection is kept with them: they wait for one dial."""

import pytest
import trio

from node.swarm.limits import SwarmLimits
from node.swarm.rpc import DIALS_MAX, Rpc, Unreachable
from protocols.messages import GetHeads, Ping, Pong
from tests.unit.node.swarm.rpc_stories import KEY, PONG, Caller, Clock, run
from tests.unit.one_end import OneEnd, RecordingService, unanswered


def dials(service: RecordingService) -> list[str]:
    return [peer for name, peer in service.events if name == "dialled"]


async def test_requests_to_an_idle_member_share_one_dial_and_go_out_after_it(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        service.idle["a"] = ""
        callers = [Caller(nursery, rpc, "a") for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        assert dials(service) == ["a"]
        assert net.requests("a") == []
        net.come("a")
        service.dial_over.set()
        for frame in await net.until_sent("a", 3):
            net.answer("a", frame.id, PONG)
        for caller in callers:
            await caller.over.wait()
            assert isinstance(caller.outcome, Pong)

    await run(story)


async def test_a_dial_that_fails_is_no_silence_of_the_peer(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        service.idle["a"] = "nothing listens there"
        service.dial_over.set()
        with pytest.raises(Unreachable, match="nothing listens there"):
            await rpc.call("a", Ping(), timeout=1.0)
        assert trio.current_time() == 0.0, "the caller learns it at once"
        assert service.missed_peers == []

    await run(story)


async def test_a_caller_whose_deadline_passes_during_the_dial_blames_nobody(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        service.idle["a"] = ""
        with pytest.raises(Unreachable, match="could not be connected within 100 ms"):
            await rpc.call("a", Ping(), timeout=0.1)
        number = rpc.ask("a", Ping(), lambda reply: None)
        assert number is not None and rpc.give_up("a", number, is_missed=True) is False
        net.come("a")
        service.dial_over.set()
        await trio.testing.wait_all_tasks_blocked()
        assert net.requests("a") == [], "nobody waits for an answer any more"
        assert service.missed_peers == []
        assert unanswered(rpc) == 0

    await run(story)


async def test_what_waits_for_a_dial_is_bounded(autojump_clock: Clock) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        peers = [f"p{number}" for number in range(DIALS_MAX + 2)]
        service.idle.update(dict.fromkeys(peers, "gone"))
        failed: list[object] = []
        for peer in peers:
            assert rpc.ask(peer, Ping(), failed.append) is not None
        assert rpc.ask(peers[0], Ping(), failed.append) is not None
        assert rpc.ask(peers[0], Ping(), failed.append) is None, "two requests may wait for one peer"
        await trio.testing.wait_all_tasks_blocked()
        assert len(dials(service)) == DIALS_MAX
        service.dial_over.set()
        await trio.testing.wait_all_tasks_blocked()
        assert len(failed) == len(peers) + 1

    await run(story, limits=SwarmLimits(in_flight_max=2))


async def test_a_connection_is_in_use_while_a_request_is_under_way_and_a_ping_of_this_node_is_no_use(
    autojump_clock: Clock,
) -> None:
    async def story(net: OneEnd, service: RecordingService, rpc: Rpc, nursery: trio.Nursery) -> None:
        await trio.sleep(30.0)
        assert rpc.idle_seconds("a") == 30.0
        number = rpc.ask("a", Ping(), lambda reply: None)
        assert number is not None
        assert rpc.idle_seconds("a") == 0.0, "an answer is under way"
        net.answer("a", number, PONG)
        assert rpc.idle_seconds("a") == 30.0
        number = rpc.ask("a", GetHeads(KEY, ()), lambda reply: None)
        assert number is not None
        rpc.give_up("a", number, is_missed=False)
        await trio.sleep(5.0)
        assert rpc.idle_seconds("a") == 5.0
        net.ask("a", 1, Ping())
        assert rpc.idle_seconds("a") == 0.0, "a peer that pings keeps this node"

    await run(story, "a")
