"""A machine's disk in the virtual world: how long a commit takes, and whether there is room."""

from errno import ENOSPC

import trio

from netsim.world import DiskQuality
from node.store.memory.store import MemoryStore


class Disk:
    """One disk, with the store on it. A machine that loses its disk gets a new one."""

    def __init__(self, store: MemoryStore, *, commit_seconds: float = 0.0) -> None:
        self.store = store
        store.before_commit = self._before_commit
        self.is_committing = False
        """A commit is under way: what is in it may still become durable."""
        self._commit_seconds = commit_seconds
        self._is_full = False
        self._resumed: trio.Event | None = None
        """Set when the stall ends; None while the disk is not stalled."""

    def set_quality(self, quality: DiskQuality) -> None:
        """From now on, also for commits that wait for a stall to end."""
        self._commit_seconds = quality.commit_ms / 1000.0
        self._is_full = quality.is_full
        if quality.is_stalled:
            self._resumed = self._resumed or trio.Event()
        elif self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    async def _before_commit(self) -> None:
        self.is_committing = True
        try:
            if self._resumed is not None:
                await self._resumed.wait()
            if self._commit_seconds:
                await trio.sleep(self._commit_seconds)
        finally:
            self.is_committing = False
        if self._is_full:
            raise OSError(ENOSPC, "No space left on device")
