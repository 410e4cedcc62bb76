"""Memory of the process: the garbage collector skips long-lived objects, and freed memory goes back to the system.

A ready node holds some 300,000 objects, nearly all of them of libraries, that live as long as the process. A full
collection visits each: 65 ms without an answer to any call, twice a second under load, so that no deadline of 100 ms
would hold. They are frozen once; later objects are few, and are visited in one or two milliseconds.

glibc returns freed memory only from the end of its heap, so one small object that stays there keeps hundreds of
megabytes: after 128 MiB of half-sent frames that were dropped, a node still held all of it. malloc_trim returns every
free page (a few milliseconds, in a thread of its own). What is in use then is freed later, and nothing says so: so it
is called again, at growing intervals, while the process holds more than it did. Without glibc or /proc nothing is done.
"""

import ctypes
import gc
import os
from collections.abc import Callable
from math import inf
from pathlib import Path

import trio

LOOK_SECONDS = 2.0
SLACK_BYTES = 48 << 20
"""How much more than its lowest level the process may hold without a trim."""
PAUSE_SECONDS_MAX = 600.0
"""The longest time until another trim, when memory is really in use."""
_STATM = Path("/proc/self/statm")
COLLECT_AFTER = (5_000, 20, 50)
"""New objects before a collection of the youngest generation, and collections of one generation before the next. A node
hardly ever drops a cycle, and reference counts free everything else at once."""


def freeze() -> None:
    """Exclude all objects that exist now from collections. It takes a tenth of a second, once."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def run() -> None:
    """Trim the heap after it has grown, until cancelled; return at once on a system without malloc_trim or /proc."""
    trim, page_bytes = _trim(), os.sysconf("SC_PAGE_SIZE")
    if trim is None or not _STATM.exists():
        return
    lowest = last = _resident(page_bytes)
    pause, trim_at = LOOK_SECONDS, -inf
    while True:
        await trio.sleep(LOOK_SECONDS)
        now = _resident(page_bytes)
        is_growing, last = now > last + SLACK_BYTES // 4, now
        lowest = min(lowest, now)
        if is_growing:
            pause, trim_at = LOOK_SECONDS, -inf
        elif now > lowest + SLACK_BYTES and trio.current_time() >= trim_at:
            await trio.to_thread.run_sync(trim)
            last = _resident(page_bytes)
            lowest = min(lowest, last)
            pause = min(2.0 * pause, PAUSE_SECONDS_MAX)
            trim_at = trio.current_time() + pause


def _resident(page_bytes: int) -> int:
    """Bytes of physical memory of this process (proc(5), the second field of statm)."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * page_bytes


def _trim() -> Callable[[], object] | None:
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return lambda: malloc_trim(0)
