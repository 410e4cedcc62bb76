"""`bzzz` with a stopwatch: appends each long hold of its loop, its store's reader and its store's writer to a file.

A hold is what one task does before others get their turn, or what a thread of the store does in one piece. It is
measured as processor time: on a busy machine every thread waits for others now and then, which is no defect. The file
is `HOLDS` in the working directory, one JSON object a line.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from node import cli
from node.store.sqlite import reader, thread_hop, writer

HOLDS = "holds.jsonl"
NOTED_MS = 5.0
"""Shorter holds are not noted."""
LOOK_SECONDS = 0.004


class Stopwatch:
    """Times one part. Where the part is held is looked at by the watcher, a thread of its own."""

    def __init__(self, part: str, fd: int) -> None:
        self._part = part
        self._fd = fd
        self._thread = 0
        self._cpu = 0.0
        self._began = 0.0
        """0.0: not running."""
        self._where: list[str] = []

    def start(self) -> None:
        self._thread, self._cpu, self._where = threading.get_ident(), time.thread_time(), []
        self._began = time.perf_counter()

    def stop(self, what: str) -> None:
        self._began = 0.0
        ms = (time.thread_time() - self._cpu) * 1000.0
        if ms >= NOTED_MS:
            noted = {"part": self._part, "ms": round(ms, 1), "what": what, "where": self._where}
            os.write(self._fd, json.dumps(noted).encode() + b"\n")

    def look(self) -> None:
        """In the watcher's thread: note where the part is, once it has been there for a while."""
        began, frame = self._began, sys._current_frames().get(self._thread)
        if began and frame is not None and time.perf_counter() - began > NOTED_MS / 1000.0:
            self._where = [
                f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in traceback.extract_stack(frame)
            ][-8:]


class LoopStopwatch(trio.abc.Instrument):
    """Times each step of each task."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._stopwatch.start()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._stopwatch.stop(task.name)


def timed(hop: Callable[..., Any], stopwatch: Stopwatch) -> Callable[..., Any]:
    """The hop to a thread of the store, with its work timed."""

    def in_thread(work: Callable[[], Any], then: Callable[[Any], Any]) -> Any:
        def measured() -> Any:
            stopwatch.start()
            try:
                return work()
            finally:
                stopwatch.stop("a batch")

        return hop(measured, then)

    return in_thread


def watch(stopwatches: list[Stopwatch]) -> None:
    while True:
        time.sleep(LOOK_SECONDS)
        for stopwatch in stopwatches:
            stopwatch.look()


def main() -> None:
    fd = os.open(HOLDS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    loop, reading, writing = (Stopwatch(part, fd) for part in ("loop", "reader", "writer"))
    trio.run = partial(trio.run, instruments=[LoopStopwatch(loop)])  # type: ignore[assignment]
    # Both import the function by its name, so it is replaced in both.
    vars(reader)["in_thread"] = timed(thread_hop.in_thread, reading)
    vars(writer)["in_thread"] = timed(thread_hop.in_thread, writing)
    threading.Thread(target=watch, args=([loop, reading, writing],), daemon=True).start()
    cli.main()


if __name__ == "__main__":
    main()
