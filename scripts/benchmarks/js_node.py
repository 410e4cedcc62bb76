"""A js-libp2p node with its kad-dht, in a process of its own: orders to it, and what it answers."""

import contextlib
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

READY_SECONDS = 60.0
ANSWER_SECONDS = 60.0
END_SECONDS = 5.0


class JsFailed(Exception):
    """The node ended, did not answer in time, or answered with an error."""


class JsNode:
    """The process of `kad_node.mjs`, ready when constructed. `packages` is the folder with its packages.

    With a port it listens there again after a restart; with `is_plain` it takes any value, and not envelopes alone.
    """

    def __init__(self, packages: Path, *, seed: bytes, log: Path, port: int = 0, is_plain: bool = False) -> None:
        options = {"seed": seed.hex(), "port": port, "isPlain": is_plain}
        self._log = log
        self._unread = b""
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                ["node", "kad_node.mjs", json.dumps(options)],
                cwd=packages, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        try:
            ready = self.answer(READY_SECONDS)
        except JsFailed:
            self.kill()
            raise
        self.peer_id: str = ready["peer"]
        self.address: str = ready["addresses"][0]

    @property
    def port(self) -> int:
        return int(self.address.split("/tcp/")[1].split("/")[0])

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, order: str, **facts: Any) -> dict[str, Any]:
        """Give an order and wait for its answer. Raises `JsFailed`."""
        self.send(order, **facts)
        return self.answer()

    def send(self, order: str, **facts: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": order, **facts}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise JsFailed(f"the js-libp2p node has ended{self._log_end()}") from error

    def answer(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The answer to the next order that has none yet. Raises `JsFailed`."""
        line = self._line(time.monotonic() + seconds)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise JsFailed(str(answer["error"]))
        return answer

    def end(self) -> None:
        """Stop it in good order; it is killed when that takes too long. Harmless when it has ended."""
        if self._process.poll() is None:
            with contextlib.suppress(JsFailed, subprocess.TimeoutExpired):
                self.do("stop")
                self._process.wait(END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """SIGKILL: it closes nothing. Harmless when it has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0.0 or not select.select([pipe], [], [], left)[0]:
                raise JsFailed(f"the js-libp2p node does not answer{self._log_end()}")
            chunk = os.read(pipe, 1 << 16)
            if not chunk:
                raise JsFailed(f"the js-libp2p node has ended{self._log_end()}")
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _log_end(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace").strip()
        return f": {text[-1000:]}" if text else ""
