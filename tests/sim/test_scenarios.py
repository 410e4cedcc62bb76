"""Every scenario for a few seeds, the standard mix for more, and every seed that once found a bug.

A failure has its seed and the command that replays it. `scripts/sim` runs thousands of seeds.
"""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netsim.history_file import history_lines
from netsim.report import failure_report
from netsim.scenario.toml import load, names
from netsim.seeds import play_many
from netsim.virtual.play import RunResult, play
from node.node import Node

ROOT = Path(__file__).parents[2]
FEW = range(2)
HEAVY = ("join-storm", "large-swarm", "load")
"""One seed of these takes long enough."""
MANY = range(16)

FOUND = [
    # A pong had the age of the oldest hint that was due, not of the oldest of all: hints that a peer had refused for a
    # while were left out, and the peer counted as up to date.
    ("disk-full", 0),
    ("disk-full", 3),
    # A clock that went back by two minutes: versions that every node had were reissued, and were there twice.
    ("clock-ahead", 0),
    ("clock-ahead", 3),
    # A pong had the age of the oldest hint by a wall clock that had been set back since: the hint looked young.
    ("standard", 472),
]
"""Seeds that found a bug, each with the bug."""


def play_well(name: str, seed: int) -> RunResult:
    result = play(load(name), seed)
    assert not result.unexpected, failure_report(name, seed, result.history, result.unexpected)
    return result


@pytest.mark.parametrize("name", names())
def test_every_scenario_keeps_every_promise(name: str) -> None:
    for seed in FEW[:1] if name in HEAVY else FEW:
        assert play_well(name, seed).history.states


@pytest.mark.parametrize("seed", MANY)
def test_the_standard_mix_keeps_every_promise(seed: int) -> None:
    play_well("standard", seed)


@pytest.mark.parametrize(("name", "seed"), FOUND)
def test_a_bug_that_a_seed_once_found_stays_fixed(name: str, seed: int) -> None:
    play_well(name, seed)


def test_no_check_is_expected_to_fail() -> None:
    """A scenario may say that one is, with the reason. A scenario that is delivered does not."""
    assert not [name for name in names() if load(name).expected_to_fail]


# -- one seed, one run ----------------------------------------------------------------------------------------------


def run_of(name: str, seed: int) -> str:
    result = play(load(name), seed, with_trace=True)
    return result.trace + "".join(f"{line}\n" for line in history_lines(result.history))


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
        "import sys, threading; from netsim.virtual.play import play; from netsim.scenario.toml import load;"
        "result = play(load('partition'), 1); "
        "sys.exit('libp2p' in sys.modules or threading.active_count() > 1 or bool(result.violations))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


if __name__ == "__main__":
    sys.stdout.write(run_of(sys.argv[1], int(sys.argv[2])))


def test_many_runs_keep_no_node_in_memory() -> None:
    for summary in play_many("partition", load("partition"), range(2)):
        assert summary.calls
        assert not any(isinstance(one, Node) for one in gc.get_objects())
