"""Which peers a node deals with: lists that change while the node runs, and what bad input costs a peer."""

import logging
from collections.abc import Awaitable

import pytest
import trio
import trio.testing

from node.swarm.limit_counters import SILENCE_SECONDS
from node.swarm.limits import SwarmLimits
from node.swarm.peer_policy import BAD_ENVELOPES_MAX, REMEMBERED_MAX, PeerPolicy
from node.swarm.rpc import Rpc
from protocols.message_codec import encode_request
from protocols.messages import ContentReply, FailedReply, Ping, Pong, Reply, Request
from protocols.policy.reputation import Offence
from tests.unit.one_end import OneEnd, RecordingService


@pytest.fixture
def disconnected() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def peer_policy(disconnected: list[tuple[str, str]]) -> PeerPolicy:
    peer_policy = PeerPolicy()
    peer_policy.on_forfeit(lambda peer, reason: disconnected.append((peer, reason)))
    return peer_policy


# -- the lists ----------------------------------------------------------------------------------------------------


async def test_without_lists_every_peer_is_allowed_and_with_lists_those_they_name() -> None:
    assert PeerPolicy().complaint("a") == ""
    peer_policy = PeerPolicy(allow=["a", "b"], deny=["b", "c"])
    assert [peer_policy.is_listed(peer) for peer in "abcd"] == [True, False, False, False]
    assert peer_policy.complaint("d") == "it is not allowed here"


async def test_a_list_that_is_not_given_stays_and_every_change_calls_back() -> None:
    peer_policy, seen = PeerPolicy(allow=["a"], deny=["b"]), []
    peer_policy.on_lists_changed(lambda: seen.append((peer_policy.allow, peer_policy.deny)))
    peer_policy.set_lists(deny=["c", "c"])
    peer_policy.set_lists(allow=[])
    assert seen == [(("a",), ("c",)), ((), ("c",))]


# -- offences -----------------------------------------------------------------------------------------------------


async def test_bad_input_costs_the_connection_and_then_bans_the_peer_for_a_time(
    peer_policy: PeerPolicy, disconnected: list[tuple[str, str]], mock_clock: trio.testing.MockClock
) -> None:
    peer_policy.blame("a", Offence.BROKEN_RULES, "sent nonsense")
    assert disconnected == []
    peer_policy.blame("a", Offence.BROKEN_RULES, "sent nonsense")
    assert disconnected == [("a", "it misbehaved: sent nonsense")]
    assert peer_policy.complaint("a") == ""
    for _ in range(2):
        peer_policy.blame("a", Offence.BROKEN_RULES, "sent nonsense")
    assert disconnected[-1] == ("a", "it misbehaved too often: sent nonsense")
    assert peer_policy.complaint("a") == "it misbehaved, and is banned for another 600 s"
    assert peer_policy.complaint("b") == ""
    mock_clock.jump(601)
    assert peer_policy.complaint("a") == ""
    assert peer_policy.limit_counters.counts.places_lost == 1
    assert peer_policy.limit_counters.counts.offences == 4


