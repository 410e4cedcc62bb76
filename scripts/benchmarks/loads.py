"""Closed load: a number of callers, each with one call after the other; rates and latencies."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from netsim.durations import percentile


async def load(one: Callable[[], Awaitable[bool]], *, callers: int, seconds: float, most: int) -> dict[str, Any]:
    """`callers` callers for `seconds`, or until `most` calls were made. `one` returns whether the answer was as asked.

    `rate` is good calls a second, `cpu_ms` the CPU time of this process for each good call.
    """
    latencies: list[float] = []
    bad = failed = started_calls = 0
    until = trio.current_time() + seconds

    async def caller() -> None:
        nonlocal bad, failed, started_calls
        while trio.current_time() < until and started_calls < most:
            started_calls += 1
            started = time.perf_counter()
            try:
                is_good = await one()
            except Exception:
                failed += 1
                continue
            if is_good:
                latencies.append(time.perf_counter() - started)
            else:
                bad += 1

    started, cpu = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(caller)
    passed = time.perf_counter() - started
    return {
        "rate": len(latencies) / passed,
        "p50_ms": percentile(latencies, 0.5) * 1000 if latencies else None,
        "p95_ms": percentile(latencies, 0.95) * 1000 if latencies else None,
        "p99_ms": percentile(latencies, 0.99) * 1000 if latencies else None,
        "max_ms": max(latencies) * 1000 if latencies else None,
        "good": len(latencies),
        "not_as_asked": bad,
        "failed": failed,
        "cpu_ms": (time.process_time() - cpu) * 1000 / max(1, len(latencies)),
    }
