"""Each check on a good history and on bad ones: it finds the violations that it is for, and no others."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from netsim.checks.registry import CHECKS, find_violations
from netsim.history import History, NemesisEvent, Outcome, ResourceSample
from tests.unit.histories import (
    SIBLING,
    V1,
    V2,
    A,
    B,
    C,
    answer,
    change,
    failed,
    good,
    operation,
    parameters,
    read,
    ref,
    state,
)


def broken(history: History) -> set[str]:
    return {one.check for one in find_violations(history)}


def only(check: str, history: History) -> None:
    """This check finds something in it."""
    assert list(CHECKS[check](history)), f"{check} found nothing"


def none(check: str, history: History) -> None:
    assert not [one.text for one in CHECKS[check](history)]


def with_answer(history: History, id: int, **others: object) -> History:
    answered = next(op.answer for op in history.operations if op.id == id)
    assert answered is not None
    return change(history, id, answer=replace(answered, **others))  # type: ignore[arg-type]


def with_receipt(history: History, id: int, **others: object) -> History:
    receipt = next(op.receipt for op in history.operations if op.id == id)
    assert receipt is not None
    return change(history, id, receipt=replace(receipt, **others))  # type: ignore[arg-type]


def test_nothing_is_wrong_with_a_good_history() -> None:
    assert find_violations(good()) == ()


# -- promise 1 ------------------------------------------------------------------------------------------------------


def test_what_was_acknowledged_must_be_there_after_a_kill() -> None:
    history = good()
    history.recoveries[0] = replace(history.recoveries[0], digests=(A,))
    only("survives-a-crash", history)


def test_what_was_shown_must_be_there_after_a_kill() -> None:
    history = good()
    history.operations.insert(3, read(8, "n1", 5.5, answer(V2, SIBLING)))
    only("survives-a-crash", history)


def test_what_came_after_the_kill_or_was_on_another_disk_need_not_be_there() -> None:
    history = good()
    history.recoveries[0] = replace(history.recoveries[0], digests=(), disk=1)
    none("survives-a-crash", history)
    history.recoveries[0] = replace(history.recoveries[0], digests=(A,), disk=0, at=2.5)
    none("survives-a-crash", history)


# -- promise 2 ------------------------------------------------------------------------------------------------------


def lost_on_n2() -> History:
    history = with_answer(good(), 7, heads=(V1,))
    history.states[1] = state("n2", (A,), (V1,))
    return history


def test_an_acknowledged_write_must_be_known_everywhere_in_the_end() -> None:
    only("nothing-lost", lost_on_n2())
    only("replicas", lost_on_n2())
    only("equal", lost_on_n2())


def test_a_superseded_write_is_not_lost() -> None:
    none("nothing-lost", good())


def test_a_write_that_was_not_acknowledged_may_be_lost() -> None:
    history = change(lost_on_n2(), 2, outcome=Outcome.UNKNOWN, receipt=None)
    none("nothing-lost", history)
    none("replicas", history)


def test_a_write_is_excused_when_every_disk_that_had_it_is_gone() -> None:
    history = with_receipt(lost_on_n2(), 2, held_by=("n1",))
    history.events.append(NemesisEvent(at=6.0, kind="disk-lost", nodes=("n1",), text="n1 lost its disk, number 0"))
    none("nothing-lost", history)


def test_a_node_without_a_network_need_not_know_what_others_wrote() -> None:
    history = lost_on_n2()
    history.states[1] = replace(history.states[1], backend="mock")
    none("nothing-lost", history)
    none("replicas", history)
    none("equal", history)


def test_a_reissued_write_is_known_by_the_version_in_its_place() -> None:
    reissue = ref(C, 12, op=2, parents=(A,))
    history = with_answer(with_answer(good(), 6, heads=(reissue,)), 7, heads=(reissue,))
    history.states = [
        state("n1", (C,), (V1, V2, reissue), reissued={B: C}),
        state("n2", (C,), (V1, reissue)),
    ]
    assert broken(history) == set()


# -- promise 3 ------------------------------------------------------------------------------------------------------


def test_a_sibling_that_was_shown_must_not_vanish() -> None:
    history = good()
    history.operations.insert(4, read(8, "n2", 5.5, answer(V2, SIBLING)))
    history.operations.insert(5, read(9, "n2", 6.0, answer(V2)))
    only("siblings-kept", history)
    none("never-back", history)


def test_a_sibling_that_a_later_version_names_may_go() -> None:
    merged = ref("d" * 16, 30, op=9, parents=(B, C))
    history = good()
    history.operations.insert(4, read(8, "n2", 5.5, answer(V2, SIBLING)))
    history.operations.insert(5, read(10, "n2", 6.0, answer(merged)))
    history.operations = [op for op in history.operations if not op.is_final]
    history.states.clear()
    none("siblings-kept", history)


def test_a_parent_that_is_not_earlier_is_not_superseded() -> None:
    void = ref("d" * 16, 5, op=9, parents=(B,))
    history = good()
    history.operations.insert(4, read(10, "n2", 6.0, answer(void)))
    only("never-back", history)


def test_only_the_author_of_a_version_reissues_it() -> None:
    """A node's list of reissued versions excuses a missing head, so the list is checked too."""
    history = good()
    history.states[1] = state("n2", (B,), (V1, V2, SIBLING), reissued={C: B})
    assert SIBLING.author != V2.author
    only("siblings-kept", history)


