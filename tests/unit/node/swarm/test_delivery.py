"""Delivery: batched, in order for each key, a bounded window, and each callback called once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from node.swarm import delivery as delivery_module
from node.swarm.delivery import BATCHES_MAX, QUEUE_MAX, SHORT_BATCHES, SHORT_MAX, Delivery
from node.swarm.rpc import LATE_SECONDS, CallAbandoned, Silent, Unreachable
from node.trace import current, following
from protocols.envelope import Envelope, decode, seal
from protocols.errors import BadSignature, BzzzError, ClockAhead, Forbidden, Rejected, StorageFull, Unavailable
from protocols.keys import PrivateKey
from protocols.message_codec import Frame
from protocols.messages import FailedReply, Merge, MergeReply, Pong, Refusal, Reply
from tests.unit.one_end import OneEnd, RecordingService, rpc_over

Clock = trio.testing.MockClock
KEY = PrivateKey.from_seed(b"\5" * 32)
_ENVELOPES: dict[tuple[str, int, int], Envelope] = {}


def envelope(thing: str, version: int = 1, size_bytes: int = 0) -> Envelope:
    """A version of a thing; made once, because signing takes time."""
    if (thing, version, size_bytes) not in _ENVELOPES:
        _ENVELOPES[thing, version, size_bytes] = seal(
            KEY, address=f"ucxl://a:b@c:d/*^/{thing}", content=b"x" * size_bytes, content_type="text/plain",
            version=version, parents=(),
        )  # fmt: skip
    return _ENVELOPES[thing, version, size_bytes]


class Rig:
    """A `Delivery` that runs, the peers' side of its network, and the outcome of each delivery."""

    def __init__(self, net: OneEnd, service: RecordingService, delivery: Delivery) -> None:
        self.net = net
        self.service = service
        self.delivery = delivery
        self.outcomes: dict[str, list[BzzzError | None]] = {}
        self.order: list[str] = []

    def deliver(self, peer: str, item: Envelope, name: str = "") -> bool:
        name = name or f"{item.address.rpartition('/')[2]}{item.version}"

        def on_done(error: BzzzError | None) -> None:
            self.outcomes.setdefault(name, []).append(error)
            self.order.append(name)

        return self.delivery.deliver(peer, item, on_done)

    def batches(self, peer: str = "a") -> list[list[str]]:
        return [names_in(frame) for frame in self.net.requests(peer)]

    def answer(self, at: int, *refusals: tuple[int, BzzzError], peer: str = "a") -> None:
        """Acknowledge the batch with this index, with these refusals."""
        frame = self.net.requests(peer)[at]
        refused = tuple((at, Refusal.of(error)) for at, error in refusals)
        self.net.answer(peer, frame.id, MergeReply(len(names_in(frame)), refused))

    def reply(self, at: int, reply: Reply, peer: str = "a") -> None:
        self.net.answer(peer, self.net.requests(peer)[at].id, reply)

    @property
    def is_empty(self) -> bool:
        """Nothing is left of finished deliveries. Private members: nothing but memory depends on them."""
        return not self.delivery._queues and not self.delivery._to_send


def names_in(frame: Frame) -> list[str]:
    assert isinstance(frame.message, Merge)
    found = [decode(encoded) for encoded in frame.message.envelopes]
    return [f"{item.address.rpartition('/')[2]}{item.version}" for item in found]


@asynccontextmanager
async def running(*peers: str) -> AsyncIterator[Rig]:
    net, service = OneEnd(), RecordingService()
    async with rpc_over(net, service) as rpc, trio.open_nursery() as nursery:
        net.come(*peers)
        delivery = Delivery(rpc, timeout_seconds=1.0)
        nursery.start_soon(delivery.run)
        yield Rig(net, service, delivery)
        nursery.cancel_scope.cancel()


settled = trio.testing.wait_all_tasks_blocked


# -- traces -----------------------------------------------------------------------------------------------------


