"""The failure detector: pings, suspicion, connections that are given up, and ticks that are late themselves."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.policy.failure_detector import (
    ConnectionClosed,
    ConnectionOpened,
    DeadlineMissed,
    Effect,
    Event,
    FailureDetector,
    FrameReceived,
    GiveUp,
    Kept,
    PingReceived,
    PongReceived,
    SendPing,
    Suspected,
    Trusted,
)
from protocols.policy.machine import Tick
from tests.unit.ticks import due, run_until


def connected(*peers: str, now: float = 0.0) -> FailureDetector:
    """Pings every 2 s, suspects every 0.25 s, gives up after 5 s, and is late itself after 0.5 s."""
    machine = FailureDetector(ping_seconds=2.0, give_up_seconds=5.0)
    for peer in peers:
        assert machine.handle(ConnectionOpened(peer), now) == ()
    return machine


def test_without_a_connection_it_waits_for_nothing() -> None:
    machine = FailureDetector()
    assert machine.deadline is None
    for event in (Tick(), FrameReceived("a"), PongReceived("a"), DeadlineMissed("a"), ConnectionClosed("a")):
        assert machine.handle(event, 1.0) == ()
    assert machine.deadline is None
    assert machine.heard_at("a") is None
    assert not machine.is_suspect("a")


def test_a_connected_peer_is_pinged_all_the_time() -> None:
    machine = connected("a")
    for second in (2.0, 4.0, 6.0):
        assert run_until(machine, second) == [(second, SendPing("a"))]
        assert machine.handle(PongReceived("a"), second) == ()
    machine.handle(FrameReceived("a"), 7.9)
    assert run_until(machine, 8.0) == [(8.0, SendPing("a"))], "also when frames come: a pong carries more than life"


def test_a_ping_that_serves_this_end_takes_the_place_of_its_own() -> None:
    machine = FailureDetector(ping_seconds=2.0, give_up_seconds=5.0)
    machine.handle(ConnectionOpened("a", leads=False), 0.0)
    for second in (2.0, 4.0, 6.0):
        assert run_until(machine, second) == [], "the other end leads"
        assert machine.handle(PingReceived("a"), second) == ()
    assert run_until(machine, 8.25) == [(8.25, SendPing("a"))], "the other one did not come"
    machine.handle(PongReceived("a"), 8.25)
    assert run_until(machine, 10.5) == [(10.5, SendPing("a"))]


def test_a_suspect_has_to_answer_whatever_it_asks() -> None:
    machine = connected("a")
    machine.handle(DeadlineMissed("a"), 1.0)
    assert machine.handle(PingReceived("a"), 1.1) == ()
    assert machine.is_suspect("a")
    assert run_until(machine, 1.3) == [(1.25, SendPing("a"))]


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.3])
def test_of_two_ends_one_pings_and_both_are_served(delay: float) -> None:
    """Each ping and each pong takes `delay`. Both ends ping when they connect, as nodes do."""
    ends = {name: FailureDetector(ping_seconds=2.0, give_up_seconds=5.0) for name in "ab"}
    other = {"a": "b", "b": "a"}
    arriving: list[tuple[float, str, Event]] = []
    pings: list[tuple[float, str]] = []
    now = 0.0

    def sent(name: str, effects: Sequence[Effect]) -> None:
        for effect in effects:
            assert effect == SendPing(other[name])
            pings.append((now, name))
            arriving.append((now + delay, other[name], PingReceived(name)))
            arriving.append((now + 2 * delay, name, PongReceived(other[name])))

    for name, end in ends.items():
        end.handle(ConnectionOpened(other[name], leads=name == "a"), now)
        sent(name, (SendPing(other[name]),))
    while now < 20.0:
        arriving.sort(key=lambda each: each[0])
        next_tick = min(due(end) for end in ends.values())
        if arriving and arriving[0][0] <= next_tick:
            now, name, event = arriving.pop(0)
            sent(name, ends[name].handle(event, now))
        else:
            now = next_tick
            for name, end in ends.items():
                sent(name, end.handle(Tick(), now))
    later = [name for at, name in pings if 5.0 < at < 19.0]
    assert later == ["a"] * 7, "one of them, every two seconds, however far they are from each other"


@pytest.mark.parametrize("tick", [0.0, 1.0, 1.99])
def test_an_early_tick_is_harmless(tick: float) -> None:
    machine = connected("a")
    assert machine.handle(Tick(), tick) == ()
    assert run_until(machine, 2.0) == [(2.0, SendPing("a"))]
    assert machine.handle(Tick(), 2.0) == (), "and so is a doubled one"


def test_a_peer_that_missed_a_deadline_is_suspect_at_once_and_pinged_more_often() -> None:
    machine = connected("a", "b")
    assert machine.handle(DeadlineMissed("a"), 1.0) == (Suspected("a"), SendPing("a"))
    assert machine.is_suspect("a")
    assert not machine.is_suspect("b")
    assert machine.handle(DeadlineMissed("a"), 1.1) == (), "once"
    assert run_until(machine, 1.9) == [(1.25, SendPing("a")), (1.5, SendPing("a")), (1.75, SendPing("a"))]


def test_a_suspect_is_trusted_again_when_it_answers_a_ping_and_not_before() -> None:
    machine = connected("a")
    machine.handle(DeadlineMissed("a"), 1.0)
    assert machine.handle(FrameReceived("a"), 1.1) == ()
    assert machine.is_suspect("a"), "what it sent before it froze may come at any time"
    assert machine.handle(PongReceived("a"), 1.2) == (Trusted("a"),)
    assert not machine.is_suspect("a")
    assert machine.handle(PongReceived("a"), 1.3) == ()
    assert [at for at, _ in run_until(machine, 3.4)] == [pytest.approx(3.2)]


def test_a_connection_without_a_sign_of_life_is_given_up() -> None:
    machine = connected("a", "b")
    machine.handle(DeadlineMissed("a"), 1.0)
    machine.handle(FrameReceived("b"), 4.5)
    effects = run_until(machine, 5.0)
    assert effects[-1] == (5.0, GiveUp("a", 5.0))
    assert machine.heard_at("a") is None
    assert not machine.is_suspect("a")
    assert machine.handle(ConnectionClosed("a"), 5.0) == ()
    assert all(effect == SendPing("b") for _, effect in run_until(machine, 9.0)), "nothing more of the one that is gone"


def test_any_frame_postpones_giving_up() -> None:
    machine = connected("a")
    machine.handle(FrameReceived("a"), 4.9)
    assert [effect for _, effect in run_until(machine, 9.8)] == [SendPing("a")] * 4
    assert run_until(machine, 9.9)[-1] == (9.9, GiveUp("a", pytest.approx(5.0)))  # type: ignore[arg-type]


def test_after_a_late_tick_no_peer_is_blamed_and_every_peer_is_pinged() -> None:
    machine = connected("a", "b")
    machine.handle(DeadlineMissed("b"), 1.0)
    assert list(machine.handle(Tick(), 60.0)) == [SendPing("a"), SendPing("b")]
    assert machine.is_suspect("b"), "it still has to answer"
    assert [effect for _, effect in run_until(machine, 64.9)].count(SendPing("a")) == 2
    assert {effect for _, effect in run_until(machine, 65.0)} == {GiveUp("a", 5.0), GiveUp("b", 5.0)}


def test_events_before_the_late_tick_do_not_hide_that_it_is_late() -> None:
    """A process that was stopped gets the waiting frames and missed deadlines before its timer fires."""
    machine = connected("a", "b")
    machine.handle(FrameReceived("a"), 60.0)
    machine.handle(PongReceived("a"), 60.0)
    machine.handle(DeadlineMissed("a"), 60.0)
    machine.handle(ConnectionOpened("c"), 60.0)
    assert not [effect for effect in machine.handle(Tick(), 60.0) if isinstance(effect, GiveUp)]


def test_a_peer_that_connects_anew_starts_anew() -> None:
    machine = connected("a")
    machine.handle(DeadlineMissed("a"), 1.0)
    assert machine.handle(ConnectionClosed("a"), 1.1) == ()
    assert machine.deadline is None
    assert machine.handle(ConnectionOpened("a"), 3.0) == ()
    assert not machine.is_suspect("a")
    assert run_until(machine, 5.0) == [(5.0, SendPing("a"))]


def test_a_connection_that_replaces_another_clears_the_suspicion_with_an_effect() -> None:
    machine = connected("a")
    machine.handle(DeadlineMissed("a"), 1.0)
    assert machine.handle(ConnectionOpened("a"), 1.1) == (Trusted("a"),)


def test_a_frame_costs_the_same_however_many_peers_there_are() -> None:
    """Counted in peers that are examined, not in seconds; no task wakes, because the deadline does not move."""
    looked: list[object] = []

    class Counting(FailureDetector):
        def _due(self, pulse: Any) -> float:
            looked.append(pulse)
            return super()._due(pulse)

    machine = Counting(ping_seconds=2.0, give_up_seconds=5.0)
    for number in range(100):
        machine.handle(ConnectionOpened(f"p{number}"), 0.0)
    before = due(machine)
    looked.clear()
    for number in range(100):
        machine.handle(FrameReceived(f"p{number}"), 1.0)
        assert due(machine) == before
    assert looked == []


PEERS = ["a", "b", "c"]
kinds = st.sampled_from([ConnectionOpened, ConnectionClosed, FrameReceived, PingReceived, DeadlineMissed, PongReceived])
opened = st.builds(ConnectionOpened, st.sampled_from(PEERS), st.booleans())
events = st.builds(lambda kind, peer: kind(peer), kinds, st.sampled_from(PEERS)) | opened
steps = st.lists(st.tuples(st.floats(0, 1.5), st.none() | events))


@given(steps)
def test_any_events_in_any_order_keep_the_invariants(history: list[tuple[float, Event | None]]) -> None:
    machine, now = FailureDetector(ping_seconds=2.0, give_up_seconds=5.0), 0.0
    here: dict[str, float] = {}
    pinged: dict[str, float] = {}
    suspects: set[str] = set()
    leading: set[str] = set()

    def note(effects: Sequence[Effect]) -> None:
        for effect in effects:
            assert effect.peer in here, f"{effect} of one that is not connected"
            match effect:
                case Suspected(peer):
                    assert peer not in suspects
                    suspects.add(peer)
                case Trusted(peer):
                    suspects.remove(peer)
                case GiveUp(peer, silent):
                    assert silent == pytest.approx(now - here.pop(peer))
                    assert silent >= 5.0 - 1e-9
                    suspects.discard(peer)
                case SendPing(peer):
                    pinged[peer] = now

    for passed, event in history:
        end = now + passed
        while due(machine) <= end:
            now = due(machine)
            note(machine.handle(Tick(), now))
            assert due(machine) > now, "it spins"
        now = end
        if event is None:
            continue
        if isinstance(event, ConnectionOpened):
            here[event.peer] = pinged[event.peer] = now
            (leading.add if event.leads else leading.discard)(event.peer)
        elif isinstance(event, FrameReceived | PingReceived | PongReceived) and event.peer in here:
            here[event.peer] = now
        if isinstance(event, PongReceived) or (isinstance(event, PingReceived) and event.peer not in leading):
            pinged[event.peer] = now
        effects = machine.handle(event, now)
        note(effects)
        if isinstance(event, ConnectionClosed):
            here.pop(event.peer, None)
            suspects.discard(event.peer)
        for peer in PEERS:
            assert machine.is_suspect(peer) == (peer in suspects)
            assert machine.heard_at(peer) == here.get(peer)
            if peer in here:
                assert now - here[peer] <= 5.0, "given up by now"
                assert now - pinged[peer] <= (0.25 if peer in suspects else 2.25) + 1e-9, "pinged by now"


def test_a_peer_that_need_not_stay_connected_is_pinged_only_while_it_is_suspect() -> None:
    machine = FailureDetector()
    machine.handle(ConnectionOpened("a"), 0.0)
    machine.handle(Kept("a", False), 0.0)
    assert run_until(machine, 600.0) == [], "its silence means nothing"
    assert machine.handle(PingReceived("a"), 600.0) == (), "nor is it pinged in answer to a ping"
    assert machine.handle(DeadlineMissed("a"), 601.0) == (Suspected("a"), SendPing("a"))
    assert [effect for at, effect in run_until(machine, 601.9)] == [SendPing("a")] * 3
    assert machine.handle(PongReceived("a"), 602.0) == (Trusted("a"),)
    assert run_until(machine, 900.0) == []
    machine.handle(DeadlineMissed("a"), 901.0)
    assert run_until(machine, 1000.0)[-1] == (908.0, GiveUp("a", 7.0)), "a peer that is asked and stays silent is gone"


def test_a_peer_that_is_kept_from_now_on_is_pinged_at_once_and_has_its_time_to_answer() -> None:
    machine = FailureDetector()
    machine.handle(ConnectionOpened("a"), 0.0)
    machine.handle(Kept("a", False), 0.0)
    assert machine.handle(Kept("a", True), 300.0) == ()
    effects = run_until(machine, 306.9)
    assert effects[0] == (300.0, SendPing("a"))
    assert all(effect == SendPing("a") for _, effect in effects)
