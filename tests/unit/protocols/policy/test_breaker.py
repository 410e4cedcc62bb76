"""The circuit breaker: when it opens, probes and closes, late outcomes, and forces."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.policy.breaker import (
    Abandoned,
    Breaker,
    BreakerState,
    Changed,
    Effect,
    Event,
    Failed,
    Forced,
    Probe,
    Released,
    SignOfLife,
    Succeeded,
    Tuned,
)
from protocols.policy.machine import Tick


def breaker(*, threshold: int = 3, chance: float = 0.0) -> Breaker:
    """With this chance the waits are 0.5, 1, 2, 4, 5, 5 ... seconds."""
    return Breaker(threshold=threshold, backoff_seconds=1.0, chance=lambda: chance)


def fail(machine: Breaker, now: float, *, times: int = 1) -> list[Effect]:
    return [e for _ in range(times) for e in machine.handle(Failed(machine.generation, "asked n2, n3"), now)]


def opened(now: float = 100.0) -> Breaker:
    machine = breaker()
    fail(machine, now, times=3)
    assert machine.state is BreakerState.OPEN
    return machine


def half_opened(now: float = 100.0) -> Breaker:
    machine = opened(now)
    machine.handle(SignOfLife("a frame"), now)
    assert machine.state is BreakerState.HALF_OPEN
    return machine


def due(machine: Breaker) -> float:
    assert machine.deadline is not None
    return machine.deadline


def probes(effects: Sequence[Effect]) -> list[Probe]:
    return [effect for effect in effects if isinstance(effect, Probe)]


@pytest.mark.parametrize("threshold", [1, 2, 3, 7])
def test_it_opens_at_the_threshold_and_not_before(threshold: int) -> None:
    machine = breaker(threshold=threshold)
    assert fail(machine, 10.0, times=threshold - 1) == []
    assert machine.is_closed
    (changed,) = fail(machine, 12.5)
    assert isinstance(changed, Changed)
    assert (changed.before, changed.after) == (BreakerState.CLOSED, BreakerState.OPEN)
    assert not machine.is_closed


def test_the_reason_has_the_number_of_failures_the_time_and_the_peers_asked() -> None:
    machine = breaker()
    fail(machine, 10.0)
    fail(machine, 10.1)
    fail(machine, 10.4)
    assert machine.why == "3 operations unanswered in 0.4 s; asked n2, n3"


def test_an_answer_between_failures_starts_the_count_anew() -> None:
    machine = breaker()
    fail(machine, 1.0, times=2)
    assert machine.handle(Succeeded(machine.generation), 2.0) == ()
    assert fail(machine, 3.0, times=2) == []
    assert machine.is_closed
    fail(machine, 4.0)
    assert machine.why.startswith("3 operations unanswered in 1.0 s"), "counted from the first one after the answer"


def test_an_abandoned_operation_says_nothing_about_the_swarm() -> None:
    machine = breaker()
    fail(machine, 1.0, times=2)
    for _ in range(5):
        assert machine.handle(Abandoned(machine.generation), 1.0) == ()
    assert machine.is_closed
    fail(machine, 1.0)
    assert machine.state is BreakerState.OPEN, "nor does it take back what failed before"


def test_outcomes_of_an_earlier_generation_change_nothing() -> None:
    machine = breaker()
    early = machine.generation
    fail(machine, 1.0, times=3)
    for outcome in (Succeeded(early), Failed(early, "late"), Abandoned(early)):
        assert machine.handle(outcome, 1.0) == ()
    assert (machine.state, due(machine)) == (BreakerState.OPEN, 1.5)
    (_, probe) = machine.handle(Tick(), 1.5)
    for outcome in (Succeeded(early), Failed(early, "late"), Abandoned(early)):
        assert machine.handle(outcome, 1.6) == ()
    assert machine.state is BreakerState.HALF_OPEN
    assert probe == Probe(machine.generation)
    machine.handle(Succeeded(machine.generation), 1.7)
    for _ in range(3):
        machine.handle(Failed(early, "late"), 1.8)
    assert machine.is_closed, "calls that hung since before it opened must not open it again"


@pytest.mark.parametrize("when", [1.5, 99.0])
def test_when_the_backoff_is_over_one_probe_is_let_through(when: float) -> None:
    machine = opened(1.0)
    assert due(machine) == 1.5
    assert machine.handle(Tick(), 1.4) == (), "an early tick is harmless"
    changed, probe = machine.handle(Tick(), when)
    assert changed == Changed(BreakerState.OPEN, BreakerState.HALF_OPEN, "the backoff is over")
    assert probe == Probe(machine.generation)
    assert machine.handle(Tick(), when) == (), "so is a doubled one"
    assert not machine.is_closed, "the permit is the probe's, and no user's call's"


def test_a_sign_of_life_is_probed_at_once_and_only_while_it_is_open() -> None:
    machine = breaker()
    assert machine.handle(SignOfLife("a frame"), 0.0) == ()
    fail(machine, 1.0, times=3)
    changed, probe = machine.handle(SignOfLife("a dial"), 1.0)
    assert changed == Changed(BreakerState.OPEN, BreakerState.HALF_OPEN, "a sign of life: a dial")
    assert isinstance(probe, Probe)
    assert machine.handle(SignOfLife("another"), 1.0) == (), "one permit at a time"


def test_an_answered_probe_closes_it_and_everything_is_as_at_first() -> None:
    machine = half_opened()
    generation = machine.generation
    (changed,) = machine.handle(Succeeded(generation), 101.0)
    assert isinstance(changed, Changed)
    assert (changed.before, changed.after) == (BreakerState.HALF_OPEN, BreakerState.CLOSED)
    assert machine.deadline is None
    assert machine.handle(Succeeded(generation), 101.0) == ()
    assert fail(machine, 102.0, times=2) == []
    fail(machine, 103.0)
    assert due(machine) == 103.5, "the backoff starts anew"


def test_each_failed_probe_doubles_the_backoff_up_to_the_cap() -> None:
    machine = opened(0.0)
    waits, now = [due(machine)], due(machine)
    for _ in range(6):
        machine.handle(Tick(), now)
        fail(machine, now)
        assert machine.state is BreakerState.OPEN
        waits.append(due(machine) - now)
        now = due(machine)
    assert waits == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


def test_half_of_the_backoff_is_jitter() -> None:
    machine = breaker(chance=0.5)
    fail(machine, 0.0, times=3)
    assert due(machine) == 0.75


def test_an_abandoned_probe_is_tried_again_and_counts_as_no_failure() -> None:
    machine = half_opened(100.0)
    for _ in range(5):
        (changed,) = machine.handle(Abandoned(machine.generation), 100.0)
        assert changed == Changed(BreakerState.HALF_OPEN, BreakerState.OPEN, "the probe was abandoned")
        assert due(machine) == 100.5, "a busy process must not keep itself from the swarm for longer and longer"
        machine.handle(SignOfLife("a frame"), 100.0)


def test_a_probe_without_an_outcome_does_not_keep_it_half_open_for_ever() -> None:
    machine = half_opened(100.0)
    lost = machine.generation
    assert due(machine) == 110.0
    (changed,) = machine.handle(Tick(), 110.0)
    assert changed == Changed(BreakerState.HALF_OPEN, BreakerState.OPEN, "the probe had no outcome")
    assert probes(machine.handle(Tick(), due(machine))), "another one is sent"
    assert machine.handle(Succeeded(lost), 111.0) == (), "and the lost one's outcome comes too late"


def test_failures_while_it_is_open_do_not_postpone_the_probe() -> None:
    machine = opened(1.0)
    assert fail(machine, 1.4, times=10) == []
    assert due(machine) == 1.5


outcomes = st.sampled_from([Succeeded, Abandoned, lambda generation: Failed(generation, "asked n2")])
events = st.one_of(
    st.just(lambda machine: Tick()),
    st.just(lambda machine: SignOfLife("a frame")),
    st.builds(lambda outcome, age: lambda machine: outcome(machine.generation - age), outcomes, st.integers(0, 2)),
)


@given(st.lists(st.tuples(st.floats(0, 20), events), max_size=60), st.integers(1, 4), st.floats(0, 0.999))
def test_any_events_in_any_order_keep_the_invariants(steps: list, threshold: int, chance: float) -> None:  # type: ignore[type-arg]
    machine, now = breaker(threshold=threshold, chance=chance), 0.0
    for passed, event in steps:
        now += passed
        state, generation = machine.state, machine.generation
        drawn: Event | Tick = event(machine)
        effects = machine.handle(drawn, now)
        changes = [effect for effect in effects if isinstance(effect, Changed)]
        assert len(changes) <= 1
        assert machine.generation == generation + len(changes), "each state has a generation of its own"
        for change in changes:
            assert (change.before, change.after) == (state, machine.state)
            assert change.before is not change.after
            assert change.why == machine.why
        assert probes(effects) == (
            [Probe(machine.generation)] if changes and machine.state is BreakerState.HALF_OPEN else []
        )
        if machine.state is BreakerState.CLOSED:
            assert machine.deadline is None
        else:
            assert now < due(machine) <= now + 10.0 or not changes, "it never waits for ever, and never spins"
            assert due(machine) > now or not isinstance(drawn, Tick)
    for _ in range(3):  # and when nothing but time passes, it asks again
        if machine.is_closed:
            break
        now = max(now, due(machine))
        if probes(machine.handle(Tick(), now)):
            assert machine.handle(Succeeded(machine.generation), now)
    assert machine.is_closed


# -- forced by a person -----------------------------------------------------------------------------------------------


def test_forced_open_lets_nothing_through_and_releases_to_what_it_was() -> None:
    machine = breaker()
    (changed,) = machine.handle(Forced(BreakerState.OPEN, "forced by ada: works"), 5.0)
    assert changed == Changed(BreakerState.CLOSED, BreakerState.OPEN, "forced by ada: works")
    assert (machine.state, machine.is_closed, machine.is_forced) == (BreakerState.OPEN, False, True)
    assert machine.deadline is None, "nothing is probed for what nobody has learned"
    assert machine.handle(SignOfLife("a frame"), 6.0) == ()
    assert machine.handle(Tick(), 7.0) == ()
    assert machine.state is BreakerState.OPEN
    (changed,) = machine.handle(Released("the time is over"), 8.0)
    assert isinstance(changed, Changed)
    assert (changed.before, changed.after) == (BreakerState.OPEN, BreakerState.CLOSED)
    assert machine.is_closed


def test_failures_counted_before_a_force_count_after_it() -> None:
    machine = breaker()
    fail(machine, 1.0, times=2)
    machine.handle(Forced(BreakerState.OPEN, "x"), 2.0)
    machine.handle(Released("y"), 3.0)
    (changed,) = fail(machine, 4.0)
    assert isinstance(changed, Changed)
    assert machine.state is BreakerState.OPEN


def test_forced_closed_stays_closed_whatever_fails_and_goes_on_learning() -> None:
    machine = breaker()
    assert machine.handle(Forced(BreakerState.CLOSED, "x"), 0.0) == (), "it was closed: nothing changes"
    assert fail(machine, 1.0, times=5) == []
    assert (machine.state, machine.learned) == (BreakerState.CLOSED, BreakerState.OPEN)
    (probe,) = machine.handle(Tick(), due(machine))
    assert isinstance(probe, Probe), "it goes on probing beneath"
    (changed,) = machine.handle(Released("y"), 20.0)
    assert isinstance(changed, Changed)
    assert changed.after is BreakerState.HALF_OPEN
    assert machine.handle(Succeeded(machine.generation), 21.0) == (
        Changed(BreakerState.HALF_OPEN, BreakerState.CLOSED, "the swarm answered a ping"),
    )


def test_an_answer_under_a_force_closes_the_learned_state() -> None:
    machine = opened()
    (changed,) = machine.handle(Forced(BreakerState.CLOSED, "x"), 101.0)
    assert isinstance(changed, Changed)
    assert machine.handle(Succeeded(machine.generation), 102.0) == ()
    assert machine.handle(Released("y"), 103.0) == ()
    assert (machine.state, machine.learned) == (BreakerState.CLOSED, BreakerState.CLOSED)


def test_a_force_that_replaces_another_is_one_change() -> None:
    machine = breaker()
    machine.handle(Forced(BreakerState.OPEN, "x"), 0.0)
    (changed,) = machine.handle(Forced(BreakerState.CLOSED, "y"), 1.0)
    assert changed == Changed(BreakerState.OPEN, BreakerState.CLOSED, "y")
    assert machine.handle(Released("z"), 2.0) == ()
    assert machine.handle(Released("z"), 3.0) == ()


def test_new_limits_keep_the_counts() -> None:
    machine = breaker(threshold=10)
    fail(machine, 1.0, times=4)
    assert machine.handle(Tuned(5, 2.0), 2.0) == ()
    (changed,) = fail(machine, 3.0)
    assert isinstance(changed, Changed)
    assert machine.why.startswith("5 operations unanswered")
    assert machine.deadline == pytest.approx(4.0), "the new backoff of 2 s, half of it certain"


# -- evidence ---------------------------------------------------------------------------------------------------------


def test_each_peer_asked_without_an_answer_is_named_once() -> None:
    machine = breaker()
    machine.handle(Failed(0, "a write", ("n9",)), 0.0)
    machine.handle(Succeeded(0), 1.0)
    for at, asked in ((10.0, ("n2", "n3")), (11.0, ("n3", "n4")), (12.1, ("n2",))):
        machine.handle(Failed(0, "nobody acknowledged a write", asked), at)
    assert machine.why == "3 operations unanswered in 2.1 s; asked n2, n3, n4; nobody acknowledged a write"


def test_of_very_many_peers_only_some_are_named_and_the_others_counted() -> None:
    machine = breaker(threshold=1)
    machine.handle(Failed(0, "", tuple(f"n{number}" for number in range(20))), 0.0)
    assert machine.why.endswith("asked n0, n1, n2, n3, n4, n5, n6, n7 and 12 more")


def test_closing_names_the_peer_that_answered_and_failing_again_those_that_did_not() -> None:
    machine = half_opened()
    machine.handle(Failed(machine.generation, "a ping was not answered", ("n2",)), 101.0)
    assert machine.why == "a ping was not answered; asked n2"
    machine.handle(SignOfLife("a frame"), 102.0)
    machine.handle(Succeeded(machine.generation, "n2 answered a ping in 1.5 ms"), 102.0)
    assert machine.why == "n2 answered a ping in 1.5 ms"
