"""Reconciliation: after a loss every key must be asked for, until it was."""

import pytest
import trio

from node.swarm import reconciliation
from node.swarm.reconciliation import AWAY_SECONDS, Reconciliation

KEY, OTHER = b"/ucxl/key", b"/ucxl/other"


def test_nothing_must_be_asked_for_while_nothing_was_lost() -> None:
    here = Reconciliation()
    here.asked(KEY)
    assert not here.must_ask(OTHER)
    assert here.in_words(others=2) == ""


def test_a_key_must_be_asked_for_until_it_was_and_again_after_a_further_loss() -> None:
    here = Reconciliation()
    here.begin("n1 knows entry 7")
    here.asked(KEY)
    assert (here.must_ask(KEY), here.must_ask(OTHER)) == (False, True)
    assert here.in_words(others=2).startswith("n1 knows entry 7. Each address is asked for")
    here.begin("n2 knows entry 8")
    assert here.must_ask(KEY)
    assert here.in_words(others=2).startswith("n1 knows entry 7")
    here.until = 12
    here.begin("n2 knows entry 9")
    assert here.in_words(others=2).startswith("n2 knows entry 9")


def test_words_end_when_all_is_reconciled_and_new_keys_are_asked_for_all_the_same() -> None:
    here = Reconciliation("n1 knows entry 7", until=12)
    assert here.in_words(others=2) == ""
    assert here.must_ask(KEY)


def test_a_key_above_the_bound_is_asked_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "ASKED_MAX", 1)
    here = Reconciliation("n1 knows entry 7")
    here.asked(KEY)
    here.asked(OTHER)
    assert (here.must_ask(KEY), here.must_ask(OTHER), here.last_asked) == (False, True, OTHER)


async def test_the_first_member_that_has_to_be_heard_can_be_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    await Reconciliation().first_heard()
    here = Reconciliation(unheard=("ann", "bob"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.first_heard)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        here.heard("ann")
    await here.first_heard()


async def test_keys_must_be_asked_for_until_every_member_was_heard(autojump_clock: trio.testing.MockClock) -> None:
    here = Reconciliation(unheard=("ann", "bob"))
    await trio.sleep(3600.0)
    assert here.must_ask(KEY)
    assert "not every member has said yet" in here.why_ask()
    assert not here.heard("ann")
    here.asked(KEY)
    assert (here.must_ask(KEY), here.must_ask(OTHER)) == (False, True)
    assert here.heard("bob"), "the last one"
    assert not here.must_ask(OTHER)
    assert not here.heard("bob")
    assert here.in_words(others=2) == "", "nothing is known to be lost"


async def test_a_member_that_stays_away_is_waited_for_until_others_were_here_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    here = Reconciliation(unheard=("ann", "bob"))
    here.heard("carol")
    await trio.sleep(AWAY_SECONDS - 0.1)
    here.heard("carol")
    assert here.must_ask(KEY)
    await trio.sleep(0.2)
    assert not here.must_ask(KEY)
    here.begin("bob knows entry 7")
    assert here.must_ask(KEY)
    assert here.why_ask() == "bob knows entry 7"


def test_where_no_other_can_be_asked_a_loss_is_said_in_the_run_that_found_it() -> None:
    assert Reconciliation("the store is missing", is_new=True).in_words(others=0) == "the store is missing"
    assert Reconciliation("the store is missing").in_words(others=0) == ""
    assert Reconciliation("the store is missing").in_words(others=1).startswith("the store is missing. Each address")
    told = Reconciliation()
    told.begin("n1 knows entry 7")
    assert told.in_words(others=0) == "n1 knows entry 7"
