"""Every scenario for a few seeds, the standard mix for more, and every seed that once found a bug.

What breaks here is told with its seed and the command that replays it; thousands of seeds are `scripts/sim`'s.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netsim.checks.registry import CHECKS
from netsim.report import told
from netsim.runner import Played, play
from netsim.scenario.toml import load, names

ROOT = Path(__file__).parents[2]
FEW = range(2)
HEAVY = ("join-storm", "load")
"""One seed of these is work enough."""
MANY = range(16)

FOUND = [
    # A pong told since when the oldest hint that was due was owed, not the oldest of all: what a peer had refused for a
    # while was left out, and the peer took itself for up to date.
    ("disk-full", 0),
    ("disk-full", 3),
    # A clock that went back by two minutes: what everybody had taken long ago was issued again, and was there twice.
    ("clock-ahead", 0),
    ("clock-ahead", 3),
    # A pong said how old the oldest debt is by a wall clock that had been set back since: it looked young.
    ("standard", 472),
]
"""Seeds that found something, and what that was."""


def well(name: str, seed: int) -> Played:
    played = play(load(name), seed)
    assert not played.unexpected, told(name, seed, played.history, played.unexpected)
    return played


@pytest.mark.parametrize("name", names())
def test_every_scenario_keeps_every_promise(name: str) -> None:
    for seed in FEW[:1] if name in HEAVY else FEW:
        assert well(name, seed).history.states


@pytest.mark.parametrize("seed", MANY)
def test_the_standard_mix_keeps_every_promise(seed: int) -> None:
    well("standard", seed)


@pytest.mark.parametrize(("name", "seed"), FOUND)
def test_what_a_seed_once_found_stays_mended(name: str, seed: int) -> None:
    well(name, seed)


@pytest.mark.parametrize("name", [name for name in names() if load(name).expected_to_fail])
def test_what_is_expected_to_fail_does(name: str) -> None:
    """Once anti-entropy heals it, this says so, and the scenario's `expected_to_fail` goes."""
    scenario = load(name)
    missing = {*scenario.expected_to_fail}
    for seed in range(40):
        missing -= {one.check for one in play(scenario, seed).broken}
        if not missing:
            return
    raise AssertionError(f"{name}: {', '.join(sorted(missing))} held for 40 seeds; is it expected to fail no more?")


def test_only_what_anti_entropy_heals_is_expected_to_fail() -> None:
    for name in names():
        for check, reason in load(name).expected_to_fail.items():
            assert check in CHECKS
            assert reason.endswith("anti-entropy's work")


# -- one seed, one run ----------------------------------------------------------------------------------------------


def run_of(name: str, seed: int) -> str:
    played = play(load(name), seed, with_trace=True)
    return played.trace + "".join(f"{line}\n" for line in played.history.lines())


def test_one_seed_gives_one_trace_and_one_history_in_every_process() -> None:
    here = run_of("standard", 7)
    assert len(here) > 100_000
    assert here == run_of("standard", 7)
    assert here != run_of("standard", 8)
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    there = subprocess.run(
        [sys.executable, __file__, "standard", "7"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout == here


def test_the_simulator_does_without_libp2p_and_threads() -> None:
    code = (
        "import sys, threading; from netsim.runner import play; from netsim.scenario.toml import load;"
        "played = play(load('partition'), 1); "
        "sys.exit('libp2p' in sys.modules or threading.active_count() > 1 or bool(played.broken))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


if __name__ == "__main__":
    sys.stdout.write(run_of(sys.argv[1], int(sys.argv[2])))
