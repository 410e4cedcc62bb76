"""Reputation: offences add up, cost the connection and then a ban, and decay."""

from hypothesis import given
from hypothesis import strategies as st

from protocols.policy.reputation import POINTS, Offence, Penalty, Reputation


def test_one_bad_envelope_costs_nothing_but_itself() -> None:
    score = Reputation()
    assert score.offend("a", Offence.BAD_ENVELOPE, 0.0) is Penalty.NONE
    assert not score.is_banned("a", 0.0)


def test_repeated_offences_cost_the_connection_and_then_a_ban() -> None:
    score, verdicts = Reputation(), []
    while not score.is_banned("a", 0.0):
        verdicts.append(score.offend("a", Offence.BAD_ENVELOPE, 0.0))
    assert verdicts == [Penalty.NONE] * 7 + [Penalty.DISCONNECT] * 10 + [Penalty.BAN]
    assert score.offend("b", Offence.BAD_ENVELOPE, 0.0) is Penalty.NONE, "nobody else notices"


def test_points_halve_and_mistakes_far_apart_never_add_up() -> None:
    score = Reputation(half_life_seconds=10.0)
    score.offend("a", Offence.BROKEN_RULES, 0.0)
    assert score.points("a", 10.0) == POINTS[Offence.BROKEN_RULES] / 2
    for at in range(0, 10_000, 20):
        assert score.offend("a", Offence.BROKEN_RULES, float(at)) is not Penalty.BAN


def test_a_ban_ends_when_it_is_due_and_not_before() -> None:
    score = Reputation(half_life_seconds=10.0, ban_at=100.0, readmit_at=25.0)
    assert score.offend("a", Offence.BROKEN_RULES, 0.0, times=4) is Penalty.BAN
    assert score.banned_seconds("a", 0.0) == 20.0
    assert score.is_banned("a", 19.9)
    assert not score.is_banned("a", 20.1)
    assert score.banned_seconds("a", 20.1) == 0.0
    assert score.offend("a", Offence.BAD_INPUT, 20.2) is Penalty.NONE, "it starts with what is left of its points"


def test_no_ban_is_longer_than_the_most_points_take_to_decay() -> None:
    score = Reputation(half_life_seconds=10.0, readmit_at=25.0, points_max=400.0)
    for _ in range(1_000):
        score.offend("a", Offence.BROKEN_RULES, 0.0)
    assert score.banned_seconds("a", 0.0) == 40.0


def test_a_flood_of_refused_requests_is_an_offence_in_the_long_run_alone() -> None:
    score = Reputation()
    assert score.offend("a", Offence.FLOOD, 0.0, times=100) is Penalty.NONE
    assert score.offend("a", Offence.FLOOD, 1.0, times=400) is Penalty.BAN


def test_a_pardon_forgets_everything() -> None:
    score = Reputation()
    score.offend("a", Offence.BROKEN_RULES, 0.0, times=10)
    score.pardon("a")
    score.pardon("nobody")
    assert not score.is_banned("a", 0.0)
    assert score.points("a", 0.0) == 0.0


def test_of_very_many_peers_only_the_worst_are_remembered() -> None:
    score = Reputation(peers_max=100)
    score.offend("worst", Offence.BROKEN_RULES, 0.0, times=4)
    for number in range(10_000):
        score.offend(f"{number}", Offence.FLOOD, 0.0)
        assert len(score) <= 100
    assert score.is_banned("worst", 0.0)


@given(st.lists(st.tuples(st.sampled_from(list(Offence)), st.floats(0, 1_000), st.integers(1, 5)), max_size=50))
def test_points_stay_within_their_bounds_and_a_ban_follows_from_points_alone(
    offences: list[tuple[Offence, float, int]],
) -> None:
    score, now = Reputation(), 0.0
    for offence, wait, times in offences:
        now += wait
        verdict = score.offend("a", offence, now, times=times)
        points = score.points("a", now)
        assert 0 <= points <= 400
        assert (verdict is Penalty.BAN) == score.is_banned("a", now)
        assert points < 90 or verdict is Penalty.BAN
        assert (score.banned_seconds("a", now) > 0) == score.is_banned("a", now)
