"""The courier: in order for each key, batched, a bounded window, and everybody who handed something in is told once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from node.swarm import delivery as courier_module
from node.swarm.delivery import BATCHES_MAX, QUEUE_MAX, SHORT_BATCHES, SHORT_MAX, Delivery
from node.swarm.rpc import LATE_SECONDS, CallAbandoned, Silent, Unreachable
from node.trace import current, following
from protocols.envelope import Envelope, decode, seal
from protocols.errors import BadSignature, BzzzError, ClockAhead, Forbidden, Rejected, StorageFull, Unavailable
from protocols.keys import PrivateKey
from protocols.message_codec import Frame
from protocols.messages import FailedReply, Merge, MergeReply, Pong, Refusal, Reply
from tests.unit.one_end import OneEnd, Told, calls_over

Clock = trio.testing.MockClock
KEY = PrivateKey.from_seed(b"\5" * 32)
_ENVELOPES: dict[tuple[str, int, int], Envelope] = {}


def envelope(thing: str, version: int = 1, size_bytes: int = 0) -> Envelope:
    """A version of a thing; made once, for signing takes its time."""
    if (thing, version, size_bytes) not in _ENVELOPES:
        _ENVELOPES[thing, version, size_bytes] = seal(
            KEY, address=f"ucxl://a:b@c:d/*^/{thing}", content=b"x" * size_bytes, content_type="text/plain",
            version=version, parents=(),
        )  # fmt: skip
    return _ENVELOPES[thing, version, size_bytes]


class Post:
    """A courier that runs, the other side of its network, and what became of what was handed in."""

    def __init__(self, net: OneEnd, told: Told, delivery: Delivery) -> None:
        self.net = net
        self.told = told
        self.delivery = delivery
        self.outcomes: dict[str, list[BzzzError | None]] = {}
        self.order: list[str] = []

    def hand_in(self, peer: str, item: Envelope, name: str = "") -> bool:
        name = name or f"{item.address.rpartition('/')[2]}{item.version}"

        def done(error: BzzzError | None) -> None:
            self.outcomes.setdefault(name, []).append(error)
            self.order.append(name)

        return self.delivery.deliver(peer, item, done)

    def batches(self, peer: str = "a") -> list[list[str]]:
        return [names_in(frame) for frame in self.net.requests(peer)]

    def answer(self, at: int, *refusals: tuple[int, BzzzError], peer: str = "a") -> None:
        """Answer the batch of that number."""
        frame = self.net.requests(peer)[at]
        refused = tuple((at, Refusal.of(error)) for at, error in refusals)
        self.net.answer(peer, frame.id, MergeReply(len(names_in(frame)), refused))

    def reply(self, at: int, reply: Reply, peer: str = "a") -> None:
        self.net.answer(peer, self.net.requests(peer)[at].id, reply)

    @property
    def is_empty(self) -> bool:
        """Nothing is kept of what is over."""
        return not self.delivery._routes and not self.delivery._dirty


def names_in(frame: Frame) -> list[str]:
    assert isinstance(frame.message, Merge)
    found = [decode(encoded) for encoded in frame.message.envelopes]
    return [f"{item.address.rpartition('/')[2]}{item.version}" for item in found]


@asynccontextmanager
async def post(*peers: str) -> AsyncIterator[Post]:
    net, told = OneEnd(), Told()
    async with calls_over(net, told) as calls, trio.open_nursery() as nursery:
        net.come(*peers)
        delivery = Delivery(calls, timeout_seconds=1.0)
        nursery.start_soon(delivery.run)
        yield Post(net, told, delivery)
        nursery.cancel_scope.cancel()


settled = trio.testing.wait_all_tasks_blocked


# -- traces -----------------------------------------------------------------------------------------------------


async def test_a_batch_of_one_call_has_its_trace_and_one_of_several_calls_has_them_all(autojump_clock: Clock) -> None:
    async with post("a") as p:
        with following("t1"):
            p.hand_in("a", envelope("x"))
            p.hand_in("a", envelope("y"))
        await settled()
        with following("t2"):
            p.hand_in("a", envelope("z"))
        p.hand_in("a", envelope("w"))
        await settled()
        p.hand_in("a", envelope("v"))
        await settled()
        frames = p.net.requests("a")
        assert [(frame.trace, frame.message.traces) for frame in frames if isinstance(frame.message, Merge)] == [
            ("t1", ()), ("", ("t2", "")), ("", ()),
        ]  # fmt: skip


async def test_who_handed_it_in_is_told_under_the_trace_of_that_call(autojump_clock: Clock) -> None:
    told = []
    async with post("a") as p:
        with following("t1"):
            p.delivery.deliver("a", envelope("x"), lambda error: told.append((error, current())))
        await settled()
        p.answer(0)
    assert told == [(None, "t1")]
    assert current() == ""


# -- batches ----------------------------------------------------------------------------------------------------


async def test_what_is_handed_in_in_one_turn_goes_out_in_one_message_in_order(autojump_clock: Clock) -> None:
    async with post("a", "b") as p:
        for number in (3, 1, 2):
            p.hand_in("a", envelope(f"t{number}-"))
            p.hand_in("b", envelope(f"t{number}-"), f"b{number}")
        await settled()
        assert p.batches("a") == p.batches("b") == [["t3-1", "t1-1", "t2-1"]]
        p.answer(0)
        assert p.outcomes == {"t3-1": [None], "t1-1": [None], "t2-1": [None]}
        p.answer(0, peer="b")
        await settled()
        assert p.outcomes["b1"] == [None]
        assert p.is_empty


async def test_what_is_handed_in_later_does_not_wait_for_an_earlier_answer(autojump_clock: Clock) -> None:
    async with post("a") as p:
        p.hand_in("a", envelope("x"))
        await settled()
        p.hand_in("a", envelope("y"))
        await settled()
        assert p.batches() == [["x1"], ["y1"]]
        p.answer(1)
        p.answer(0)
        assert p.order == ["y1", "x1"]


async def test_versions_of_one_key_may_share_a_message_in_order(autojump_clock: Clock) -> None:
    async with post("a") as p:
        for version in (1, 2, 3):
            p.hand_in("a", envelope("x", version))
        await settled()
        assert p.batches() == [["x1", "x2", "x3"]]


async def test_a_version_waits_while_an_earlier_one_of_its_key_is_under_way_and_others_pass_it(
    autojump_clock: Clock,
) -> None:
    async with post("a") as p:
        p.hand_in("a", envelope("x", 1))
        await settled()
        for item in (envelope("x", 2), envelope("y", 1), envelope("x", 3), envelope("y", 2)):
            p.hand_in("a", item)
        await settled()
        assert p.batches() == [["x1"], ["y1", "y2"]]
        p.hand_in("a", envelope("x", 4))
        await settled()
        p.answer(1)
        await settled()
        assert len(p.batches()) == 2, "another key's answer does not set it free"
        p.answer(0)
        await settled()
        assert p.batches()[2:] == [["x2", "x3", "x4"]]


async def test_a_message_takes_nothing_more_above_its_size_and_one_large_envelope_goes_alone(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "BATCH_BYTES_MAX", 2000)
    async with post("a") as p:
        for number, size in enumerate((600, 600, 600, 5000, 10)):
            p.hand_in("a", envelope(f"t{number}-", size_bytes=size))
        await settled()
        assert p.batches() == [["t0-1", "t1-1"], ["t2-1"], ["t3-1"], ["t4-1"]]


async def test_a_message_has_so_many_envelopes_and_a_peer_so_many_messages(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "ENVELOPES_MAX", 3)
    monkeypatch.setattr(courier_module, "SHORT_MAX", 3)
    async with post("a") as p:
        for number in range(3 * BATCHES_MAX + 4):
            assert p.hand_in("a", envelope(f"t{number}-"))
        await settled()
        assert [len(batch) for batch in p.batches()] == [3] * BATCHES_MAX
        p.answer(5)
        await settled()
        assert [len(batch) for batch in p.batches()] == [3] * (BATCHES_MAX + 1)
        p.answer(0)
        await settled()
        assert p.batches()[-1] == [f"t{3 * BATCHES_MAX + 3}-1"]
        for at in (1, 2, 3, 4, 6, 7, 8, 9):
            p.answer(at)
        await settled()
        assert len(p.outcomes) == 3 * BATCHES_MAX + 4
        assert p.is_empty


async def test_the_first_messages_are_short_so_that_both_nodes_work_at_once(autojump_clock: Clock) -> None:
    async with post("a") as p:
        for number in range(SHORT_MAX * SHORT_BATCHES + 100):
            assert p.hand_in("a", envelope(f"t{number}-"))
        await settled()
        assert [len(batch) for batch in p.batches()] == [SHORT_MAX] * SHORT_BATCHES + [100]
        p.answer(0)
        await settled()
        for number in range(SHORT_MAX + 1):
            assert p.hand_in("a", envelope(f"u{number}-"))
        await settled()
        assert len(p.batches()[-1]) == SHORT_MAX + 1, "while many are under way, they are as long as they may be"


async def test_a_short_message_that_is_full_goes_at_once(autojump_clock: Clock) -> None:
    async with post("a") as p:
        for number in range(2 * SHORT_MAX + 1):
            p.hand_in("a", envelope(f"t{number}-"))
        assert [len(batch) for batch in p.batches()] == [SHORT_MAX] * 2, "nobody else had a turn yet"
        await settled()
        assert [len(batch) for batch in p.batches()] == [SHORT_MAX] * 2 + [1]
        await trio.sleep(1.1)
        assert {type(error) for errors in p.outcomes.values() for error in errors} == {Silent}, "it has a deadline too"


async def test_one_that_cannot_go_fails_later_and_may_be_handed_in_again(autojump_clock: Clock) -> None:
    async with post("a") as p:
        p.net.is_full = True
        names = [f"t{number}-" for number in range(SHORT_MAX)]
        for name in names:
            assert p.hand_in("a", envelope(name))
        assert p.outcomes == {}, "who hands something in is told after that"
        await settled()
        assert [type(error) for errors in p.outcomes.values() for error in errors] == [Unreachable] * SHORT_MAX
        assert p.is_empty
        p.net.is_full = False
        for name in names:
            p.hand_in("a", envelope(name), "again")
        await settled()
        p.answer(0)
        assert p.outcomes["again"] == [None] * SHORT_MAX


async def test_a_queue_has_a_size_and_who_is_refused_is_not_told_anything_later(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "QUEUE_MAX", 2)
    async with post("a") as p:
        assert p.delivery.room("a") == 2
        assert p.hand_in("a", envelope("x"))
        assert p.hand_in("a", envelope("y"))
        assert p.delivery.room("a") == 0
        assert not p.hand_in("a", envelope("z"))
        assert p.hand_in("a", envelope("x"), "again"), "what waits already takes no more room"
        assert p.delivery.room("b") == 2
        await settled()
        assert p.delivery.room("a") == 2, "what is under way does not wait"
        p.answer(0)
        assert p.outcomes == {"x1": [None], "again": [None], "y1": [None]}


async def test_who_brings_what_is_under_way_joins_it(autojump_clock: Clock) -> None:
    async with post("a", "b") as p:
        p.hand_in("a", envelope("x"), "publisher")
        await settled()
        p.hand_in("a", envelope("x"), "reader")
        p.hand_in("b", envelope("x"), "elsewhere")
        await settled()
        assert p.batches() == [["x1"]]
        assert p.batches("b") == [["x1"]], "to another peer it is another delivery"
        p.answer(0)
        assert p.order == ["publisher", "reader"]
        p.hand_in("a", envelope("x"), "later")
        await settled()
        assert len(p.batches()) == 2, "once it is over, it is brought again"


# -- outcomes ---------------------------------------------------------------------------------------------------


async def test_each_refusal_reaches_its_own_and_the_rest_is_committed(autojump_clock: Clock) -> None:
    async with post("a") as p:
        for thing in "wxyz":
            p.hand_in("a", envelope(thing))
        await settled()
        ahead = ClockAhead("ahead", reason="clock_ahead", ahead_ms=70_000)
        p.answer(0, (1, BadSignature("forged")), (3, ahead))
        assert p.outcomes["w1"] == p.outcomes["y1"] == [None]
        (forged,), (late,) = p.outcomes["x1"], p.outcomes["z1"]
        assert isinstance(forged, Rejected)
        assert not forged.retryable
        assert isinstance(late, ClockAhead)
        assert late.details["ahead_ms"] == 70_000


async def test_a_refusal_holds_up_nobody_else_not_even_of_its_key(autojump_clock: Clock) -> None:
    async with post("a") as p:
        p.hand_in("a", envelope("x", 1))
        await settled()
        p.hand_in("a", envelope("x", 2))
        p.answer(0, (0, Rejected("no")))
        await settled()
        assert p.batches() == [["x1"], ["x2"]]


async def test_silence_is_a_miss_and_what_waits_behind_fails_with_it(autojump_clock: Clock) -> None:
    async with post("a", "b") as p:
        p.hand_in("a", envelope("x", 1))
        await settled()
        p.hand_in("a", envelope("x", 2))
        p.hand_in("b", envelope("x", 2), "elsewhere")
        await trio.sleep(0.99)
        assert p.outcomes == {}
        p.answer(0, peer="b")
        await trio.sleep(0.02)
        assert p.told.missed_peers == ["a"]
        for name in ("x1", "x2"):
            ((error,)) = p.outcomes[name]
            assert type(error) is Silent
        assert p.outcomes["elsewhere"] == [None]
        assert p.batches() == [["x1"]], "the second version must not overtake the first"
        p.answer(0)
        assert len(p.outcomes["x1"]) == 1, "an answer that comes late finds nobody"
        await settled()
        assert p.is_empty


async def test_other_messages_under_way_have_their_own_time(autojump_clock: Clock) -> None:
    async with post("a") as p:
        p.hand_in("a", envelope("x"))
        await trio.sleep(0.5)
        p.hand_in("a", envelope("y"))
        await trio.sleep(0.6)
        assert list(p.outcomes) == ["x1"]
        p.answer(1)
        assert p.outcomes["y1"] == [None]


async def test_what_fails_can_be_handed_in_again_at_once_by_who_is_told(autojump_clock: Clock) -> None:
    async with post("a") as p:
        attempts: list[BzzzError | None] = []

        def again(error: BzzzError | None) -> None:
            attempts.append(error)
            if error is not None and len(attempts) < 4:
                assert p.delivery.deliver("a", envelope("x", 1), again)
                assert p.delivery.deliver(f"new{len(attempts)}", envelope("x", 1), lambda error: None)

        p.delivery.deliver("a", envelope("x", 1), again)
        await settled()
        p.hand_in("a", envelope("x", 2))
        await trio.sleep(2.5)
        p.answer(2)
        assert [type(attempt) for attempt in attempts] == [Silent, Silent, type(None)]
        assert p.batches() == [["x1"], ["x1"], ["x1"]]
        await settled()
        assert p.is_empty


async def test_a_large_batch_has_more_time(autojump_clock: Clock) -> None:
    async with post("a") as p:
        p.hand_in("a", envelope("x", size_bytes=1_000_000))
        await trio.sleep(1.9)
        assert p.outcomes == {}
        await trio.sleep(0.2)
        assert p.told.missed_peers == ["a"]


async def test_who_was_late_itself_blames_nobody(mock_clock: Clock) -> None:
    async with post("a") as p:
        p.hand_in("a", envelope("x", 1))
        await settled()
        p.hand_in("a", envelope("x", 2))
        await settled()
        mock_clock.jump(1.0 + LATE_SECONDS + 0.01)
        await settled()
        assert [type(error) for error in (*p.outcomes["x1"], *p.outcomes["x2"])] == [CallAbandoned, CallAbandoned]
        assert p.told.missed_peers == []


async def test_who_is_not_connected_is_unreachable_at_once(autojump_clock: Clock) -> None:
    async with post("a") as p:
        for thing in "xyz":
            p.hand_in("b", envelope(thing))
        await settled()
        assert [type(error) for errors in p.outcomes.values() for error in errors] == [Unreachable] * 3
        assert p.told.missed_peers == []
        p.net.is_full = True
        p.hand_in("a", envelope("x"), "full")
        await settled()
        assert [type(error) for error in p.outcomes["full"]] == [Unreachable]
        p.net.is_full = False
        p.hand_in("a", envelope("x"), "again")
        await settled()
        assert p.batches() == [["x1"]]


async def test_a_connection_that_ends_fails_everything_once_and_at_once(autojump_clock: Clock) -> None:
    async with post("a") as p:
        for number in range(BATCHES_MAX):
            p.hand_in("a", envelope(f"t{number}-"))
            await settled()
        for version in (2, 3):
            p.hand_in("a", envelope("t0-", version))
        await settled()
        p.net.go("a", "reset")
        assert trio.current_time() == 0.0
        assert len(p.outcomes) == BATCHES_MAX + 2
        assert all([type(error) for error in errors] == [Silent] for errors in p.outcomes.values())
        await settled()
        assert p.is_empty
        p.net.come("a")
        p.hand_in("a", envelope("t0-", 2), "again")
        await settled()
        p.answer(len(p.batches()) - 1)
        assert p.outcomes["again"] == [None]


@pytest.mark.parametrize("reply", [Pong(1, 0, 0), MergeReply(2, ()), MergeReply(0, ())], ids=repr)
async def test_an_answer_that_does_not_fit_acknowledges_nothing(autojump_clock: Clock, reply: Reply) -> None:
    async with post("a") as p:
        p.hand_in("a", envelope("x", 1))
        await settled()
        p.hand_in("a", envelope("x", 2))
        p.reply(0, reply)
        assert [type(error) for error in (*p.outcomes["x1"], *p.outcomes["x2"])] == [Silent, Silent]


async def test_a_peer_that_cannot_take_anything_refuses_nothing_for_good(autojump_clock: Clock) -> None:
    """`Forbidden` for want of a hello, or a defect over there: it concerns the moment, not the envelope."""
    async with post("a") as p:
        for at, answered in enumerate((Forbidden("say hello first"), StorageFull("no room"), Unavailable("slow disk"))):
            p.hand_in("a", envelope("x"), f"x{at}")
            await settled()
            p.reply(at, FailedReply.of(answered))
            (error,) = p.outcomes[f"x{at}"]
            assert error is not None
            assert error.retryable
            assert answered.message in error.message
            assert answered.retryable == (type(error) is type(answered))


# -- whatever happens -------------------------------------------------------------------------------------------

THINGS, PEERS = "xyz", ("a", "b")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("hand in"), st.sampled_from(PEERS), st.sampled_from(THINGS)),
        st.tuples(st.just("answer"), st.sampled_from(PEERS), st.integers(0, 3)),
        st.tuples(st.just("refuse"), st.sampled_from(PEERS), st.integers(0, 3)),
        st.tuples(st.just("fail"), st.sampled_from(PEERS), st.integers(0, 3)),
        st.tuples(st.just("sleep"), st.sampled_from(PEERS), st.integers(1, 6)),
        st.tuples(st.just("reconnect"), st.sampled_from(PEERS), st.just(0)),
        st.tuples(st.just("fill"), st.sampled_from(PEERS), st.just(0)),
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(steps)
def test_everybody_is_told_once_and_no_peer_gets_versions_out_of_order(history: list[tuple[str, str, object]]) -> None:
    async def story() -> None:
        async with post(*PEERS) as p:
            versions = dict.fromkeys(THINGS, 0)
            handed = 0
            for what, peer, value in history:
                open_numbers = [frame.id for frame in p.net.requests(peer) if frame.id not in answered]
                match what, value:
                    case "hand in", str(thing):
                        versions[thing] += 1
                        assert p.hand_in(peer, envelope(thing, versions[thing]), f"{handed}")
                        handed += 1
                    case "answer" | "refuse" | "fail", int(at) if at < len(open_numbers):
                        number = open_numbers[at]
                        answered.add(number)
                        (frame,) = (f for f in p.net.requests(peer) if f.id == number)
                        refusals = ((0, Refusal.of(Rejected("no"))),) if what == "refuse" else ()
                        reply = MergeReply(len(names_in(frame)), refusals)
                        p.net.answer(peer, number, FailedReply.of(StorageFull("no room")) if what == "fail" else reply)
                    case "sleep", int(tenths):
                        await trio.sleep(tenths / 10)
                    case "reconnect", _:
                        p.net.go(peer)
                        p.net.come(peer)
                    case "fill", _:
                        p.net.is_full = not p.net.is_full
                    case _:
                        pass
                await settled()
                check_order(p)
            await trio.sleep(10.0)
            assert sorted(p.outcomes) == sorted(str(number) for number in range(handed)), "everybody is told"
            assert all(len(errors) == 1 for errors in p.outcomes.values()), "and once"
            assert p.is_empty
            assert all(p.delivery.room(peer) == QUEUE_MAX for peer in PEERS)

    def check_order(p: Post) -> None:
        for peer in PEERS:
            for thing in THINGS:
                sent = [int(name[1:]) for batch in p.batches(peer) for name in batch if name[0] == thing]
                assert sent == sorted(set(sent)), f"{peer} got {thing} in the order {sent}"

    answered: set[int] = set()
    trio.run(story, clock=Clock(autojump_threshold=0))
