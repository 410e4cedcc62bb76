"""Absence: who is gone is replaced, and a node that is cut off replaces nobody."""

import pytest

from protocols.replication.absence import HERE, Absence

GRACE = 300.0


def absence(*, started_at: float = 0.0) -> Absence:
    return Absence(grace_seconds=GRACE, started_at=started_at)


def test_a_member_that_is_away_for_longer_than_the_grace_is_gone() -> None:
    alive_at = {"a": HERE, "b": HERE, "c": 100.0}
    judge = absence().judge
    assert judge(alive_at, 100.0 + GRACE) == ((), "")
    assert judge(alive_at, 100.1 + GRACE) == (("c",), "")


def test_a_member_that_is_connected_is_never_gone() -> None:
    assert absence().judge({"a": HERE}, 1e9) == ((), "")


def test_a_node_that_has_just_started_waits_for_the_grace() -> None:
    fresh = absence(started_at=1000.0)
    alive_at = {"a": HERE, "b": HERE, "c": -1e9}
    assert fresh.judge(alive_at, 1000.0 + GRACE).gone == ()
    assert fresh.judge(alive_at, 1001.0 + GRACE).gone == ("c",)


def test_a_member_that_is_back_is_not_gone_any_more() -> None:
    judge = absence().judge
    alive_at = {"a": HERE, "b": HERE, "c": 0.0}
    assert judge(alive_at, 400.0).gone == ("c",)
    assert judge({**alive_at, "c": HERE}, 401.0).gone == ()
    assert judge({**alive_at, "c": 402.0}, 402.0).gone == (), "it left again, and has its grace"


def test_a_member_that_was_forgotten_is_not_gone_any_more() -> None:
    judge = absence().judge
    assert judge({"a": HERE, "b": HERE, "c": 0.0}, 400.0).gone == ("c",)
    assert judge({"a": HERE, "b": HERE}, 401.0).gone == ()


@pytest.mark.parametrize(("others", "away", "is_replaced"), [(2, 1, True), (4, 2, True), (4, 3, False), (3, 2, False)])
def test_where_half_of_all_nodes_or_more_are_away_at_once_nobody_is_replaced(
    others: int, away: int, is_replaced: bool
) -> None:
    alive_at = {f"n{number}": 0.0 if number < away else HERE for number in range(others)}
    gone, held = absence().judge(alive_at, 400.0)
    assert (len(gone) == away) is is_replaced
    assert bool(held) is not is_replaced


def test_members_that_are_away_for_nearly_as_long_count_as_away_at_once() -> None:
    """The connections of a parted node do not all break in one second."""
    alive_at = {"a": 0.0, "b": 5.0, "c": 9.0, "d": HERE}
    gone, held = absence().judge(alive_at, 301.0)
    assert gone == ()
    assert held.startswith("3 of the 4 other members are away at once")


def test_members_that_leave_one_after_the_other_are_replaced_each() -> None:
    judge = absence().judge
    alive_at = dict.fromkeys("abcdef", HERE)
    for number, leaves in enumerate("abcdef", start=1):
        alive_at[leaves] = number * 1000.0
        judged = judge(alive_at, number * 1000.0 + 301.0)
        is_last = leaves == "f"  # of two nodes one is away: it may as well be this one
        assert (leaves in judged.gone) is not is_last


def test_when_the_others_come_back_one_after_the_other_each_has_the_grace_for_it() -> None:
    judge = absence().judge
    away = dict.fromkeys("abcde", 0.0) | {"f": HERE}
    assert judge(away, 400.0).held
    assert judge(away | {"a": HERE, "b": HERE, "c": HERE}, 401.0) == ((), "")
    back = dict.fromkeys("abcdf", HERE) | {"e": 0.0}
    assert judge(back, 699.0) == ((), "")
    assert judge(back, 701.0) == (("e",), "")
