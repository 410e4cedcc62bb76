"""A store under test, in memory or in SQLite, with a disk that can fail and stall; and envelopes to put into it."""

import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import trio

from node.store.base import Store
from node.store.log import Incoming, Merged, Origin
from node.store.memory.store import MemoryStore
from node.store.sqlite.store import SqliteStore
from protocols.envelope import Envelope, Notice, seal
from protocols.keys import PrivateKey

STORES = ("memory", "sqlite")
LOG_ID = "00112233445566aa"
AUTHOR = PrivateKey.from_seed(bytes(32))
OTHER_AUTHOR = PrivateKey.from_seed(b"\1" * 32)
ALICE, BOB, CAROL = ("12D3KooWAlice", "12D3KooWBob", "12D3KooWCarol")
NOW = 1_800_000_000_000


def envelope(
    version: int = 1, *, path: str = "doc", content: bytes = b"", parents: Iterable[bytes] = (),
    author: PrivateKey = AUTHOR, deleted: bool = False, reissues: Iterable[bytes] = (),
) -> Envelope:  # fmt: skip
    return seal(
        author, address=f"ucxl://a:r@p:t/*^/{path}", content=b"" if deleted else content or b"%d" % version,
        content_type="text/plain", version=version, parents=parents, deleted=deleted,
        meta={"reissues": " ".join(digest.hex() for digest in reissues)} if reissues else {},
    )  # fmt: skip


def local(
    item: Envelope | Notice, *holders: str, acknowledged: tuple[str, ...] = (), key: str | None = None
) -> Incoming:
    return Incoming(item, Origin.LOCAL, holders, acknowledged, key)


def from_peer(item: Envelope | Notice) -> Incoming:
    return Incoming(item, Origin.PEER)


async def put(store: Store, *incoming: Incoming, now_ms: int = NOW) -> list[Merged]:
    return await store.merge(incoming, now_ms=now_ms)


async def digests(store: Store, key: bytes) -> list[bytes]:
    return [head.digest for head in await store.heads(key)]


class StoreRig:
    """Opens a store and closes it, as often as a test wants; its disk keeps what is on it."""

    def __init__(self, kind: str, directory: Path, nursery: trio.Nursery) -> None:
        self.kind = kind
        self.nursery = nursery
        self._path = directory / "store.sqlite3"
        self._scope = trio.CancelScope()
        self._closed = trio.Event()
        self._memory: MemoryStore | None = None
        self._before_commit: Callable[[], None] = lambda: None
        self.is_stalled = False
        """Whether a commit hangs now."""

    @classmethod
    @asynccontextmanager
    async def made(cls, kind: str, directory: Path) -> AsyncIterator[Self]:
        async with trio.open_nursery() as nursery:
            rig = cls(kind, directory, nursery)
            yield rig
            rig.mend_disk()
            nursery.cancel_scope.cancel()

    async def open(self, log_id: str = LOG_ID) -> Store:
        store: Store
        if self.kind == "memory":
            store = self._memory = self._memory or MemoryStore(log_id=log_id)
            if self._memory.log_id != log_id:
                self._memory.has_ended_in_order = True
                self._memory.begin_log(log_id)
        else:
            store = SqliteStore.open(self._path, random_id=log_id, before_commit=lambda: self._before_commit())
        self._scope, self._closed = trio.CancelScope(), trio.Event()
        await self.nursery.start(self._run, store)
        return store

    async def _run(self, store: Store, *, task_status: trio.TaskStatus[None]) -> None:
        with self._scope:
            await store.run(task_status=task_status)
        self._closed.set()

    async def reopen(self, log_id: str = LOG_ID) -> Store:
        self._scope.cancel()
        await self._closed.wait()
        return await self.open(log_id)

    async def now_and_after_a_restart(self, store: Store) -> AsyncIterator[Store]:
        """For assertions that must hold before a restart and after it."""
        yield store
        yield await self.reopen()

    # -- the disk ---------------------------------------------------------------------------------------------

    def break_disk(self, error: OSError) -> None:
        """Every commit fails with this error."""

        def fail() -> None:
            raise error

        async def fail_later() -> None:
            raise error

        self._before_commit = fail
        if self._memory is not None:
            self._memory.before_commit = fail_later

    def mend_disk(self) -> None:
        self._before_commit = lambda: None
        if self._memory is not None:
            self._memory.before_commit = None

    def stall_disk(self) -> Callable[[], None]:
        """Commits hang until the returned function is called."""
        in_a_thread, in_a_task = threading.Event(), trio.Event()

        def hang() -> None:
            self.is_stalled = True
            assert in_a_thread.wait(30), "the test forgot a stalled disk"

        async def hang_in_a_task() -> None:
            self.is_stalled = True
            await in_a_task.wait()

        self._before_commit = hang
        if self._memory is not None:
            self._memory.before_commit = hang_in_a_task

        def go_on() -> None:
            self.is_stalled = False
            self.mend_disk()
            in_a_thread.set()
            in_a_task.set()

        return go_on
