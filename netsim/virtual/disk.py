"""A machine's disk in the virtual world: how long a commit takes, and whether there is room."""

from errno import ENOSPC

import trio

from node.store.memory.store import MemoryStore


class Disk:
    """One of a machine's disks, with the store on it. Put in by `VirtualNode.lose_disk`, and it goes with that."""

    def __init__(self, *, log_id: str, commit_seconds: float = 0.0) -> None:
        self.store = MemoryStore(log_id=log_id, before_commit=self._before_commit)
        self.commit_seconds = commit_seconds
        self.is_full = False
        self.is_busy = False
        """A commit is under way: whatever is in it may still become true."""
        self._turned: trio.Event | None = None

    @property
    def is_stalled(self) -> bool:
        return self._turned is not None

    def stall(self) -> None:
        """No commit ends until it turns again."""
        self._turned = self._turned or trio.Event()

    def turn(self) -> None:
        if self._turned is not None:
            self._turned.set()
            self._turned = None

    async def _before_commit(self) -> None:
        self.is_busy = True
        try:
            if self._turned is not None:
                await self._turned.wait()
            if self.commit_seconds:
                await trio.sleep(self.commit_seconds)
        finally:
            self.is_busy = False
        if self.is_full:
            raise OSError(ENOSPC, "No space left on device")
