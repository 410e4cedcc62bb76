"""Log lineage: a store has what is known of its logs, or it lost something; no entry has two names."""

from hypothesis import given
from hypothesis import strategies as st

from protocols.log_lineage import KEPT_MAX, SENT_MAX, LogPosition, includes, log_of, with_ended

FORMER = (LogPosition("a", 10), LogPosition("b", 10), LogPosition("c", 25))


def test_a_store_has_what_its_former_logs_had_when_they_ended_and_all_of_its_present_one() -> None:
    for known in (LogPosition("a", 10), LogPosition("a", 1), LogPosition("b", 10), LogPosition("c", 25)):
        assert includes("d", FORMER, known)
    assert includes("d", FORMER, LogPosition("d", 10**9)), "the log of a run never shrinks while it runs"


def test_a_store_lacks_what_came_after_the_end_of_a_former_log_and_every_log_that_it_never_had() -> None:
    for known in (LogPosition("a", 11), LogPosition("c", 26), LogPosition("x", 1)):
        assert not includes("d", FORMER, known)
    assert not includes("new", (), LogPosition("d", 1)), "its disk is a new one"
    assert includes("new", (), LogPosition("d", 0)), "an entry 0 is none"


def test_an_entry_belongs_to_the_log_that_was_the_present_one_when_it_was_made() -> None:
    assert [log_of("d", FORMER, sequence) for sequence in (1, 10, 11, 25, 26)] == ["a", "a", "c", "c", "d"]
    assert log_of("d", (), 5) == "d"


@given(st.lists(st.integers(0, 2), max_size=4 * SENT_MAX))
def test_former_logs_with_entries_are_remembered_and_the_latest_whether_they_have_entries_or_not(
    entries: list[int],
) -> None:
    former: tuple[LogPosition, ...] = ()
    last = 0
    owners: dict[int, str] = {}
    for number, count in enumerate(entries):
        owners.update(dict.fromkeys(range(last + 1, last + count + 1), f"log {number}"))
        last += count
        former = with_ended(former, LogPosition(f"log {number}", last))
    assert [log.log_id for log in former[-SENT_MAX:]] == [f"log {n}" for n in range(len(entries))][-SENT_MAX:]
    assert {sequence: log_of("now", former, sequence) for sequence in owners} == owners
    assert len(former) <= KEPT_MAX


def test_the_oldest_logs_are_forgotten_above_a_bound() -> None:
    former: tuple[LogPosition, ...] = ()
    for number in range(KEPT_MAX + 5):
        former = with_ended(former, LogPosition(str(number), number))
    assert len(former) == KEPT_MAX
    assert former[-1] == LogPosition(str(KEPT_MAX + 4), KEPT_MAX + 4)
