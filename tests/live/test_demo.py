"""The demonstration as a user runs it: real processes, and nothing is left of them, also after an interrupt."""

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

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 240


class Demo:
    """One run. Its lines are read as they come."""

    def __init__(self, tmp_path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "netsim.demo", "--json", "--replication", "2", "--writes", "20"],
            cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pids: list[int] = []

    def lines(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.pids += [node["pid"] for node in event.get("nodes", [])]
            yield event

    def finished(self) -> int:
        return self.process.wait(SECONDS_MAX)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """A run whose temporary folder is in this test's. It is terminated if the test ends early."""
    demo = Demo(tmp_path)
    with demo.process:
        yield demo
        demo.process.terminate()


def test_the_demonstration_loses_nothing_and_leaves_nothing(tmp_path: Path, demo: Demo) -> None:
    """Answers must be right. How fast they are says something on a quiet machine only, so it is not checked here."""
    lines = list(demo.lines())
    code = demo.finished()
    summary = lines[-1]
    checks = [line for line in lines if line["event"] == "check"]
    wrong = [check for check in checks if not check["ok"] and check.get("right", -1) != check.get("calls")]
    assert wrong == []
    assert len(checks) == 10
    assert (summary["event"], summary["lost"], summary["acknowledged"]) == ("summary", 0, 120)
    assert code == (0 if summary["ok"] else 1)
    assert summary["ok"] == all(check["ok"] for check in checks)
    assert len(demo.pids) == 5
    assert not any(psutil.pid_exists(pid) for pid in demo.pids)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "act"), [(signal.SIGINT, "start"), (signal.SIGTERM, "frozen")])
def test_an_interrupted_demonstration_leaves_nothing(
    tmp_path: Path, demo: Demo, number: signal.Signals, act: str
) -> None:
    """While it starts its nodes, and while four of them are frozen and cannot handle a signal."""
    lines = demo.lines()
    assert any(line["event"] == "act" and line["name"] == act for line in lines)
    children = psutil.Process(demo.process.pid).children(recursive=True)
    demo.process.send_signal(number)
    *_, summary = lines
    code = demo.finished()
    assert (code, summary["event"], summary["interrupted"]) == (128 + number, "summary", True)
    assert not any(child.is_running() for child in children)
    assert list(tmp_path.iterdir()) == []
