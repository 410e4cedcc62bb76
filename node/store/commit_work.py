"""Commit work: what the thread of a commit spends its time on: the disk, waits for a processor, or this process.

Linux counts for each thread how long it was ready to run and waited for a processor
(`/proc/self/task/<thread>/schedstat`, see the kernel's `scheduler/sched-stats`). Elsewhere such waits count as this
process's, or as the disk's where they are in a sync.
"""

import os
import threading
from time import perf_counter
from typing import Final, NamedTuple

SLOW_SECONDS: Final = 0.05
"""What a commit was spent on is looked up when it took so long: that costs a read of a file of the system."""
READ_SECONDS: Final = 0.05
"""How old the count of waits before a commit may be, because to read it costs a tenth of a quick commit. A slow commit
may have waits of so long before it counted as its own."""


class Spent(NamedTuple):
    """Seconds of a commit."""

    disk: float
    """In the sync, without waits for a processor."""
    ready: float
    """Ready to run, and waiting for a processor."""
    process: float
    """All else: its own work, waits for other threads of this process, and until the result was taken."""


class CommitWork:
    """The commit that is under way, or the last one. The thread that commits notes how far it is; any thread reads."""

    def __init__(self) -> None:
        self._read_at, self._read_of, self._ready_before = 0.0, 0, 0.0
        """When the waits of which thread were read, and what they were."""
        self.hand_over()

    def hand_over(self) -> None:
        """A batch is given to a thread, which may have to wait before it begins."""
        self._handed_over = perf_counter()
        self._thread = 0
        self._begun = self._synced_from = self._synced_until = self._ended = 0.0
        self._waited = 0.0

    def begin(self) -> None:
        """Called in the thread: it begins."""
        thread, now = threading.get_native_id(), perf_counter()
        if thread != self._read_of or now - self._read_at > READ_SECONDS:
            self._read_at, self._read_of, self._ready_before = now, thread, ready_seconds(thread)
        self._thread, self._begun = thread, perf_counter()

    def begin_sync(self) -> None:
        self._synced_from = perf_counter()

    def end_sync(self) -> None:
        self._synced_until = perf_counter()

    def end(self) -> None:
        """Called in the thread: it has the result, which the caller takes next."""
        if perf_counter() - self._begun >= SLOW_SECONDS:
            self._waited = self._ready_seconds()
        self._ended = perf_counter()

    @property
    def sync_seconds(self) -> float:
        """How long the sync took, or takes; 0 when there was none."""
        return (self._synced_until or perf_counter()) - self._synced_from if self._synced_from else 0.0

    @property
    def is_ended(self) -> bool:
        return bool(self._ended)

    def spent(self) -> Spent:
        """What the time since the batch was handed over was spent on."""
        now = perf_counter()
        total = now - self._handed_over
        if not self._begun:
            return Spent(0.0, total, 0.0)
        worked = (self._ended or now) - self._begun
        waited = min(worked, self._waited if self._ended else self._ready_seconds())
        disk = max(0.0, self.sync_seconds - waited)
        ready = self._begun - self._handed_over + waited
        return Spent(disk, ready, max(0.0, total - disk - ready))

    def _ready_seconds(self) -> float:
        return max(0.0, ready_seconds(self._thread) - self._ready_before)


def ready_seconds(thread: int) -> float:
    """How long a thread of this process has been ready and waited for a processor; 0 where the system does not say."""
    try:
        file = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY)
        try:
            return int(os.read(file, 64).split()[1]) / 1e9
        finally:
            os.close(file)
    except (OSError, ValueError, IndexError):
        return 0.0
