"""Every mutant is found, within the seeds that it names, by one of the checks that it names."""

import pytest

from netsim.scenario.toml import load
from netsim.virtual.play import play
from tests.sim.mutants import MUTANTS, Mutant, applied, find


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_found(mutant: Mutant) -> None:
    result = find(mutant)
    assert result is not None, f"{mutant.seeds} seeds of {mutant.scenario} did not find that {mutant.about}"
    checks = {one.check for one in result.unexpected}
    assert checks & {*mutant.checks}, f"found by {checks}, and not by a check that must find it"


def test_no_mutant_stays_applied() -> None:
    for mutant in MUTANTS:
        with applied(mutant):
            pass
    assert not play(load("partition"), 0).unexpected


def test_every_promised_mutant_is_there() -> None:
    assert [mutant.name for mutant in MUTANTS] == [
        "hint-dropped",
        "hint-acknowledged-before-the-commit",
        "notice-hides-what-it-names",
        "others-are-not-fed",
        "acknowledgement-outlives-its-log",
        "breaker-stuck-half-open",
        "sibling-lost-in-merge",
        "stale-head-after-a-newer-one",
        "acknowledged-before-the-commit",
        "staged-envelope-shown",
        "expiry-off-by-one",
    ]
