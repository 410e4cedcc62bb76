"""A process's memory: what the collector need not look at again, and what the machine gets back after a flood.

Once a node is ready it holds some 300,000 objects, nearly all of them libraries, that live as long as it does. A full
collection looks at each: 65 ms during which nobody is answered, twice a second under load, and no deadline of 100 ms
would hold. They are set aside once; what comes after is little, and is looked at in a millisecond or two.

glibc returns freed memory only from the end of its heap, and one small object that lives on there holds hundreds of
megabytes back: after 128 MiB of half-sent frames that nobody needs any more, a node went on holding all of it. It
returns every free page when it is asked to (malloc_trim, a few milliseconds, in a thread of its own). Where there is
no glibc, or no /proc, nothing is done.
"""

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path

import trio

LOOK_SECONDS = 2.0
SLACK_BYTES = 48 << 20
"""So much more than there was after the last time makes it worth while."""
_STATM = Path("/proc/self/statm")
COLLECT_AFTER = (5_000, 20, 50)
"""New objects before the youngest are looked at, and how often one generation before the next. What nodes drop is
hardly ever a cycle, and reference counts take care of the rest at once."""


def set_aside() -> None:
    """Tell the collector that what is there now stays. It takes a tenth of a second, once."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def run() -> None:
    """Look now and then, and give back what is free, until cancelled; at once over where that is not known how."""
    trim, page_bytes = _trim(), os.sysconf("SC_PAGE_SIZE")
    if trim is None or not _STATM.exists():
        return
    level = last = _resident(page_bytes)
    while True:
        await trio.sleep(LOOK_SECONDS)
        now = _resident(page_bytes)
        is_growing, last = now > last + SLACK_BYTES // 4, now
        if now > level + SLACK_BYTES and not is_growing:
            await trio.to_thread.run_sync(trim)
            level = last = _resident(page_bytes)
        level = min(level, now)


def _resident(page_bytes: int) -> int:
    """Bytes of physical memory that this process has (proc(5), the second field of statm)."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * page_bytes


def _trim() -> Callable[[], object] | None:
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return lambda: malloc_trim(0)