async def test_a_batch_of_one_call_has_its_trace_and_one_of_several_calls_has_them_all(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        with following("t1"):
            rig.deliver("a", envelope("x"))
            rig.deliver("a", envelope("y"))
        await settled()
        with following("t2"):
            rig.deliver("a", envelope("z"))
        rig.deliver("a", envelope("w"))
        await settled()
        rig.deliver("a", envelope("v"))
        await settled()
        frames = rig.net.requests("a")
        assert [(frame.trace, frame.message.traces) for frame in frames if isinstance(frame.message, Merge)] == [
            ("t1", ()), ("", ("t2", "")), ("", ()),
        ]  # fmt: skip


async def test_a_callback_runs_under_the_trace_of_its_delivery(autojump_clock: Clock) -> None:
    outcomes = []
    async with running("a") as rig:
        with following("t1"):
            rig.delivery.deliver("a", envelope("x"), lambda error: outcomes.append((error, current())))
        await settled()
        rig.answer(0)
    assert outcomes == [(None, "t1")]
    assert current() == ""


# -- batches ----------------------------------------------------------------------------------------------------


async def test_deliveries_of_one_turn_go_out_in_one_message_in_order(autojump_clock: Clock) -> None:
    async with running("a", "b") as rig:
        for number in (3, 1, 2):
            rig.deliver("a", envelope(f"t{number}-"))
            rig.deliver("b", envelope(f"t{number}-"), f"b{number}")
        await settled()
        assert rig.batches("a") == rig.batches("b") == [["t3-1", "t1-1", "t2-1"]]
        rig.answer(0)
        assert rig.outcomes == {"t3-1": [None], "t1-1": [None], "t2-1": [None]}
        rig.answer(0, peer="b")
        await settled()
        assert rig.outcomes["b1"] == [None]
        assert rig.is_empty


async def test_a_later_delivery_does_not_wait_for_an_earlier_answer(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        rig.deliver("a", envelope("x"))
        await settled()
        rig.deliver("a", envelope("y"))
        await settled()
        assert rig.batches() == [["x1"], ["y1"]]
        rig.answer(1)
        rig.answer(0)
        assert rig.order == ["y1", "x1"]


async def test_versions_of_one_key_may_share_a_message_in_order(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        for version in (1, 2, 3):
            rig.deliver("a", envelope("x", version))
        await settled()
        assert rig.batches() == [["x1", "x2", "x3"]]


async def test_a_version_waits_while_an_earlier_one_of_its_key_is_under_way_and_others_pass_it(
    autojump_clock: Clock,
) -> None:
    async with running("a") as rig:
        rig.deliver("a", envelope("x", 1))
        await settled()
        for item in (envelope("x", 2), envelope("y", 1), envelope("x", 3), envelope("y", 2)):
            rig.deliver("a", item)
        await settled()
        assert rig.batches() == [["x1"], ["y1", "y2"]]
        rig.deliver("a", envelope("x", 4))
        await settled()
        rig.answer(1)
        await settled()
        assert len(rig.batches()) == 2, "the answer for another key does not release it"
        rig.answer(0)
        await settled()
        assert rig.batches()[2:] == [["x2", "x3", "x4"]]


async def test_a_message_takes_nothing_more_above_its_size_and_one_large_envelope_goes_alone(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "BATCH_BYTES_MAX", 2000)
    async with running("a") as rig:
        for number, size in enumerate((600, 600, 600, 5000, 10)):
            rig.deliver("a", envelope(f"t{number}-", size_bytes=size))
        await settled()
        assert rig.batches() == [["t0-1", "t1-1"], ["t2-1"], ["t3-1"], ["t4-1"]]


async def test_envelopes_of_a_message_and_messages_of_a_peer_are_bounded(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "ENVELOPES_MAX", 3)
    monkeypatch.setattr(delivery_module, "SHORT_MAX", 3)
    async with running("a") as rig:
        for number in range(3 * BATCHES_MAX + 4):
            assert rig.deliver("a", envelope(f"t{number}-"))
        await settled()
        assert [len(batch) for batch in rig.batches()] == [3] * BATCHES_MAX
        rig.answer(5)
        await settled()
        assert [len(batch) for batch in rig.batches()] == [3] * (BATCHES_MAX + 1)
        rig.answer(0)
        await settled()
        assert rig.batches()[-1] == [f"t{3 * BATCHES_MAX + 3}-1"]
        for at in (1, 2, 3, 4, 6, 7, 8, 9):
            rig.answer(at)
        await settled()
        assert len(rig.outcomes) == 3 * BATCHES_MAX + 4
        assert rig.is_empty


async def test_the_first_messages_are_short_so_that_both_nodes_work_at_once(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        for number in range(SHORT_MAX * SHORT_BATCHES + 100):
            assert rig.deliver("a", envelope(f"t{number}-"))
        await settled()
        assert [len(batch) for batch in rig.batches()] == [SHORT_MAX] * SHORT_BATCHES + [100]
        rig.answer(0)
        await settled()
        for number in range(SHORT_MAX + 1):
            assert rig.deliver("a", envelope(f"u{number}-"))
        await settled()
        assert len(rig.batches()[-1]) == SHORT_MAX + 1, "while many are under way, they are as long as they may be"


async def test_a_short_message_that_is_full_goes_at_once(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        for number in range(2 * SHORT_MAX + 1):
            rig.deliver("a", envelope(f"t{number}-"))
        assert [len(batch) for batch in rig.batches()] == [SHORT_MAX] * 2, "no other task had a turn yet"
        await settled()
        assert [len(batch) for batch in rig.batches()] == [SHORT_MAX] * 2 + [1]
        await trio.sleep(1.1)
        assert {type(error) for errors in rig.outcomes.values() for error in errors} == {Silent}, (
            "it has a deadline too"
        )


async def test_a_full_message_that_cannot_be_sent_fails_later_and_may_be_delivered_again(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        rig.net.is_full = True
        names = [f"t{number}-" for number in range(SHORT_MAX)]
        for name in names:
            assert rig.deliver("a", envelope(name))
        assert rig.outcomes == {}, "no callback before `deliver` returns"
        await settled()
        assert [type(error) for errors in rig.outcomes.values() for error in errors] == [Unreachable] * SHORT_MAX
        assert rig.is_empty
        rig.net.is_full = False
        for name in names:
            rig.deliver("a", envelope(name), "again")
        await settled()
        rig.answer(0)
        assert rig.outcomes["again"] == [None] * SHORT_MAX


async def test_a_queue_is_bounded_and_a_refused_delivery_is_never_called_back(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "QUEUE_MAX", 2)
    async with running("a") as rig:
        assert rig.delivery.room("a") == 2
        assert rig.deliver("a", envelope("x"))
        assert rig.deliver("a", envelope("y"))
        assert rig.delivery.room("a") == 0
        assert not rig.deliver("a", envelope("z"))
        assert rig.deliver("a", envelope("x"), "again"), "what waits already takes no more room"
        assert rig.delivery.room("b") == 2
        await settled()
        assert rig.delivery.room("a") == 2, "what is under way does not wait"
        rig.answer(0)
        assert rig.outcomes == {"x1": [None], "again": [None], "y1": [None]}


async def test_concurrent_deliveries_of_an_envelope_are_coalesced(autojump_clock: Clock) -> None:
    async with running("a", "b") as rig:
        rig.deliver("a", envelope("x"), "handoff")
        await settled()
        rig.deliver("a", envelope("x"), "reader")
        rig.deliver("b", envelope("x"), "elsewhere")
        await settled()
        assert rig.batches() == [["x1"]]
        assert rig.batches("b") == [["x1"]], "to another peer it is another delivery"
        rig.answer(0)
        assert rig.order == ["handoff", "reader"]
        rig.deliver("a", envelope("x"), "later")
        await settled()
        assert len(rig.batches()) == 2, "a delivery after the end of the first is a new one"


# -- outcomes ---------------------------------------------------------------------------------------------------


async def test_each_refusal_reaches_its_own_callback_and_the_rest_is_committed(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        for thing in "wxyz":
            rig.deliver("a", envelope(thing))
        await settled()
        ahead = ClockAhead("ahead", reason="clock_ahead", ahead_ms=70_000)
        rig.answer(0, (1, BadSignature("forged")), (3, ahead))
        assert rig.outcomes["w1"] == rig.outcomes["y1"] == [None]
        (forged,), (late,) = rig.outcomes["x1"], rig.outcomes["z1"]
        assert isinstance(forged, Rejected)
        assert not forged.retryable
        assert isinstance(late, ClockAhead)
        assert late.details["ahead_ms"] == 70_000


async def test_a_refusal_delays_no_other_envelope_not_even_of_its_key(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        rig.deliver("a", envelope("x", 1))
        await settled()
        rig.deliver("a", envelope("x", 2))
        rig.answer(0, (0, Rejected("no")))
        await settled()
        assert rig.batches() == [["x1"], ["x2"]]


async def test_silence_is_a_miss_and_what_waits_behind_fails_with_it(autojump_clock: Clock) -> None:
    async with running("a", "b") as rig:
        rig.deliver("a", envelope("x", 1))
        await settled()
        rig.deliver("a", envelope("x", 2))
        rig.deliver("b", envelope("x", 2), "elsewhere")
        await trio.sleep(0.99)
        assert rig.outcomes == {}
        rig.answer(0, peer="b")
        await trio.sleep(0.02)
        assert rig.service.missed_peers == ["a"]
        for name in ("x1", "x2"):
            ((error,)) = rig.outcomes[name]
            assert type(error) is Silent
        assert rig.outcomes["elsewhere"] == [None]
        assert rig.batches() == [["x1"]], "the second version must not overtake the first"
        rig.answer(0)
        assert len(rig.outcomes["x1"]) == 1, "a late answer calls nothing back"
        await settled()
        assert rig.is_empty


async def test_other_messages_under_way_have_their_own_time(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        rig.deliver("a", envelope("x"))
        await trio.sleep(0.5)
        rig.deliver("a", envelope("y"))
        await trio.sleep(0.6)
        assert list(rig.outcomes) == ["x1"]
        rig.answer(1)
        assert rig.outcomes["y1"] == [None]


async def test_a_failed_envelope_can_be_delivered_again_by_its_callback(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        attempts: list[BzzzError | None] = []

        def again(error: BzzzError | None) -> None:
            attempts.append(error)
            if error is not None and len(attempts) < 4:
                assert rig.delivery.deliver("a", envelope("x", 1), again)
                assert rig.delivery.deliver(f"new{len(attempts)}", envelope("x", 1), lambda error: None)

        rig.delivery.deliver("a", envelope("x", 1), again)
        await settled()
        rig.deliver("a", envelope("x", 2))
        await trio.sleep(2.5)
        rig.answer(2)
        assert [type(attempt) for attempt in attempts] == [Silent, Silent, type(None)]
        assert rig.batches() == [["x1"], ["x1"], ["x1"]]
        await settled()
        assert rig.is_empty


async def test_a_large_batch_has_more_time(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        rig.deliver("a", envelope("x", size_bytes=1_000_000))
        await trio.sleep(1.9)
        assert rig.outcomes == {}
        await trio.sleep(0.2)
        assert rig.service.missed_peers == ["a"]


async def test_a_process_that_was_late_itself_blames_no_peer(mock_clock: Clock) -> None:
    async with running("a") as rig:
        rig.deliver("a", envelope("x", 1))
        await settled()
        rig.deliver("a", envelope("x", 2))
        await settled()
        mock_clock.jump(1.0 + LATE_SECONDS + 0.01)
        await settled()
        assert [type(error) for error in (*rig.outcomes["x1"], *rig.outcomes["x2"])] == [CallAbandoned, CallAbandoned]
        assert rig.service.missed_peers == []


async def test_a_peer_that_is_not_connected_is_unreachable_at_once(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        for thing in "xyz":
            rig.deliver("b", envelope(thing))
        await settled()
        assert [type(error) for errors in rig.outcomes.values() for error in errors] == [Unreachable] * 3
        assert rig.service.missed_peers == []
        rig.net.is_full = True
        rig.deliver("a", envelope("x"), "full")
        await settled()
        assert [type(error) for error in rig.outcomes["full"]] == [Unreachable]
        rig.net.is_full = False
        rig.deliver("a", envelope("x"), "again")
        await settled()
        assert rig.batches() == [["x1"]]


async def test_a_connection_that_ends_fails_everything_once_and_at_once(autojump_clock: Clock) -> None:
    async with running("a") as rig:
        for number in range(BATCHES_MAX):
            rig.deliver("a", envelope(f"t{number}-"))
            await settled()
        for version in (2, 3):
            rig.deliver("a", envelope("t0-", version))
        await settled()
        rig.net.go("a", "reset")
        assert trio.current_time() == 0.0
        assert len(rig.outcomes) == BATCHES_MAX + 2
        assert all([type(error) for error in errors] == [Silent] for errors in rig.outcomes.values())
        await settled()
        assert rig.is_empty
        rig.net.come("a")
        rig.deliver("a", envelope("t0-", 2), "again")
        await settled()
        rig.answer(len(rig.batches()) - 1)
        assert rig.outcomes["again"] == [None]


@pytest.mark.parametrize("reply", [Pong(1, 0, 0), MergeReply(2, ()), MergeReply(0, ())], ids=repr)
async def test_an_answer_that_does_not_fit_acknowledges_nothing(autojump_clock: Clock, reply: Reply) -> None:
    async with running("a") as rig:
        rig.deliver("a", envelope("x", 1))
        await settled()
        rig.deliver("a", envelope("x", 2))
        rig.reply(0, reply)
        assert [type(error) for error in (*rig.outcomes["x1"], *rig.outcomes["x2"])] == [Silent, Silent]


async def test_a_peer_that_cannot_take_anything_refuses_nothing_for_good(autojump_clock: Clock) -> None:
    """`Forbidden` without a hello, or a defect of the peer: it is about the moment, not the envelope."""
    async with running("a") as rig:
        for at, answered in enumerate((Forbidden("say hello first"), StorageFull("no room"), Unavailable("slow disk"))):
            rig.deliver("a", envelope("x"), f"x{at}")
            await settled()
            rig.reply(at, FailedReply.of(answered))
            (error,) = rig.outcomes[f"x{at}"]
            assert error is not None
            assert error.retryable
            assert answered.message in error.message
            assert answered.retryable == (type(error) is type(answered))


# -- whatever happens -------------------------------------------------------------------------------------------

THINGS, PEERS = "xyz", ("a", "b")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.sampled_from(PEERS), st.sampled_from(THINGS)),
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
def test_each_callback_is_called_once_and_no_peer_gets_versions_out_of_order(
    history: list[tuple[str, str, object]],
) -> None:
    async def story() -> None:
        async with running(*PEERS) as rig:
            versions = dict.fromkeys(THINGS, 0)
            delivered = 0
            for what, peer, value in history:
                open_numbers = [frame.id for frame in rig.net.requests(peer) if frame.id not in answered]
                match what, value:
                    case "deliver", str(thing):
                        versions[thing] += 1
                        assert rig.deliver(peer, envelope(thing, versions[thing]), f"{delivered}")
                        delivered += 1
                    case "answer" | "refuse" | "fail", int(at) if at < len(open_numbers):
                        number = open_numbers[at]
                        answered.add(number)
                        (frame,) = (f for f in rig.net.requests(peer) if f.id == number)
                        refusals = ((0, Refusal.of(Rejected("no"))),) if what == "refuse" else ()
                        reply = MergeReply(len(names_in(frame)), refusals)
                        rig.net.answer(
                            peer, number, FailedReply.of(StorageFull("no room")) if what == "fail" else reply
                        )
                    case "sleep", int(tenths):
                        await trio.sleep(tenths / 10)
                    case "reconnect", _:
                        rig.net.go(peer)
                        rig.net.come(peer)
                    case "fill", _:
                        rig.net.is_full = not rig.net.is_full
                    case _:
                        pass
                await settled()
                check_order(rig)
            await trio.sleep(10.0)
            assert sorted(rig.outcomes) == sorted(str(number) for number in range(delivered)), (
                "every callback is called"
            )
            assert all(len(errors) == 1 for errors in rig.outcomes.values()), "and once"
            assert rig.is_empty
            assert all(rig.delivery.room(peer) == QUEUE_MAX for peer in PEERS)

    def check_order(rig: Rig) -> None:
        for peer in PEERS:
            for thing in THINGS:
                sent = [int(name[1:]) for batch in rig.batches(peer) for name in batch if name[0] == thing]
                assert sent == sorted(set(sent)), f"{peer} got {thing} in the order {sent}"

    answered: set[int] = set()
    trio.run(story, clock=Clock(autojump_threshold=0))
