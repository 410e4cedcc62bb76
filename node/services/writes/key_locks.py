"""Key locks: one write of a key is made at a time, so that two callers of one node never make siblings by accident."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import trio

from node.store.base import Store
from protocols.errors import Unavailable

UNCERTAIN_MAX = 4096
"""Keys with uncertain writes that are remembered; above it every write waits for the uncertain ones."""


@dataclass(slots=True)
class _KeyLock:
    lock: trio.Lock = field(default_factory=trio.Lock)
    users: int = 0


class KeyLocks:
    """The locks of the keys that are being written, and the keys whose last write the disk did not confirm in time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._locks: dict[bytes, _KeyLock] = {}
        self._uncertain: dict[bytes, None] = {}

    @contextlib.asynccontextmanager
    async def hold(self, key: bytes, deadline: float) -> AsyncIterator[Callable[[], None]]:
        """Hold the lock of a key. Gives a function that releases it before the block ends; a second call is harmless.

        Raises `Unavailable` when the lock was not free before `deadline` (trio's clock).
        """
        entry = self._locks.setdefault(key, _KeyLock())
        entry.users += 1
        is_held = False

        def release() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                entry.lock.release()

        try:
            is_ready = False
            with trio.move_on_at(deadline):
                await entry.lock.acquire()
                is_held = True
                await self._wait_for_uncertain(key)
                is_ready = True
            if not is_ready:
                raise Unavailable("earlier writes of this address are still under way; nothing was written")
            yield release
        finally:
            release()
            entry.users -= 1
            if not entry.users:
                self._locks.pop(key, None)

    def mark_uncertain(self, key: bytes) -> None:
        """The disk did not confirm a write of this key in time: it may still become a version."""
        self._uncertain[key] = None

    async def _wait_for_uncertain(self, key: bytes) -> None:
        """Wait until it is known what became of uncertain writes of this key.

        Otherwise the next version would not name them as parents, and be a sibling.
        """
        if key not in self._uncertain and len(self._uncertain) < UNCERTAIN_MAX:
            return
        keys = tuple(self._uncertain)
        await self._store.settled()
        for each in keys:
            self._uncertain.pop(each, None)
