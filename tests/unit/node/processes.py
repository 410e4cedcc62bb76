"""Runs `bzzz` as a process of its own: what is about its standard streams, its signals and its arguments as bytes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]
"""Processes run its code, in whatever folder they are started."""
BZZZ = (sys.executable, "-m", "node.cli")
WAIT_SECONDS = 180.0


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BZZZ_", "PYTHON"))}
    return {**kept, "PYTHONPATH": str(REPOSITORY), **more}


def bzzz_process(
    *arguments: str | bytes,
    stdin: Any = subprocess.DEVNULL,
    stdout: Any = subprocess.PIPE,
    stderr: Any = subprocess.PIPE,
    before: Callable[[], object] | None = None,
    **variables: str,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end. `before` is called in the new process, `variables` are added to its environment."""
    return subprocess.run(
        [*BZZZ, *arguments],
        stdin=stdin, stdout=stdout, stderr=stderr, env=environment(**variables), preexec_fn=before,
        timeout=WAIT_SECONDS, check=False,
    )  # fmt: skip
