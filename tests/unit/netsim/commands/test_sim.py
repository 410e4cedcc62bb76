"""`bzzz sim`: what it prints, and its exit codes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from netsim.scenario.toml import names
from node.cli import cli
from tests.history_reader import read_history

ROOT = Path(__file__).parents[4]
SHORT = """
about = "short"
nodes = 3
[limits]
faults_seconds = 2.0
"""
CROWDED = (
    SHORT
    + """tasks_per_node = 1
[[fault]]
kind = "crash"
nodes = ["n2"]
at = 1.0
until = 1.5
"""
)
"""More tasks than it allows, whatever nodes do."""


def sim(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["sim", *arguments])


def test_list_names_every_scenario_and_what_it_is_about() -> None:
    listed = json.loads(sim("list", "--json").output)
    assert [row["name"] for row in listed] == names()
    assert all(row["about"] for row in listed)
    assert all(f"{name} " in sim("list").output for name in names())


def test_a_run_that_goes_well_says_so_and_exits_with_0(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(SHORT)
    ran = sim("run", str(tmp_path / "short.toml"), "--world", "virtual", "--seed", "3", "--runs", "2")
    assert (ran.exit_code, ran.output.splitlines()[-1]) == (0, "2 runs, 0 failed")


def test_a_broken_check_is_printed_and_exits_with_1_and_the_trace_and_history_are_written(tmp_path: Path) -> None:
    file, trace, history = tmp_path / "crowded.toml", tmp_path / "trace", tmp_path / "history"
    file.write_text(CROWDED)
    ran = sim("run", str(file), "--trace", str(trace), "--history", str(history))
    assert (ran.exit_code, ran.output.splitlines()[-1]) == (1, "1 runs, 1 failed")
    assert f"again: bzzz sim run {file} --world virtual --seed 0" in ran.output
    assert "n1 listens" in trace.read_text()
    assert "world crash n2 was killed" in trace.read_text()
    assert read_history(history.read_text().splitlines()).operations


def test_what_is_expected_to_fail_is_printed_and_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "crowded.toml").write_text(CROWDED + '[expected_to_fail]\nbounded = "later"\n')
    ran = sim("run", str(tmp_path / "crowded.toml"))
    assert (ran.exit_code, ran.output.splitlines()[-1]) == (0, "1 runs, 0 failed")
    assert "expected to fail: bounded, and did in 1 of 1 (later)" in ran.output


def test_json_has_an_object_a_run_and_one_for_all(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(SHORT)
    rows = [
        json.loads(line)
        for line in sim("run", str(tmp_path / "short.toml"), "--runs", "2", "--json").stdout.splitlines()
    ]
    assert [row.get("seed") for row in rows] == [0, 1, None]
    assert rows[-1] == {"runs": 2, "failed": 0}


def test_what_cannot_be_played_is_refused_with_2(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(SHORT + "nodez = 3\n")
    ran = sim("run", str(tmp_path / "bad.toml"))
    assert ran.exit_code == 2
    assert "limits.nodez" in ran.output
    assert sim("run", "partitoin").exit_code == 2
    assert sim("run", "partition", "--runs", "0").exit_code == 2


def test_a_flip_says_which_backend_and_is_played(tmp_path: Path) -> None:
    flip = '[[fault]]\nkind = "flip"\nnodes = ["n1", "n2"]\nat = 0.5\n'
    (tmp_path / "flip.toml").write_text(SHORT + flip + 'backend = "mock"\n')
    assert sim("run", str(tmp_path / "flip.toml")).exit_code == 0
    (tmp_path / "flip.toml").write_text(SHORT + flip)
    assert "a flip needs it" in sim("run", str(tmp_path / "flip.toml")).output


def test_live_runs_are_bounded_and_explained() -> None:
    text = sim("live", "--help").output
    assert all(option in text for option in ("--seconds", "--seed", "--json", "--keep", "--history"))
    assert sim("live", "--seconds", "9").exit_code == 2
    assert sim("live", "--seed", "-1").exit_code == 2


def test_a_live_run_takes_no_scenario_and_names_the_command_that_does() -> None:
    for scenario in ("clock-jump", "faults.toml"):
        refused = sim("live", scenario, "--seconds", "10")
        assert refused.exit_code == 2
        words = " ".join(refused.output.split())
        assert f"{scenario} is not played live: a live run takes no scenario" in words
        assert f"'bzzz sim run {scenario}' plays it" in words


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none" / "file")
    for arguments in (("run", "load", "--trace", nowhere), ("run", "load", "--history", nowhere)):
        refused = sim(*arguments)
        assert (refused.exit_code, "there is no directory" in refused.output) == (2, True)
    assert sim("live", "--history", nowhere).exit_code == 2


def test_many_runs_over_processes_end_when_they_are_interrupted() -> None:
    command = [sys.executable, "-m", "node.cli", "sim", "run", "partition", "--runs", "100000", "--jobs", "2", "--json"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b'{"seed": 0')
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            assert process.wait(timeout=60.0) != 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
