"""Delivery: each callback is called once, with what became of its envelope."""

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from node.swarm.delivery import BATCHES_MAX, QUEUE_MAX
from node.swarm.rpc import LATE_SECONDS, CallAbandoned, Silent, Unreachable
from protocols.errors import BadSignature, BzzzError, ClockAhead, Forbidden, Rejected, StorageFull, Unavailable
from protocols.messages import FailedReply, MergeReply, Pong, Refusal, Reply
from tests.unit.node.swarm.deliveries import Clock, Rig, envelope, names_in, running, settled

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