def test_heads_are_what_nothing_held_supersedes() -> None:
    history = good()
    history.states[1] = state("n2", (B,), (V1, V2, SIBLING))
    only("siblings-kept", history)


# -- promise 4 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [(), (V1,)])
def test_a_reader_of_one_node_never_sees_a_key_go_back(heads: tuple[object, ...]) -> None:
    history = good()
    history.operations.insert(4, read(8, "n2", 6.0, answer(*heads)))  # type: ignore[arg-type]
    only("never-back", history)


def test_a_writer_reads_what_it_wrote() -> None:
    history = good()
    history.operations.insert(3, read(8, "n1", 4.0, answer(V1)))
    only("never-back", history)


def test_a_read_that_began_before_the_newer_answer_may_be_older() -> None:
    history = good()
    history.operations.insert(4, operation(8, "n2", 4.9, 5.5, answer=answer(V1)))
    none("never-back", history)


def test_another_node_and_a_new_disk_may_know_less() -> None:
    history = good()
    history.operations.insert(3, read(8, "n2", 4.0, answer(V1)))
    history.operations.append(read(9, "n1", 27.0, answer(V1), disk=1))
    none("never-back", history)


# -- promise 5 ------------------------------------------------------------------------------------------------------


def test_all_must_settle_within_the_bound() -> None:
    history = good()
    history.settled_at, history.unsettled = None, "n1 has hints left: 3 for n2"
    only("settles", history)


def test_the_heads_are_the_same_in_every_store_and_every_answer() -> None:
    only("equal", with_answer(good(), 7, heads=(V2, SIBLING)))
    history = good()
    history.states[1] = state("n2", (A,), (V1,))
    only("equal", history)


# -- promise 6 ------------------------------------------------------------------------------------------------------


def test_no_call_takes_longer_than_its_deadline() -> None:
    only("in-time", change(good(), 4, returned=5.2))
    none("in-time", change(good(), 4, returned=5.2, excused="its node was stopped or frozen meanwhile"))
    none("in-time", change(good(), 4, returned=5.9, backend="real"))


def test_hybrid_takes_every_write_and_answers_for_what_it_has() -> None:
    only("answers", failed(good(), 2))
    only("answers", failed(good(), 3))
    none("answers", change(failed(good(), 3), 3, how="swarm"))
    none("answers", failed(good(), 4))  # n2 had nothing of it yet


def test_with_a_bad_disk_or_without_fallback_errors_are_answers() -> None:
    history = failed(good())
    history.events.append(NemesisEvent(at=2.5, kind="disk", nodes=("n1",), text="the disk of n1 was full"))
    history.events.append(NemesisEvent(at=4.0, kind="disk-good", nodes=("n1",), text="the disk of n1 was good again"))
    none("answers", history)
    history = failed(good())
    history.parameters = parameters(has_fallback=False)
    none("answers", history)


def with_disk(history: History, text: str, begin: float, end: float) -> History:
    history.events.append(NemesisEvent(at=begin, kind="disk", nodes=("n1",), text=f"the disk of n1 was {text}"))
    history.events.append(NemesisEvent(at=end, kind="disk-good", nodes=("n1",), text="the disk of n1 was good again"))
    return history


def test_a_disk_that_works_is_no_excuse_for_an_error() -> None:
    only("answers", with_disk(failed(good(), 2), "stalled", 2.5, 4.0))
    only("answers", with_disk(failed(good(), 2), "slow (310 ms)", 2.5, 4.0))
    none("answers", with_disk(failed(good(), 2), "stalled", 0.0, 6.0))


def test_a_call_may_wait_for_a_bad_disk_and_for_a_good_one_only_briefly() -> None:
    slow = change(good(), 2, returned=good().by_id()[2].called + 4.0)
    only("in-time", slow)
    none("in-time", with_disk(slow, "stalled", 1.0, 6.0))
    slower = change(good(), 2, returned=good().by_id()[2].called + 11.0)
    only("in-time", with_disk(slower, "stalled", 1.0, 12.0))


# -- promise 7 ------------------------------------------------------------------------------------------------------

_DISHONEST: list[Callable[[History], History]] = [
    lambda h: with_receipt(h, 2, log_id=""),
    lambda h: with_receipt(h, 2, sequence=0),
    lambda h: with_receipt(h, 2, acknowledged=2),
    lambda h: with_receipt(h, 2, backend="mock"),
    lambda h: with_receipt(h, 2, durability="pending"),
    lambda h: with_receipt(h, 2, held_by=("n2",)),
    lambda h: with_receipt(h, 2, held_by=("n1",)),
    lambda h: with_answer(h, 3, source=""),
    lambda h: with_answer(h, 3, backend="mock"),
    lambda h: with_answer(h, 3, siblings=1),
    lambda h: with_answer(h, 3, age_ms=None),
    lambda h: with_answer(h, 3, age_ms=5500.0),
    lambda h: with_answer(h, 3, is_degraded=True),
    lambda h: with_answer(h, 4, heads=()),
]


