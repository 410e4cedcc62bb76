"""What a test leaves running, or in the checkout, fails the whole run, be it of one process or of several."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.node.processes import REPOSITORY, environment

LEAKS = """
import threading
import tests.conftest

tests.conftest.LEAVE_SECONDS_MAX = 0.1  # what never leaves is waited for in vain

def test_that_leaves_a_thread() -> None:
    threading.Thread(target=threading.Event().wait, name="left over", daemon=True).start()

def test_that_leaves_nothing() -> None:
    pass
"""


FILES = """
from pathlib import Path

def test_that_writes_a_file_beside_the_sources(pytestconfig) -> None:
    (pytestconfig.rootpath / "new\\n").touch()
    (pytestconfig.rootpath / "old").write_text("new")

def test_that_writes_a_file_where_it_runs() -> None:
    assert not Path("pyproject.toml").exists()
    Path("anything").touch()
"""


def run(folder: Path, *, workers: str) -> str:
    """What a run of the tests in a folder, which stands for the checkout, says in the end. It must fail."""
    options = ["-c", str(REPOSITORY / "pyproject.toml"), f"--rootdir={folder}", "-p", "tests.conftest"]
    options += ["-p", "no:cacheprovider", "-n", workers]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        capture_output=True, text=True, cwd=REPOSITORY, env=environment(), timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "2 passed" in done.stdout
    return done.stdout


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_is_left_running_fails_the_run(workers: str, tmp_path: Path) -> None:
    (tmp_path / "test_leaks.py").write_text(LEAKS, encoding="utf-8")
    said = run(tmp_path, workers=workers)
    assert said.count("thread left over") == 1, said


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_is_left_in_the_checkout_fails_the_run(workers: str, tmp_path: Path) -> None:
    (tmp_path / "test_files.py").write_text(FILES, encoding="utf-8")
    (tmp_path / "old").touch()
    said = run(tmp_path, workers=workers)
    assert said.count(f"file 'new\\n' in {tmp_path}") == 1, said
    assert said.count("which was not there before") == 1, said
