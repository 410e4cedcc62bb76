"""A node on a host of a LAN: a `bzzz up` process that listens on all its addresses, and its API there."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netsim.lan.site import LanHost

SOURCES = Path(__file__).resolve().parents[2]
"""Nodes run the same code as this program."""
PORT = 4001
_API = "127.0.0.1:8080"
CALL_SECONDS = 10.0
STOP_SECONDS = 5.0


class LanNodeFailed(Exception):
    """A node did not become ready, or did not end; the message has the end of its log."""


class LanNode:
    """One node on `host`, with its data and its log in `folder`. Not started when constructed."""

    def __init__(self, host: LanHost, folder: Path) -> None:
        self.host = host
        self.name = host.name
        self.peer_id = ""
        self.multiaddrs: tuple[str, ...] = ()
        self._folder = folder / host.name
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *options: str, environment: Mapping[str, str] | None = None) -> None:
        """Start it with further options of `bzzz up`, and variables of the environment. `wait_ready` comes next."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "node.cli", "up", "--json", "--open", "--name", self.name, "--api", _API]
        command += ["--data-dir", str(self._folder / "data")]
        if any(each.lan.has_ip4 for each in self.host.interfaces):
            command += ["--listen", f"/ip4/0.0.0.0/tcp/{PORT}"]
        if any(each.lan.has_ip6 for each in self.host.interfaces):
            command += ["--listen", f"/ip6/::/tcp/{PORT}"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BZZZ_", "RUSTLE_"))}
        variables = kept | {"PYTHONPATH": str(SOURCES)} | dict(environment or {})
        with (self._folder / "log").open("ab") as log:
            self._process = self.host.namespace.start(
                [*command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=variables
            )

    def wait_ready(self) -> None:
        """Wait for its ready line. Raises `LanNodeFailed` when it ends instead."""
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LanNodeFailed(f"{self.name} ended before it was ready: {self.log[-2000:]}")
        ready = json.loads(line)
        self.peer_id, self.multiaddrs = ready["peer_id"], tuple(ready["multiaddrs"])

    def address_on(self, ip: str) -> str:
        """The multiaddr by which another host dials it at one of its IP addresses."""
        return next(address for address in self.multiaddrs if f"/{ip}/" in address)

    def get(self, path: str) -> dict[str, Any]:
        """The data of an answer of its API. Raises OSError when there is none."""
        return self._call(urllib.request.Request(f"http://{_API}{path}"))

    def change(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        """Send its API an object in JSON. Raises OSError when it is refused."""
        headers = {"Content-Type": "application/json"}
        self._call(urllib.request.Request(f"http://{_API}{path}", json.dumps(body).encode(), headers, method=method))

    def _call(self, request: urllib.request.Request) -> dict[str, Any]:
        def fetch() -> dict[str, Any]:
            with urllib.request.urlopen(request, timeout=CALL_SECONDS) as response:
                data: dict[str, Any] = json.load(response)["response"]["data"]
                return data

        return self.host.namespace.call(fetch)

    def connected(self) -> frozenset[str]:
        """The names of the members that it is connected with."""
        return frozenset(peer["name"] for peer in self.get("/v1/peers")["peers"] if peer["connected"])

    def stop(self) -> None:
        """End it in good order. Raises `LanNodeFailed` when it does not end."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LanNodeFailed(f"{self.name} did not end within {STOP_SECONDS:g} s: {self.log[-2000:]}") from None

    def wipe(self) -> None:
        """Remove its data, its identity among them. It must not run."""
        shutil.rmtree(self._folder / "data")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
