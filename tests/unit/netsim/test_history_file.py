"""A history is the same after writing and reading, and other lines are refused."""

import pytest

from netsim.history import Operation, Outcome
from netsim.history_file import history_lines
from tests.history_reader import read_history
from tests.unit.histories import change, failed, good


def test_a_history_is_the_same_after_writing_and_reading() -> None:
    history = good()
    history.operations.append(failed(good()).operations[2])
    lines = list(history_lines(history))
    again = read_history(lines)
    assert again == history
    assert list(history_lines(again)) == lines


@pytest.mark.parametrize("lines", [[], ['{"type":"Event"}'], ["{", ""]])
def test_what_is_no_history_is_refused(lines: list[str]) -> None:
    with pytest.raises(ValueError):
        read_history(lines)


def test_operations_of_unknown_outcome_have_no_receipt() -> None:
    unknown: Operation = change(good(), 2, outcome=Outcome.UNKNOWN, receipt=None).operations[2]
    assert (unknown.outcome, unknown.receipt, unknown.is_write) == (Outcome.UNKNOWN, None, True)
