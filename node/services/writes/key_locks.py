"""Key locks: one write of a key is made at a time, so that two callers of one node never make siblings by accident.

One write of an idempotency key is made at a time as well, so that it has one effect, whatever addresses it is used for.

A write that waits for its lock waits for other writes, and these wait for the swarm and for the disk. Its deadline is
for the swarm: so the deadline stands still while the write that holds the lock waits for the disk.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from node.store.base import Store
from protocols.errors import Unavailable

UNCERTAIN_MAX = 4096
"""Keys with uncertain writes that are remembered; above it every write waits for the uncertain ones."""


@dataclass(slots=True)
class _Waiter:
    """A write that waits for the lock. Times are on trio's clock."""

    scope: trio.CancelScope
    give_up_at: float
    """When even a disk has taken too long."""
    seconds_left: float
    """What is left of the deadline while it stands still."""


class _KeyLock:
    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._waiters: list[_Waiter] = []
        self._is_committing = False
        self.users = 0
        """The writes that hold the lock or wait for it."""

    async def acquire(self, deadline: float, give_up_at: float) -> float | None:
        """Acquire the lock; return the deadline, later by the time that the disk took. None: not in time."""
        waiter = _Waiter(trio.CancelScope(deadline=deadline), give_up_at, deadline - trio.current_time())
        if self._is_committing:
            waiter.scope.deadline = give_up_at
        self._waiters.append(waiter)
        try:
            with waiter.scope:
                await self._lock.acquire()
                return waiter.scope.deadline
        finally:
            self._waiters.remove(waiter)
        return None

    def begin_commit(self) -> None:
        now, self._is_committing = trio.current_time(), True
        for waiter in self._waiters:
            waiter.seconds_left = waiter.scope.deadline - now
            waiter.scope.deadline = waiter.give_up_at

    def release(self) -> None:
        if self._is_committing:
            now, self._is_committing = trio.current_time(), False
            for waiter in self._waiters:
                waiter.scope.deadline = min(now + waiter.seconds_left, waiter.give_up_at)
        self._lock.release()


class HeldLock:
    """The locks held for one write. `deadline`, on trio's clock, is the write's, later by the disk's time."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._entries: list[_KeyLock] = []

    def add(self, entry: _KeyLock, deadline: float) -> None:
        self._entries.append(entry)
        self.deadline = deadline

    def begin_commit(self) -> None:
        """From now on until the release, the write waits for the disk alone."""
        for entry in self._entries:
            entry.begin_commit()

    def release(self) -> None:
        """A second call is harmless."""
        entries, self._entries = self._entries, []
        for entry in entries:
            entry.release()


class KeyLocks:
    """The locks of the keys that are being written, and the keys whose last write the disk did not confirm in time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._locks: dict[bytes, _KeyLock] = {}
        self._uncertain: dict[bytes, None] = {}

    @contextlib.asynccontextmanager
    async def hold(
        self, key: bytes, deadline: float, *, disk_seconds: float, idempotency_key: str | None = None
    ) -> AsyncIterator[HeldLock]:
        """Hold the lock of a key, and before it that of an idempotency key, until released, or until the block ends.

        Raises `Unavailable` when a lock was not free before `deadline` (trio's clock), which stands still while the
        disk is waited for, for `disk_seconds` in all at most.
        """
        held = HeldLock(deadline)
        give_up_at = max(deadline, trio.current_time() + disk_seconds)
        try:
            async with contextlib.AsyncExitStack() as stack:
                if idempotency_key is not None:
                    name = _idempotency_name(idempotency_key)
                    await stack.enter_async_context(self._hold(name, held, give_up_at, "with this Idempotency-Key"))
                await stack.enter_async_context(self._hold(key, held, give_up_at, "of this address"))
                yield held
        finally:
            held.release()

    @contextlib.asynccontextmanager
    async def _hold(self, name: bytes, held: HeldLock, give_up_at: float, which: str) -> AsyncIterator[None]:
        """Add one lock to those that are held for a write."""
        entry = self._locks.setdefault(name, _KeyLock())
        entry.users += 1
        try:
            moved_deadline = await entry.acquire(held.deadline, give_up_at)
            is_ready = False
            if moved_deadline is not None:
                held.add(entry, moved_deadline)
                with trio.move_on_at(give_up_at):
                    await self._wait_for_uncertain(name)
                    is_ready = True
            if not is_ready:
                raise Unavailable(f"earlier writes {which} are still under way; nothing was written")
            yield
        finally:
            entry.users -= 1
            if not entry.users:
                self._locks.pop(name, None)

    def mark_uncertain(self, key: bytes, idempotency_key: str | None) -> None:
        """The disk did not confirm a write of this key in time: it may still become a version."""
        self._uncertain[key] = None
        if idempotency_key is not None:
            self._uncertain[_idempotency_name(idempotency_key)] = None

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


def _idempotency_name(idempotency_key: str) -> bytes:
    """The name of its lock; no key of an address begins like it."""
    return b"idempotency/" + idempotency_key.encode("utf-8")