async def test_all_offences_of_a_peer_and_their_cost_share_one_line_a_minute(
    peer_policy: PeerPolicy, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(4):
        peer_policy.blame("a", Offence.BROKEN_RULES, f"sent nonsense {number}")
    for _ in range(5):
        peer_policy.refuse("a", peer_policy.complaint("a"))
    mock_clock.jump(SILENCE_SECONDS)
    peer_policy.refuse("a", peer_policy.complaint("a"))
    assert [record.getMessage() for record in caplog.records] == [
        "a: broken rules: sent nonsense 0",
        "a: is refused: it misbehaved, and is banned for another 540 s (and 8 more like it before)",
    ]
    peer_policy.blame("b", Offence.BROKEN_RULES, "sent nonsense")
    mock_clock.jump(SILENCE_SECONDS)
    peer_policy.blame("b", Offence.BROKEN_RULES, "sent more of it")
    assert caplog.records[-1].getMessage() == "b: broken rules: sent more of it; it loses its connection"
    counters = peer_policy.limit_counters.counts
    assert (counters.offences, counters.connections_forfeited) == (6, 3)
    assert (counters.places_lost, counters.turned_away) == (1, 6)


async def test_a_peer_with_a_broken_disk_is_no_attacker(
    peer_policy: PeerPolicy, disconnected: list[tuple[str, str]]
) -> None:
    peer_policy.blame_for("a", [b"%d" % number for number in range(256)], were_asked_for=True)
    for _ in range(10_000):
        peer_policy.blame_for("a", [b"1"], were_asked_for=True)
    assert disconnected == []
    assert peer_policy.limit_counters.counts.envelopes_refused == 10_256
    assert peer_policy.limit_counters.counts.offences == BAD_ENVELOPES_MAX


async def test_a_peer_that_goes_on_forging_envelopes_is_banned(peer_policy: PeerPolicy) -> None:
    for number in range(20):
        peer_policy.blame_for("a", [b"%d" % number], were_asked_for=False)
        peer_policy.blame_for("b", [b"the same"], were_asked_for=False)
    assert peer_policy.complaint("a")
    assert not peer_policy.complaint("b"), "the same envelope again is only a flood"
    assert not peer_policy.complaint("c")
    for number in range(2 * REMEMBERED_MAX):
        peer_policy.blame_for("d", [b"%d" % number], were_asked_for=False)
    # private: nothing but memory depends on how many are remembered
    assert len(peer_policy._bad_envelopes) <= REMEMBERED_MAX


async def test_a_pardon_ends_a_ban(peer_policy: PeerPolicy) -> None:
    peer_policy.blame("a", Offence.BROKEN_RULES, "sent nonsense", times=9)
    assert peer_policy.complaint("a")
    peer_policy.pardon("a")
    assert peer_policy.complaint("a") == ""


# -- calls ----------------------------------------------------------------------------------------------------------


class Slow(RecordingService):
    """Answers nothing before `may` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.may = trio.Event()

    def serve(self, peer: str, request: Request, trace: str) -> Awaitable[Reply]:
        async def answer() -> Reply:
            await self.may.wait()
            return ContentReply(b"")

        return answer()


async def test_a_malformed_message_costs_the_connection_at_once_and_bans_the_peer_in_the_end(
    peer_policy: PeerPolicy,
) -> None:
    net = OneEnd()
    rpc = Rpc(net, peer_policy=peer_policy)
    async with trio.open_nursery() as nursery:
        await nursery.start(rpc.run, RecordingService())
        for _ in range(4):
            net.come("a")
            assert not peer_policy.complaint("a")
            net.garble("a", b"\xc1")
        assert [peer for peer, _ in net.given_up] == ["a"] * 4
        assert peer_policy.complaint("a")
        assert peer_policy.limit_counters.counts.messages_malformed == 4
        nursery.cancel_scope.cancel()


async def test_an_answer_to_something_else_is_held_against_the_peer(peer_policy: PeerPolicy) -> None:
    net = OneEnd()
    rpc = Rpc(net, peer_policy=peer_policy)
    async with trio.open_nursery() as nursery:
        await nursery.start(rpc.run, RecordingService())
        net.come("a")
        number = rpc.ask("a", Ping(), lambda reply: None)
        assert number is not None
        net.answer("a", number, ContentReply(b""))
        net.answer("a", number, Pong(1, 0, 0))  # late
        net.answer("a", 999, Pong(1, 0, 0))  # from an earlier run
        assert peer_policy.limit_counters.counts.answers_wrong == peer_policy.limit_counters.counts.offences == 1
        nursery.cancel_scope.cancel()


async def test_too_many_or_too_large_requests_of_a_peer_are_refused_and_those_of_others_are_not(
    peer_policy: PeerPolicy,
) -> None:
    net, slow = OneEnd(), Slow()
    size = len(encode_request(1, Ping(), "x" * 60))
    rpc = Rpc(
        net, peer_policy=peer_policy, limits=SwarmLimits(serving_bytes_max=3 * size, serving_bytes_in_all_max=5 * size)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(rpc.run, slow)
        net.come("a", "b")
        for number in range(1, 6):
            net.ask("a", number, Ping(), "x" * 60)
        assert refused(net, "a") == [4, 5]
        assert peer_policy.limit_counters.counts.offences == 2
        for number in range(1, 4):
            net.ask("b", number, Ping(), "x" * 60)
        assert refused(net, "b") == [3], "both peers together have too much under way"
        assert peer_policy.limit_counters.counts.offences == 2, "and no peer is to blame"
        slow.may.set()
        await trio.testing.wait_all_tasks_blocked()
        net.ask("a", 6, Ping(), "x" * 60)
        assert refused(net, "a") == [4, 5]
        assert not rpc.load.requests or set(rpc.load.requests) == {"a"}
        nursery.cancel_scope.cancel()
    assert rpc.load.bytes_of_all == 0


def refused(net: OneEnd, peer: str) -> list[int]:
    return [number for number, reply in net.replies(peer) if isinstance(reply, FailedReply)]
