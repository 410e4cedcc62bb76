"""The machine itself: the figures that all others depend on and must be compared with.

On a shared machine these alone differ by a third from one quarter of an hour to the next.
"""

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable

import trio

from benchmarks.envelopes import ready
from benchmarks.figures import Figure
from netsim.durations import percentile
from protocols.envelope import verify

ROUNDS = 2_000


def run() -> list[Figure]:
    signed = ready(1)[0]
    return [
        _figure("one signature checked, p50", _times(lambda: verify(signed)), "us"),
        _figure("one hop to a thread and back, in a loop, p50", trio.run(_hops), "us"),
        _figure("one byte to another thread by a socket and back, p50", _echoes(), "us"),
        _figure("a write of 4 KiB and its fsync, p50", _writes(), "us"),
    ]


def _figure(what: str, times: list[float], unit: str) -> Figure:
    return Figure(bench="machine", what=what, value=percentile(times, 0.5) * 1e6, unit=unit)


def _times(do: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        do()
        times.append(time.perf_counter() - started)
    return times


async def _hops() -> list[float]:
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await trio.to_thread.run_sync(lambda: None)
        times.append(time.perf_counter() - started)
    return times


def _echoes() -> list[float]:
    here, there = socket.socketpair()

    def echo() -> None:
        while byte := there.recv(1):
            there.send(byte)

    def once() -> None:
        here.send(b"x")
        here.recv(1)

    with here, there:
        thread = threading.Thread(target=echo)
        thread.start()
        times = _times(once)
        here.shutdown(socket.SHUT_WR)
        thread.join()
    return times


def _writes() -> list[float]:
    with tempfile.NamedTemporaryFile(prefix="bzzz-bench-") as file:

        def once() -> None:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())

        return _times(once, 200)
