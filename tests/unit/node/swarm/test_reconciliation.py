"""Reconciliation: after a loss every key must be asked for, until it was."""

import pytest

from node.swarm import reconciliation
from node.swarm.reconciliation import Reconciliation

KEY, OTHER = b"/ucxl/key", b"/ucxl/other"


def test_nothing_must_be_asked_for_while_nothing_was_lost() -> None:
    here = Reconciliation()
    here.asked(KEY)
    assert not here.must_ask(OTHER)
    assert here.in_words() == ""


def test_a_key_must_be_asked_for_until_it_was_and_again_after_a_further_loss() -> None:
    here = Reconciliation()
    here.begin("n1 knows entry 7")
    here.asked(KEY)
    assert (here.must_ask(KEY), here.must_ask(OTHER)) == (False, True)
    assert here.in_words().startswith("n1 knows entry 7. Each address is asked for")
    here.begin("n2 knows entry 8")
    assert here.must_ask(KEY)


def test_words_end_when_all_is_reconciled_and_new_keys_are_asked_for_all_the_same() -> None:
    here = Reconciliation("n1 knows entry 7", until=12)
    assert here.in_words() == ""
    assert here.must_ask(KEY)


def test_a_key_above_the_bound_is_asked_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "ASKED_MAX", 1)
    here = Reconciliation("n1 knows entry 7")
    here.asked(KEY)
    here.asked(OTHER)
    assert (here.must_ask(KEY), here.must_ask(OTHER), here.last_asked) == (False, True, OTHER)
