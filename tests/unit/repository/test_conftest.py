"""What a test leaves running fails the whole run, whether it ran in this process or in a worker."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.node.processes import REPOSITORY, environment

LEAKS = """
import threading

def test_that_leaves_a_thread() -> None:
    threading.Thread(target=threading.Event().wait, name="left over", daemon=True).start()

def test_that_leaves_nothing() -> None:
    pass
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_is_left_running_fails_the_run(workers: str, tmp_path: Path) -> None:
    (tmp_path / "test_leaks.py").write_text(LEAKS, encoding="utf-8")
    options = [
        "-c",
        str(REPOSITORY / "pyproject.toml"),
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-n",
        workers,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        capture_output=True, text=True, cwd=REPOSITORY, env=environment(), timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "2 passed" in done.stdout
    assert done.stdout.count("thread left over") == 1, done.stdout
