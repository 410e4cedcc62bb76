"""Delivery: batched, in order for each key, a bounded window, and each callback called once."""

import pytest
import trio
import trio.testing

from node.swarm import delivery as delivery_module
from node.swarm.delivery import BATCHES_MAX, SHORT_BATCHES, SHORT_MAX
from node.swarm.rpc import Silent, Unreachable
from node.trace import current, following
from protocols.messages import Merge
from tests.unit.node.swarm.deliveries import Clock, envelope, running, settled

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
