"""Who may be here: lists that change while it runs, and what bad input costs."""

import logging
from collections.abc import Awaitable

import pytest
import trio
import trio.testing

from node.swarm.limit_counters import SILENCE_SECONDS
from node.swarm.limits import Limits
from node.swarm.peer_policy import BAD_ENVELOPES_MAX, REMEMBERED_MAX, Conduct
from node.swarm.rpc import Calls
from protocols.messages import Failed, Noted, Ping, Pong, Reply, Request, encode_request
from protocols.policy.reputation import Offence
from tests.unit.one_end import OneEnd, Told


@pytest.fixture
def parted() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def conduct(parted: list[tuple[str, str]]) -> Conduct:
    conduct = Conduct()
    conduct.part = lambda peer, reason: parted.append((peer, reason))
    return conduct


# -- the lists ----------------------------------------------------------------------------------------------------


async def test_without_lists_everyone_is_welcome_and_with_them_whom_they_name() -> None:
    assert Conduct().complaint("a") == ""
    conduct = Conduct(allow=["a", "b"], deny=["b", "c"])
    assert [conduct.is_listed(peer) for peer in "abcd"] == [True, False, False, False]
    assert conduct.complaint("d") == "it is not allowed here"


async def test_a_list_that_is_not_named_stays_and_listeners_hear_of_every_change() -> None:
    conduct, heard = Conduct(allow=["a"], deny=["b"]), []
    conduct.listeners.append(lambda: heard.append((conduct.allow, conduct.deny)))
    conduct.set_lists(deny=["c", "c"])
    conduct.set_lists(allow=[])
    assert heard == [(("a",), ("c",)), ((), ("c",))]


# -- offences -----------------------------------------------------------------------------------------------------


async def test_bad_input_costs_the_connection_and_then_the_place_and_time_gives_it_back(
    conduct: Conduct, parted: list[tuple[str, str]], mock_clock: trio.testing.MockClock
) -> None:
    conduct.blame("a", Offence.BROKEN_RULES, "sent nonsense")
    assert parted == []
    conduct.blame("a", Offence.BROKEN_RULES, "sent nonsense")
    assert parted == [("a", "it misbehaved: sent nonsense")]
    assert conduct.complaint("a") == ""
    for _ in range(2):
        conduct.blame("a", Offence.BROKEN_RULES, "sent nonsense")
    assert parted[-1] == ("a", "it misbehaved too often: sent nonsense")
    assert conduct.complaint("a") == "it misbehaved, and is not dealt with for another 600 s"
    assert conduct.complaint("b") == ""
    mock_clock.jump(601)
    assert conduct.complaint("a") == ""
    assert conduct.watch.counters.places_lost == 1
    assert conduct.watch.counters.offences == 4


