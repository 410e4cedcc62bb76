"""`bzzz up` as processes: how tests of the command line start a node, call it, and read why its start was refused."""

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from tests.unit.node.processes import BZZZ, bzzz_process, environment

ADDRESS = "ucxl://agent:role@project:task/*^/notes/a.md"
STOP_SECONDS = 20.0
"""A node cuts its stop off by itself (`STOP_SECONDS_MAX`); the rest is for a busy machine."""
READY_SECONDS = 60.0


class Process:
    """One `bzzz up`, whose standard output is read line by line and whose log is in a file."""

    def __init__(
        self, log: Path, *arguments: str, variables: Mapping[str, str] | None = None, descriptors: int | None = None
    ) -> None:
        self.log = log
        limited = () if descriptors is None else ("sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh")
        with log.open("ab") as stderr:
            self.popen = subprocess.Popen(
                [*limited, *BZZZ, "up", *arguments],
                stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL,
                env=environment(**(variables or {})),
                start_new_session=True,  # without a terminal, SIGHUP has the configuration read again
            )  # fmt: skip

    @property
    def stdout(self) -> IO[bytes]:
        assert self.popen.stdout is not None
        return self.popen.stdout

    def ready(self) -> dict[str, Any]:
        """Wait for its ready line, and return it read from JSON."""
        line = self.stdout.readline()
        assert line, self.log.read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code. Raises `TimeoutExpired` when it does not end in time."""
        self.popen.send_signal(number)
        return self.popen.wait(STOP_SECONDS)

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        self.stdout.close()


Up = Callable[..., Process]


def call(api: str, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(api + path, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def envelope(address: str = ADDRESS) -> str:
    return f"/v1/envelope?address={quote(address, safe='')}"


def data_of(api: str, path: str) -> dict[str, Any]:
    """The data of an answer."""
    data: dict[str, Any] = json.loads(call(api, path)[1])["response"]["data"]
    return data


def connected(api: str) -> int:
    """How many peers a node is connected with."""
    return sum(1 for peer in data_of(api, "/v1/peers")["peers"] if peer["connected"])


def refusal(*arguments: str, **variables: Any) -> str:
    """The only line of a node whose start is refused; `variables` are added to its environment."""
    ended = bzzz_process("up", *arguments, **variables)
    assert (ended.returncode, ended.stdout) == (2, b""), ended
    line = ended.stderr.decode()
    assert line.startswith("bzzz: ") and line.count("\n") == 1, line
    return line
