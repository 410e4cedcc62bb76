"""One real node: a `bzzz up` process with its own data directory, which can be frozen, killed and started again."""

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
"""Nodes run the code that this program is of, wherever they are started."""
READY_SECONDS_MAX = 60.0
END_SECONDS_MAX = 3.0
"""For five at once on two cores: one alone has two seconds."""


class NodeProcessFailed(Exception):
    """A node did not do what every node does; the message says which, what, and what it said itself."""


class NodeProcess:
    """The process, and what is known of it from its own words. Not started when constructed."""

    def __init__(
        self, name: str, folder: Path, *, replication: int, interrupts: Interrupts, configuration: str = ""
    ) -> None:
        """`configuration` is YAML for a file of its own, which `configure` changes; '': it has none."""
        self.name = name
        self._configuration = configuration
        self._folder = folder
        self._replication = replication
        self._interrupts = interrupts
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self.is_frozen = False
        self.peer_id = ""
        self.api = ""
        self.multiaddrs: tuple[str, ...] = ()
        self.client: NodeClient | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        return self._folder / "node.log"

    def ask(self) -> NodeClient:
        """Its API. Only of a node that is ready."""
        assert self.client is not None
        return self.client

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self, bootstrap: Sequence[str]) -> None:
        """Start it, on any free ports at first and on the same swarm port ever after; `wait_ready` comes next."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._configuration and not self._file.exists():
            self.configure(self._configuration)
        self._starts += 1
        with self._output().open("wb") as output, self.log.open("ab") as log, self._interrupts.held():
            self._process = subprocess.Popen(
                self._command(bootstrap),
                stdin=subprocess.DEVNULL, stdout=output, stderr=log, env=self._environment(), cwd=self._folder,
                start_new_session=True,  # Ctrl-C is for the demonstration, which then ends its nodes itself
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait for its ready line. Raises `NodeProcessFailed` when it ends before, or takes longer than a minute."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not (line := self._ready_line()):
            code = self._process.poll() if self._process else None
            if code is not None:
                raise NodeProcessFailed(
                    f"node {self.name} ended with exit code {code} before it was ready{self._last_words()}"
                )
            if time.monotonic() > deadline:
                raise NodeProcessFailed(
                    f"node {self.name} was not ready after {READY_SECONDS_MAX:g} s{self._last_words()}"
                )
            time.sleep(0.02)
        told = json.loads(line)
        self.peer_id, self.api, self.multiaddrs = told["peer_id"], told["api"], tuple(told["multiaddrs"])
        if self.client is not None:
            self.client.close()
        self.client = NodeClient(self.api)

    def configure(self, configuration: str) -> None:
        """Replace its file whole: a start reads it, and `reload` has a running node read it."""
        written = self._file.with_suffix(".new")
        written.write_text(configuration, "utf-8")
        written.replace(self._file)

    def reload(self) -> None:
        """SIGHUP. Only for a node that has been ready: one that is just starting would end by it."""
        self._send(signal.SIGHUP)

    def freeze(self) -> None:
        """Stop its clock: it stays connected, reads nothing and answers nobody."""
        self._send(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        self._send(signal.SIGCONT)
        self.is_frozen = False

    def kill(self) -> None:
        """kill -9: no farewell, nothing flushed."""
        self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def ask_to_end(self) -> None:
        """SIGTERM; a frozen process is thawed so that it can hear it."""
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)

    def check_runs(self) -> None:
        """Raise `NodeProcessFailed` when it has ended, which it was not asked to."""
        code = self._process.poll() if self._process else None
        if code is not None:
            raise NodeProcessFailed(f"node {self.name} ended by itself, with exit code {code}{self._last_words()}")

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
            if self.client is not None:
                self.client.close()

    def ports_are_free(self) -> bool:
        """True when what it listened on can be listened on again."""
        ports = [int(address.split("/tcp/")[1].split("/")[0]) for address in self.multiaddrs]
        return all(_is_free(port) for port in [*ports, urlsplit(self.api).port or 0])

    # -- what it is started with -------------------------------------------------------------------------------------

    def _command(self, bootstrap: Sequence[str]) -> list[str]:
        listen = self.multiaddrs[0].split("/p2p/")[0] if self.multiaddrs else "/ip4/127.0.0.1/tcp/0"
        command = [
            sys.executable,
            "-m",
            "node.cli",
            "up",
            "--name",
            self.name,
            "--data-dir",
            str(self.data_dir),
            "--json",
            "--no-mdns",
        ]
        command += ["--listen", listen, "--api", "127.0.0.1:0"]
        if self._configuration:
            command += ["--config", str(self._file)]
        for address in bootstrap:
            command += ["--bootstrap", address]
        return command

    def _environment(self) -> dict[str, str]:
        """Ours, without what would configure a node behind the demonstration's back."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BZZZ_", "RUSTLE_"))}
        paths = filter(None, (str(SOURCES), kept.get("PYTHONPATH", "")))
        return kept | {"BZZZ_REPLICATION": str(self._replication), "PYTHONPATH": os.pathsep.join(paths)}

    @property
    def data_dir(self) -> Path:
        return self._folder / "data"

    @property
    def _file(self) -> Path:
        return self._folder / "node.yaml"

    def _output(self) -> Path:
        return self._folder / f"ready-{self._starts}.json"

    def _ready_line(self) -> str:
        for line in self._output().read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            if line.endswith("\n") and '"ready"' in line:
                return line
        return ""

    def _last_words(self) -> str:
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
        return "; it said:\n    " + "\n    ".join(said) if said else ", and said nothing"

    def _send(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have just ended do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
