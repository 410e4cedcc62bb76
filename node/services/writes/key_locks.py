"""Key locks: one write of a key is made at a time, so that two callers of one node never make siblings by accident.

One write of an idempotency key is made at a time as well, so that it has one effect, whatever addresses it is used for.

A write that waits for its lock waits for other writes, and these wait for the swarm and for the disk. Its deadline is
for the swarm: so the deadline stands still while the write that holds the lock waits for the disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

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
        if not self._lock.locked():
            self._lock.acquire_nowait()
            return deadline
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
    """The locks of one write: held from entering its block until `release`, or until the block ends.

    Entering raises `Unavailable` when a lock was not free before the deadline.
    """

    def __init__(self, locks: "KeyLocks", names: Sequence[tuple[bytes, str]], deadline: float, give_up_at: float):
        """`names` are the locks to hold, in order, with words for each."""
        self.deadline = deadline
        """The write's, on trio's clock: later by the time that the disk took for others."""
        self._locks = locks
        self._names = names
        self._give_up_at = give_up_at
        self._used: list[_KeyLock] = []
        self._held: list[_KeyLock] = []

    async def __aenter__(self) -> Self:
        try:
            for name, which in self._names:
                await self._acquire(name, which)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    async def _acquire(self, name: bytes, which: str) -> None:
        lock = self._locks.use(name)
        self._used.append(lock)
        is_ready = False
        if (moved_deadline := await lock.acquire(self.deadline, self._give_up_at)) is not None:
            self._held.append(lock)
            self.deadline = moved_deadline
            is_ready = await self._locks.settled(name, self._give_up_at)
        if not is_ready:
            raise Unavailable(f"earlier writes {which} are still under way; nothing was written")

    def begin_commit(self) -> None:
        """From now on until the release, the write waits for the disk alone."""
        for lock in self._held:
            lock.begin_commit()

    def release(self) -> None:
        """A second call is harmless."""
        held, self._held = self._held, []
        for lock in held:
            lock.release()

    def _leave(self) -> None:
        self.release()
        for (name, _), lock in zip(self._names, self._used, strict=False):
            self._locks.leave(name, lock)


class KeyLocks:
    """The locks of the keys that are being written, and the keys whose last write the disk did not confirm in time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._locks: dict[bytes, _KeyLock] = {}
        self._uncertain: dict[bytes, None] = {}

    def hold(self, key: bytes, deadline: float, *, disk_seconds: float, idempotency_key: str | None = None) -> HeldLock:
        """The lock of a key, and before it that of an idempotency key, to be held by `async with`.

        `deadline`, on trio's clock, stands still while the disk is waited for, for `disk_seconds` in all at most.
        """
        names = [(key, "of this address")]
        if idempotency_key is not None:
            names.insert(0, (_idempotency_name(idempotency_key), "with this Idempotency-Key"))
        return HeldLock(self, names, deadline, max(deadline, trio.current_time() + disk_seconds))

    def use(self, name: bytes) -> _KeyLock:
        """The lock of this name, with one user more."""
        lock = self._locks.setdefault(name, _KeyLock())
        lock.users += 1
        return lock

    def leave(self, name: bytes, lock: _KeyLock) -> None:
        """The lock has one user less; without users it is forgotten."""
        lock.users -= 1
        if not lock.users:
            self._locks.pop(name, None)

    def mark_uncertain(self, key: bytes, idempotency_key: str | None) -> None:
        """The disk did not confirm a write of this key in time: it may still become a version."""
        self._uncertain[key] = None
        if idempotency_key is not None:
            self._uncertain[_idempotency_name(idempotency_key)] = None

    async def settled(self, name: bytes, give_up_at: float) -> bool:
        """Wait until it is known what became of uncertain writes of this name; False: not in time.

        Otherwise the next version would not name them as parents, and be a sibling.
        """
        if name not in self._uncertain and len(self._uncertain) < UNCERTAIN_MAX:
            return True
        names = tuple(self._uncertain)
        with trio.move_on_at(give_up_at):
            await self._store.settled()
            for each in names:
                self._uncertain.pop(each, None)
            return True
        return False


def _idempotency_name(idempotency_key: str) -> bytes:
    """The name of its lock; no key of an address begins like it."""
    return b"idempotency/" + idempotency_key.encode("utf-8")
