"""One network namespace: interfaces, addresses and processes of its own, all gone when it is deleted.

The name has the id of the process that made it, and random digits: two runs on one machine never meet, and what a run
left behind that was killed is recognised and removed by the next one (`sweep`).
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PREFIX = "bzzz-lan"
COMMAND_SECONDS = 60.0
END_SECONDS = 20.0
"""How long its processes may take to be gone after SIGKILL."""
_FOLDER = Path("/var/run/netns")
_CLONE_NEWNET = 0x40000000


class LanUnavailable(Exception):
    """This machine cannot make network namespaces; the message says what is missing."""


def ip(*arguments: str, inside: str = "") -> str:
    """Run iproute2's `ip`, in a namespace if one is named, and return its output. Raises `LanUnavailable`."""
    command = ["ip", *(("-n", inside) if inside else ()), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LanUnavailable(f"`{' '.join(command)}` cannot be run: {error}") from error
    if done.returncode:
        raise LanUnavailable(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.returncode}")
    return done.stdout


def sweep() -> None:
    """Delete the namespaces of runs that ended without deleting them."""
    for path in _FOLDER.glob(f"{PREFIX}-*"):
        owner = path.name.removeprefix(f"{PREFIX}-").split("-", 1)[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(LanUnavailable):
                Namespace(path.name).delete()


class Namespace:
    """`name` is that of `ip netns`. It exists from `create` to `delete`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[bytes]] = []

    def create(self) -> None:
        ip("netns", "add", self.name)
        ip("link", "set", "lo", "up", inside=self.name)

    def delete(self) -> None:
        """Kill its processes and delete it, with all its interfaces. May be called twice."""
        self.kill_processes()
        if (_FOLDER / self.name).exists():
            ip("netns", "del", self.name)

    def ip(self, *arguments: str) -> str:
        return ip(*arguments, inside=self.name)

    def query(self, *arguments: str) -> list[dict[str, Any]]:
        """The output of an `ip` command that prints JSON."""
        found: list[dict[str, Any]] = json.loads(self.ip("-json", *arguments) or "[]")
        return found

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in a thread inside the namespace, where what it opens stays. Raises what it raises."""
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                _enter(self.name)
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, name=f"in {self.name}")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def set_kernel(self, name: str, value: str) -> None:
        """Set a variable under /proc/sys/net, such as `ipv4/ip_forward`."""
        self.call(lambda: Path("/proc/sys/net", name).write_text(value, encoding="ascii"))

    # -- processes ----------------------------------------------------------------------------------------------------

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process inside; `options` are those of `subprocess.Popen`. It is killed with the namespace."""
        process = subprocess.Popen(self.command(command), **{"start_new_session": True, **options})
        self._processes.append(process)
        return process

    def command(self, command: Sequence[str]) -> list[str]:
        """The same command, run inside. `ip` becomes the command, so the process id is its own."""
        return ["ip", "netns", "exec", self.name, *command]

    def pids(self) -> list[int]:
        if not (_FOLDER / self.name).exists():
            return []
        return [int(pid) for pid in ip("netns", "pids", self.name).split()]

    def kill_processes(self) -> None:
        """Kill those that were started here, and any other one that is inside."""
        for process in self._processes:
            process.kill()  # it may still be on its way into the namespace
            process.wait(END_SECONDS)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        self._processes.clear()
        deadline = time.monotonic() + END_SECONDS
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def _enter(name: str) -> None:
    """Move this thread into a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(_FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(handle, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter the namespace {name}: {os.strerror(number)}")
    finally:
        os.close(handle)
