"""One real node: a `bzzz up` process with its own data directory, which can be paused, killed and started again."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from netsim.processes.client import NodeClient
from netsim.processes.interrupts import Interrupts

BZZZ = Path(sys.executable).with_name("bzzz")
SOURCES = Path(__file__).resolve().parents[2]
"""Nodes run the same code as this program, whatever directory they are started in."""
READY_SECONDS_MAX = 60.0
END_SECONDS_MAX = 3.0
"""For five nodes at once on two cores; a node alone must end within two seconds."""


class NodeProcessFailed(Exception):
    """A node did not start, or ended by itself; the message has its name, the reason, and the end of its log."""


class NodeProcess:
    """The process, and what its ready line says of it. Not started when constructed."""

    def __init__(
        self, name: str, folder: Path, *, replication: int, interrupts: Interrupts, configuration: str = ""
    ) -> None:
        """`configuration` is the YAML of its configuration file, which `configure` replaces; '': no file."""
        self.name = name
        self._configuration = configuration
        self._folder = folder
        self._replication = replication
        self._interrupts = interrupts
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self.peer_id = ""
        self.api = ""
        self.multiaddrs: tuple[str, ...] = ()
        self._client: NodeClient | None = None
        self._reserved: socket.socket | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        return self._folder / "node.log"

    @property
    def client(self) -> NodeClient:
        """Of its API. Only for a node that is ready."""
        assert self._client is not None
        return self._client

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self, bootstrap: Sequence[str]) -> None:
        """Start it: on free ports the first time, later on the same swarm port. `wait_ready` comes next."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._configuration and not self._config_file.exists():
            self.configure(self._configuration)
        self._starts += 1
        with self._output().open("wb") as output, self.log.open("ab") as log, self._interrupts.held():
            self._process = subprocess.Popen(
                self._command(bootstrap),
                stdin=subprocess.DEVNULL, stdout=output, stderr=log, env=self._environment(), cwd=self._folder,
                start_new_session=True,  # Ctrl-C reaches this program alone, which then ends its nodes itself
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait for its ready line. Raises `NodeProcessFailed` when it ends before, or takes longer than a minute."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not (line := self._ready_line()):
            code = self._process.poll() if self._process else None
            if code is not None:
                raise NodeProcessFailed(
                    f"node {self.name} ended with exit code {code} before it was ready{self._log_end()}"
                )
            if time.monotonic() > deadline:
                raise NodeProcessFailed(
                    f"node {self.name} was not ready after {READY_SECONDS_MAX:g} s{self._log_end()}"
                )
            time.sleep(0.02)
        ready = json.loads(line)
        self.peer_id, self.api, self.multiaddrs = ready["peer_id"], ready["api"], tuple(ready["multiaddrs"])
        self._release_port()
        if self._client is not None:
            self._client.close()
        self._client = NodeClient(self.api)

    def configure(self, configuration: str) -> None:
        """Replace its configuration file: a start reads it, and so does a running node on `reload`."""
        written = self._config_file.with_suffix(".new")
        written.write_text(configuration, "utf-8")
        written.replace(self._config_file)

    def reload(self) -> None:
        """SIGHUP. Only for a node that has been ready: one that is still starting would end."""
        self._send(signal.SIGHUP)

    def freeze(self) -> None:
        """SIGSTOP: it stays connected, reads nothing and answers nothing."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: it closes nothing and flushes nothing."""
        self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._reserve_port()

    def ask_to_end(self) -> None:
        """SIGTERM; a paused process is resumed, so that it can handle the signal."""
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)

    def check_runs(self) -> None:
        """Raise `NodeProcessFailed` when it has ended by itself."""
        code = self._process.poll() if self._process else None
        if code is not None:
            raise NodeProcessFailed(f"node {self.name} ended by itself, with exit code {code}{self._log_end()}")

    def wait_ended(self, deadline: float) -> int | None:
        """Its exit code; None when it was still there at `deadline` (monotonic seconds) and had to be killed."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        finally:
            self._release_port()
            if self._client is not None:
                self._client.close()

    def ports_are_free(self) -> bool:
        """Whether all ports that it listened on are free again."""
        return all(_is_free(port) for port in [*self._swarm_ports(), urlsplit(self.api).port or 0])

    def _swarm_ports(self) -> list[int]:
        return [int(address.split("/tcp/")[1].split("/")[0]) for address in self.multiaddrs]

    def _reserve_port(self) -> None:
        """While it does not run the kernel gives its port to no other program. A socket that does not listen keeps it
        from nobody who asks for this very port: the node itself."""
        if self.multiaddrs and self._reserved is None:
            self._reserved = socket.socket()
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                self._reserved.bind(("127.0.0.1", self._swarm_ports()[0]))

    def _release_port(self) -> None:
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    # -- what it is started with -------------------------------------------------------------------------------------

    def _command(self, bootstrap: Sequence[str]) -> list[str]:
        listen = self.multiaddrs[0].split("/p2p/")[0] if self.multiaddrs else "/ip4/127.0.0.1/tcp/0"
        command = [sys.executable, "-m", "node.cli", "up", "--name", self.name, "--data-dir", str(self.data_dir)]
        command += ["--json", "--no-mdns"]
        command += ["--listen", listen, "--api", "127.0.0.1:0"]
        if self._configuration:
            command += ["--config", str(self._config_file)]
        for address in bootstrap:
            command += ["--bootstrap", address]
        return command

    def _environment(self) -> dict[str, str]:
        """This program's environment, without the variables that configure a node."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BZZZ_", "RUSTLE_"))}
        paths = filter(None, (str(SOURCES), kept.get("PYTHONPATH", "")))
        return kept | {"BZZZ_REPLICATION": str(self._replication), "PYTHONPATH": os.pathsep.join(paths)}

    @property
    def data_dir(self) -> Path:
        return self._folder / "data"

    @property
    def _config_file(self) -> Path:
        return self._folder / "node.yaml"

    def _output(self) -> Path:
        return self._folder / f"ready-{self._starts}.json"

    def _ready_line(self) -> str:
        for line in self._output().read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            if line.endswith("\n") and '"ready"' in line:
                return line
        return ""

    def _log_end(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
        return "; the end of its log:\n    " + "\n    ".join(lines) if lines else "; its log is empty"

    def _send(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ended connections in TIME_WAIT do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