@pytest.mark.parametrize("spoil", _DISHONEST)
def test_answers_tell_the_truth_about_themselves(spoil: Callable[[History], History]) -> None:
    only("honest", spoil(good()))


def test_an_answer_has_all_that_was_acknowledged_before_its_age() -> None:
    only("up-to-date", with_answer(good(), 4, heads=(V1,), age_ms=1000.0))
    none("up-to-date", with_answer(good(), 4, heads=(V1,), age_ms=3000.0))
    none("up-to-date", with_answer(good(), 4, heads=(V1,), is_degraded=True, reason="no swarm"))


def test_a_key_that_most_holders_have_is_not_called_absent() -> None:
    only("up-to-date", with_answer(good(), 4, heads=(), source="swarm"))


_MADE_UP: list[Callable[[History], History]] = [
    lambda h: change(h, 2, outcome=Outcome.FAILED, receipt=None, error="Unavailable: no"),
    lambda h: with_answer(h, 4, heads=(ref("e" * 16, 30, op=99),)),
    lambda h: with_answer(h, 4, heads=(ref("e" * 16, 30, op=1, author="stranger"),)),
]


@pytest.mark.parametrize("spoil", _MADE_UP)
def test_nothing_is_shown_that_was_not_written(spoil: Callable[[History], History]) -> None:
    only("nothing-made-up", spoil(good()))


def test_a_head_is_a_version_of_that_node() -> None:
    history = good()
    history.states[1] = state("n2", (B, C), (V1, V2))
    only("nothing-made-up", history)


def test_an_unknown_write_may_be_shown() -> None:
    none("nothing-made-up", change(good(), 2, outcome=Outcome.UNKNOWN, receipt=None))


# -- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sample",
    [ResourceSample(at=2.0, nodes=2, tasks=300, frames=0), ResourceSample(at=2.0, nodes=2, tasks=9, frames=1025)],
)
def test_tasks_and_frames_are_bounded(sample: ResourceSample) -> None:
    history = good()
    history.samples.append(sample)
    only("bounded", history)


# -- worlds of real processes -----------------------------------------------------------------------------------------


def test_a_call_is_judged_by_the_nodes_own_time_where_there_is_one() -> None:
    none("in-time", change(good(), 4, returned=5.9, node_seconds=0.1))
    only("in-time", change(good(), 4, node_seconds=0.2))
    none("in-time", with_parameters(change(good(), 4, node_seconds=0.149), slack_seconds=0.05))
    only("in-time", with_parameters(change(good(), 4, node_seconds=0.151), slack_seconds=0.05))


def test_a_call_during_a_flip_may_take_as_long_as_the_slower_backend() -> None:
    none("in-time", change(good(), 4, node_seconds=0.9, backend="hybrid>real"))
    only("in-time", change(good(), 4, node_seconds=1.2, backend="hybrid>real"))


def test_a_call_issued_in_hybrid_is_answered_unless_it_was_flipped_to_real() -> None:
    only("answers", change(failed(good(), 3), 3, backend="hybrid>mock"))
    none("answers", change(failed(good(), 3), 3, backend="hybrid>real"))
    none("answers", change(failed(good(), 3), 3, backend="mock>hybrid"))


def test_a_share_of_errors_may_be_allowed_and_no_more() -> None:
    history = failed(good(), 3)  # one of the five that are due
    only("answers", with_parameters(history, errors_max=0.19))
    none("answers", with_parameters(history, errors_max=0.2))


def uneven() -> History:
    """Only n1 has a sibling that was not acknowledged; n2 has the other head alone."""
    history = good()
    stray = SIBLING._replace(op=9)
    history.operations.append(
        operation(9, "n1", 5.5, 5.6, kind="write", how="none", outcome=Outcome.UNKNOWN, error="Indeterminate")
    )
    history.states = [state("n1", (B, C), (V1, stray, V2)), state("n2", (B,), (V1, V2))]
    return history


def test_an_unacknowledged_version_counts_for_nothing_where_it_does_not_spread() -> None:
    only("equal", uneven())
    none("equal", with_parameters(uneven(), spreads_all=False))


def test_an_acknowledged_version_must_be_everywhere_also_beside_an_unacknowledged_one() -> None:
    history = with_parameters(uneven(), spreads_all=False)
    history.states[1] = state("n2", (A,), (V1,))
    only("equal", history)


def test_the_age_of_an_answer_is_not_judged_where_nodes_deny_each_other() -> None:
    history = good()
    history.operations.append(read(8, "n2", 12.0, answer(V1, age_ms=50.0)))
    only("up-to-date", history)
    none("up-to-date", with_parameters(history, is_known_to_all=False))


def with_parameters(history: History, **others: object) -> History:
    history.parameters = replace(history.parameters, **others)  # type: ignore[arg-type]
    return history
