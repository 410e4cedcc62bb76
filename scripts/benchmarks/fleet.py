"""A fleet of worker processes: start them, let them meet, give them orders, freeze and end them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

MEET_SECONDS_MAX = 60.0


class FleetNode:
    """One worker process; orders and answers are lines of JSON."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        backend: str,
        bootstrap: list[str],
        settings: dict[str, Any],
        checkout: Path | None = None,
    ) -> None:
        order: dict[str, Any] = {"name": name, "folder": str(folder / name), "backend": backend, "bootstrap": bootstrap}
        order["settings"] = {"backend": backend, **settings}
        python, path = sys.executable, os.environ.get("PYTHONPATH", "")
        if checkout is not None:
            python, path = str(checkout / ".venv" / "bin" / "python"), f"{checkout / 'scripts'}:{checkout}"
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", json.dumps(order)],
            env={**os.environ, "PYTHONPATH": path},
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / f"{name}.log").open("w"),
            text=True,
        )
        self.started = self.answer()

    def send(self, do: str, **facts: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **facts}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with exit code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def do(self, do: str, **facts: Any) -> dict[str, Any]:
        self.send(do, **facts)
        return self.answer()

    def through_http(self, do: str, **facts: Any) -> dict[str, Any]:
        """Put a load on this node's API from a process of callers; `node_cpu_ms` is the node's CPU time a call."""
        with self.http_callers(do, **facts) as callers:
            before = self.do("state")["cpu_ms"]
            callers.go()
            answer = callers.result()
        return answer | {"node_cpu_ms": (self.do("state")["cpu_ms"] - before) / max(1, answer["good"])}

    def http_callers(self, do: str, **facts: Any) -> "HttpCallers":
        """A process of callers of this node's API that is ready to begin."""
        return HttpCallers({"do": do, "host": self.started["api"].removeprefix("http://"), **facts})

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: it closes nothing and flushes nothing."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.thaw()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class HttpCallers:
    """A process of callers, whose requests are made when it is entered."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.caller", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.__exit__(None, None, None)

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the callers ended with exit code {self._process.wait()}")
        result: dict[str, Any] = json.loads(line)
        return result


@contextmanager
def fleet(
    count: int, *, backend: str = "hybrid", checkout: Path | None = None, **settings: Any
) -> Iterator[list[FleetNode]]:
    """`count` nodes that are all connected; with the backend `mock` they have no host. `checkout`: of that code."""
    members: list[FleetNode] = []
    with TemporaryDirectory(prefix="bzzz-bench-") as folder:
        try:
            for number in range(1, count + 1):
                known = [member.started["addresses"][0] for member in members if member.started["addresses"]]
                facts: dict[str, Any] = {"backend": backend, "bootstrap": known, "settings": settings}
                members.append(FleetNode(f"n{number}", Path(folder), checkout=checkout, **facts))
            deadline = time.monotonic() + MEET_SECONDS_MAX
            while backend != "mock" and any(m.do("state")["connected"] < count - 1 for m in members):
                if time.monotonic() > deadline:
                    raise RuntimeError("the nodes of a bench did not meet")
                time.sleep(0.05)
            yield members
        finally:
            for member in members:
                member.end()
