"""Bugs that are planted are found, each within the seeds it says, by a check that is there for it."""

import pytest

from netsim.runner import play
from netsim.scenario.toml import load
from tests.sim.mutants import BUGS, Bug, found, planted


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    played = found(bug)
    assert played is not None, f"{bug.seeds} seeds of {bug.scenario} did not find that {bug.about}"
    checks = {one.check for one in played.unexpected}
    assert checks & {*bug.checks}, f"found by {checks}, and not by what is there for it"


def test_nothing_stays_planted() -> None:
    for bug in BUGS:
        with planted(bug):
            pass
    assert not play(load("partition"), 0).unexpected


def test_every_bug_that_was_promised_is_there() -> None:
    assert [bug.name for bug in BUGS] == [
        "hint-dropped",
        "hint-paid-before-the-commit",
        "breaker-stuck-half-open",
        "sibling-lost-in-merge",
        "stale-head-after-a-newer-one",
        "acknowledged-before-the-commit",
        "staged-envelope-shown",
        "expiry-off-by-one",
    ]
