"""`bzzz sim live` as a user runs it: real processes under signals, partitions and flips; nothing is left of them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.history_reader import read_history

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 280


class Sim:
    """One run of 15 seconds. Its lines are read as they come."""

    def __init__(self, tmp_path: Path) -> None:
        self.history = tmp_path / "history.jsonl"
        self.folder = tmp_path / "tmp"
        self.folder.mkdir()
        arguments = ["sim", "live", "--seconds", "15", "--seed", "1", "--json", "--history", str(self.history)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node.cli", *arguments],
            cwd=ROOT, env={**os.environ, "TMPDIR": str(self.folder)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def lines(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def finished(self) -> int:
        return self.process.wait(SECONDS_MAX)


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Sim]:
    """A run whose temporary folder is in this test's. It is terminated if the test ends early."""
    sim = Sim(tmp_path)
    with sim.process:
        yield sim
        sim.process.terminate()


def test_nothing_is_lost_while_processes_are_paused_killed_parted_and_flipped(sim: Sim) -> None:
    """Every check but the one of times must hold: beside other tests the machine is not quiet."""
    lines = list(sim.lines())
    code = sim.finished()
    summary = lines[-1]
    assert [name for name in summary["broken"] if name != "in-time"] == [], lines[-2]["text"]
    assert code == (1 if summary["broken"] else 0)
    assert {"pause", "resume", "crash", "start", "partition", "mend", "flip", "heal"} <= set(summary["events"])
    assert summary["acknowledged"] > 50
    with sim.history.open() as written:
        history = read_history(written)
    assert len(history.states) == 5
    assert {op.backend for op in history.operations} >= {"hybrid", "mock", "real"}
    assert all(op.node_seconds is not None for op in history.operations if op.receipt is not None)
    assert list(sim.folder.iterdir()) == []


@pytest.mark.parametrize(("number", "moment"), [(signal.SIGINT, "act"), (signal.SIGTERM, "pause")])
def test_an_interrupted_run_leaves_nothing(sim: Sim, number: signal.Signals, moment: str) -> None:
    """While it starts its nodes, and while some are paused and cannot handle a signal."""
    lines = sim.lines()
    assert any(moment in (line["event"], line.get("kind")) for line in lines)
    children = psutil.Process(sim.process.pid).children(recursive=True)
    sim.process.send_signal(number)
    *_, summary = lines
    assert (sim.finished(), summary["event"], summary["interrupted"]) == (128 + number, "summary", True)
    assert not any(child.is_running() for child in children)
    assert list(sim.folder.iterdir()) == []