async def test_whatever_a_peer_does_and_loses_it_has_one_line_a_minute(
    conduct: Conduct, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(4):
        conduct.blame("a", Offence.BROKEN_RULES, f"sent nonsense {number}")
    for _ in range(5):
        conduct.turn_away("a", conduct.complaint("a"))
    mock_clock.jump(SILENCE_SECONDS)
    conduct.turn_away("a", conduct.complaint("a"))
    assert [record.getMessage() for record in caplog.records] == [
        "a: broken rules: sent nonsense 0",
        "a: is turned away: it misbehaved, and is not dealt with for another 540 s (and 8 more like it before)",
    ]
    conduct.blame("b", Offence.BROKEN_RULES, "sent nonsense")
    mock_clock.jump(SILENCE_SECONDS)
    conduct.blame("b", Offence.BROKEN_RULES, "sent more of it")
    assert caplog.records[-1].getMessage() == "b: broken rules: sent more of it; it loses its connection"
    counters = conduct.watch.counters
    assert (counters.offences, counters.connections_forfeited) == (6, 3)
    assert (counters.places_lost, counters.turned_away) == (1, 6)


async def test_a_peer_whose_disk_went_bad_is_no_attacker(conduct: Conduct, parted: list[tuple[str, str]]) -> None:
    conduct.blame_for("a", [b"%d" % number for number in range(256)], were_asked_for=True)
    for _ in range(10_000):
        conduct.blame_for("a", [b"1"], were_asked_for=True)
    assert parted == []
    assert conduct.watch.counters.envelopes_refused == 10_256
    assert conduct.watch.counters.offences == BAD_ENVELOPES_MAX


async def test_who_goes_on_making_envelopes_up_loses_its_place(conduct: Conduct) -> None:
    for number in range(20):
        conduct.blame_for("a", [b"%d" % number], were_asked_for=False)
        conduct.blame_for("b", [b"the same"], were_asked_for=False)
    assert conduct.complaint("a")
    assert not conduct.complaint("b"), "sent again it is a nuisance, and no more"
    assert not conduct.complaint("c")
    for number in range(2 * REMEMBERED_MAX):
        conduct.blame_for("d", [b"%d" % number], were_asked_for=False)
    assert len(conduct._bad) <= REMEMBERED_MAX


async def test_a_pardon_gives_the_place_back(conduct: Conduct) -> None:
    conduct.blame("a", Offence.BROKEN_RULES, "sent nonsense", times=9)
    assert conduct.complaint("a")
    conduct.pardon("a")
    assert conduct.complaint("a") == ""


# -- calls ----------------------------------------------------------------------------------------------------------


class Slow(Told):
    """Answers nothing before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = trio.Event()

    def serve(self, peer: str, request: Request, trace: str) -> Awaitable[Reply]:
        async def answer() -> Reply:
            await self.may.wait()
            return Noted()

        return answer()


async def test_what_is_no_message_costs_the_connection_at_once_and_the_place_in_the_end(conduct: Conduct) -> None:
    net = OneEnd()
    calls = Calls(net, conduct=conduct)
    calls.served = Told()
    async with trio.open_nursery() as nursery:
        await nursery.start(calls.run)
        for _ in range(4):
            net.come("a")
            assert not conduct.complaint("a")
            net.garble("a", b"\xc1")
        assert [peer for peer, _ in net.given_up] == ["a"] * 4
        assert conduct.complaint("a")
        assert conduct.watch.counters.messages_malformed == 4
        nursery.cancel_scope.cancel()


async def test_an_answer_to_something_else_is_held_against_the_peer(conduct: Conduct) -> None:
    net = OneEnd()
    calls = Calls(net, conduct=conduct)
    calls.served = Told()
    async with trio.open_nursery() as nursery:
        await nursery.start(calls.run)
        net.come("a")
        number = calls.ask("a", Ping(), lambda reply: None)
        assert number is not None
        net.answer("a", number, Noted())
        net.answer("a", number, Pong(1, 0, 0))  # late
        net.answer("a", 999, Pong(1, 0, 0))  # from a former life
        assert conduct.watch.counters.answers_wrong == conduct.watch.counters.offences == 1
        nursery.cancel_scope.cancel()


async def test_too_many_or_too_large_requests_of_a_peer_are_refused_and_those_of_others_are_not(
    conduct: Conduct,
) -> None:
    net, slow = OneEnd(), Slow()
    size = len(encode_request(1, Ping(), "x" * 60))
    calls = Calls(net, conduct=conduct, limits=Limits(serving_bytes_max=3 * size, serving_bytes_in_all_max=5 * size))
    calls.served = slow
    async with trio.open_nursery() as nursery:
        await nursery.start(calls.run)
        net.come("a", "b")
        for number in range(1, 6):
            net.ask("a", number, Ping(), "x" * 60)
        assert refused(net, "a") == [4, 5]
        assert conduct.watch.counters.offences == 2
        for number in range(1, 4):
            net.ask("b", number, Ping(), "x" * 60)
        assert refused(net, "b") == [3], "all together have too much under way"
        assert conduct.watch.counters.offences == 2, "and that is nobody's fault"
        slow.may.set()
        await trio.testing.wait_all_tasks_blocked()
        net.ask("a", 6, Ping(), "x" * 60)
        assert refused(net, "a") == [4, 5]
        assert not calls._serving_bytes or set(calls._serving_bytes) == {"a"}
        nursery.cancel_scope.cancel()
    assert calls._serving_bytes_in_all == 0


def refused(net: OneEnd, peer: str) -> list[int]:
    return [number for number, reply in net.replies(peer) if isinstance(reply, Failed)]
