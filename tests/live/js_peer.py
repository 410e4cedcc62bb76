"""js-libp2p as a peer: its packages, from npm or as they were installed before, and the process."""

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from netsim.lan.site import Host

SOURCES = Path(__file__).with_name("js")
INSTALL_SECONDS = 120.0


class JsUnavailable(Exception):
    """js-libp2p cannot be had here; the message says why."""


def installed() -> Path:
    """The folder of the peer's program and of its packages, beside the interpreter. Raises `JsUnavailable`."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise JsUnavailable(f"there is no {program} on this machine")
    folder = Path(sys.prefix, "js-peer")
    folder.mkdir(exist_ok=True)
    with Path(folder, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = (SOURCES / "package-lock.json").read_bytes()
        marker = folder / "installed.json"
        for source in SOURCES.iterdir():
            shutil.copy(source, folder)
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


class JsPeer:
    """The process, on a host of a LAN. It writes a line for each peer that it finds or that connects."""

    def __init__(self, host: Host, output: Path) -> None:
        self._output = output
        with output.open("wb") as out:
            host.namespace.start(["node", "peer.mjs"], cwd=installed(), stdout=out, stderr=subprocess.STDOUT)

    def lines(self) -> list[dict[str, Any]]:
        """What it wrote until now."""
        text = self._output.read_text(encoding="utf-8", errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    @property
    def peer_id(self) -> str:
        """'' until it runs."""
        return next((line["peer"] for line in self.lines() if "peer" in line), "")

    def found(self) -> set[str]:
        return {line["found"] for line in self.lines() if "found" in line}

    def connected(self) -> set[str]:
        return {line["connected"] for line in self.lines() if "connected" in line}
