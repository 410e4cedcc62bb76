"""The packages of js-libp2p: from npm by the lock, or as they were installed before."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "tests" / "interop"
INSTALL_SECONDS = 120.0


class JsUnavailable(Exception):
    """js-libp2p cannot be had here; the message says why."""


def installed() -> Path:
    """The folder of the programs (`*.mjs`) and of their packages, beside the interpreter. Raises `JsUnavailable`."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise JsUnavailable(f"js-libp2p needs Node.js, and there is no {program} on this machine")
    folder = Path(sys.prefix, "js-libp2p")
    folder.mkdir(exist_ok=True)
    with Path(folder, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = (SOURCES / "package-lock.json").read_bytes()
        marker = folder / "installed.json"
        for source in (*SOURCES.glob("*.mjs"), *SOURCES.glob("package*.json")):
            copy = folder / source.name
            if not copy.exists() or copy.read_bytes() != source.read_bytes():
                shutil.copy(source, copy)  # a program that another process starts now must not be cut off
        if not marker.exists() or marker.read_bytes() != wanted:
            _install(folder)
            marker.write_bytes(wanted)
    return folder


def _install(folder: Path) -> None:
    command = ["npm", "ci", "--prefer-offline", "--fetch-retries=0", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JsUnavailable(f"npm cannot install js-libp2p: {error}") from error
    if done.returncode:
        raise JsUnavailable(f"npm cannot install js-libp2p: {done.stderr.strip()[-300:]}")
