"""The SQLite store: what it survives, and what it keeps in memory.

The contract of both stores is in `tests/contract`; here is what a store with a file adds to it.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.store.completion import CallbackCompletion
from node.store.members import Member
from node.store.sqlite import queries, schema, write_queue, writer
from node.store.sqlite import store as sqlite_store
from node.store.sqlite.store import SqliteStore
from protocols.envelope import Envelope
from protocols.errors import StorageFull, Unavailable
from tests.unit.node.store.sqlite.files import ALICE, BOB, ROOT, envelope, opened, put, start
from tests.until import until

# -- kill -9 -----------------------------------------------------------------------------------------------------------

PUT_IN_A_LOOP = """
import sys
from itertools import count
from pathlib import Path
import trio
from node.store.log import Incoming, Origin
from node.store.sqlite.store import SqliteStore
from protocols.envelope import seal
from protocols.keys import PrivateKey

author = PrivateKey.from_seed(bytes(32))

async def put(store, caller, first):
    parents = ()
    for number in count(first):
        item = seal(author, address=f"ucxl://a:r@p:t/*^/{caller}", content=bytes(number % 3000),
                    content_type="text/plain", version=number, parents=parents)
        parents = (item.digest,)
        await store.merge([Incoming(item, Origin.LOCAL, ("12D3KooWAlice", "12D3KooWBob"))], now_ms=number)
        sys.stdout.write(item.digest.hex() + "\\n")
        sys.stdout.flush()

async def main():
    store = SqliteStore.open(Path(sys.argv[1]), random_id="0" * 16)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for caller in range(16):
            nursery.start_soon(put, store, caller, int(sys.argv[2]))

trio.run(main)
"""


async def test_nothing_acknowledged_is_lost_by_kill_9(path: Path) -> None:
    """Promise 1: killed during writes, again and again; each time all is there, and heads, log and hints agree."""
    acknowledged: list[bytes] = []
    for round_number in range(5):
        acknowledged += await trio.to_thread.run_sync(_killed_in_mid_write, path, 1 + 100_000 * round_number)
        async with opened(path) as store:
            for digest in acknowledged:
                assert await store.by_digest(digest) is not None
            changes = await store.log(after=0, limit=1_000_000)
            assert [change.sequence for change in changes] == list(range(1, store.last_sequence + 1))
            assert store.hint_counts() == {ALICE: len(changes), BOB: len(changes)}
            for key in {change.key for change in changes}:
                heads = await store.heads(key)
                versions = await store.versions(key, limit=1_000_000)
                parents = {parent for version in versions for parent in version.notice.parents}
                assert {head.digest for head in heads} == {each.digest for each in versions} - parents
    assert len(acknowledged) > 100


def _killed_in_mid_write(path: Path, first: int) -> list[bytes]:
    with start(PUT_IN_A_LOOP, str(path), str(first)) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(40)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    return [bytes.fromhex(line) for line in lines if len(line) == 65]


# -- full and stalled disks --------------------------------------------------------------------------------------------


async def test_a_full_file_refuses_writes_and_keeps_what_it_has(path: Path) -> None:
    kept: list[Envelope] = []
    async with opened(path, max_pages=120) as store:
        for version in range(1, 1000):
            item = envelope(version, content=bytes(2000))
            try:
                await put(store, item, holders=(ALICE,))
            except StorageFull:
                break
            kept.append(item)
        assert 0 < len(kept) < 999
        assert "no room" in store.last_failure
        assert store.last_sequence == len(kept)
        assert store.hint_counts() == {ALICE: len(kept)}
        for item in kept:
            assert await store.by_digest(item.digest) == item
        with pytest.raises(StorageFull):
            await put(store, envelope(5000, content=bytes(500_000)))
    async with opened(path) as store:
        assert store.last_sequence == len(kept)
        await put(store, envelope(6000, content=bytes(500_000)))
        for item in kept:
            assert await store.by_digest(item.digest) == item


FILL = """
import os, sys
from pathlib import Path
import trio
from node.store.log import Incoming, Origin
from node.store.sqlite.store import SqliteStore
from protocols.errors import StorageFull
from protocols.envelope import seal
from protocols.keys import PrivateKey

author = PrivateKey.from_seed(bytes(32))
directory = Path(sys.argv[1])
(directory / "ballast").write_bytes(bytes(1_000_000))

def made(number):
    return seal(author, address="ucxl://a:r@p:t/*^/x", content=b"%d" % number + bytes(20_000 if number % 2 else 0),
                content_type="text/plain", version=number, parents=())

async def main():
    kept, number = [], 0
    for is_last in (False, True):
        store = SqliteStore.open(directory / "store.sqlite3", random_id="0" * 16)
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            failed = 0
            while failed < 5:
                number += 1
                try:
                    await store.merge([Incoming(made(number), Origin.LOCAL, ("12D3KooWAlice",))], now_ms=1)
                    kept.append(made(number))
                except StorageFull:
                    failed += 1
            for item in kept:
                assert await store.by_digest(item.digest) == item
            assert store.last_sequence == len(kept) == store.hint_counts()["12D3KooWAlice"]
            if is_last:
                os.unlink(directory / "ballast")
                await store.merge([Incoming(made(1_000_001), Origin.LOCAL)], now_ms=1)
            nursery.cancel_scope.cancel()
    print("kept", len(kept))

trio.run(main)
"""


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A real disk: a file system of three megabytes, in a name space of its own, so that no root is needed."""
    command = f"mount -t tmpfs -o size=3m tmpfs {tmp_path} && exec {sys.executable} -c '{FILL}' {tmp_path}"
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run(
        [*unshare, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("this machine allows no file system of our own")
    done = subprocess.run([*unshare, "sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 20


async def test_a_disk_that_hangs_does_not_delay_the_closing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "CLOSE_SECONDS", 0.2)
    breaker = threading.Event()
    failed = trio.Event()

    async def write(store: SqliteStore) -> None:
        with pytest.raises(Unavailable, match="may be there"):
            await put(store, envelope(1))
        failed.set()

    try:
        with trio.fail_after(30):
            async with trio.open_nursery() as callers:
                async with opened(path, before_commit=lambda: breaker.wait(30) and None) as store:
                    callers.start_soon(write, store)
                    await trio.testing.wait_all_tasks_blocked(0.02)
                await failed.wait()
                with pytest.raises(Unavailable):
                    await put(store, envelope(2))
            breaker.set()
            # Private: after this failure the store leaves its connections to the thread that hangs. It uses them
            # until it has returned from the commit, and not only until the transaction has ended.
            await trio.to_thread.run_sync(store._close_unused, schema.close_connections)
    finally:
        breaker.set()


async def test_an_error_that_ends_the_store_closes_no_connection_that_a_query_uses(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's module crashes the interpreter when a connection is closed while another thread reads."""
    reading, closed = threading.Event(), threading.Event()
    order: list[str] = []

    def query(_: sqlite3.Connection) -> None:
        reading.set()
        closed.wait(0.2)
        order.append("read")

    def close(*arguments: Any) -> None:
        order.append("closed")
        closed.set()
        close_connections(*arguments)

    def fail(_: object) -> None:
        raise RuntimeError("a defect in publishing")

    async def ask(store: SqliteStore) -> None:
        with suppress(Unavailable):
            await store._reader.ask(query)  # private: no query of the store waits for a test

    close_connections = schema.close_connections
    monkeypatch.setattr(schema, "close_connections", close)
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        async with opened(path) as store, trio.open_nursery() as callers:
            callers.start_soon(ask, store)
            await until(reading.is_set)
            # private: no operation of the store fails so
            store._writer.submit_nowait(lambda transaction: None, fail, CallbackCompletion(lambda _: None))
            await trio.sleep_forever()
    assert order == ["read", "closed"]


async def test_calls_beyond_the_queue_of_a_disk_that_hangs_fail_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_queue, "QUEUE_MAX", 5)
    breaker = threading.Event()
    async with opened(path, before_commit=lambda: breaker.wait(30) and None) as store, trio.open_nursery() as callers:
        callers.start_soon(put, store, envelope(1))
        await trio.testing.wait_all_tasks_blocked(0.02)
        for version in range(2, 7):
            callers.start_soon(put, store, envelope(version))
        await trio.testing.wait_all_tasks_blocked(0.02)
        with pytest.raises(Unavailable, match="does not keep up"):
            await put(store, envelope(9))
        breaker.set()
    assert store.last_sequence == 6


async def test_an_operation_that_cannot_be_written_fails_alone(path: Path) -> None:
    breaker = threading.Event()
    async with opened(path, before_commit=lambda: breaker.wait(30) and None) as store:

        async def fail() -> None:
            with pytest.raises(UnicodeEncodeError):
                await store.save_member(
                    Member(peer=ALICE, name="\ud800", addresses=(), first_seen_ms=1, last_seen_ms=1)
                )

        async with trio.open_nursery() as callers:
            callers.start_soon(put, store, envelope(1))
            await trio.testing.wait_all_tasks_blocked(0.02)
            callers.start_soon(put, store, envelope(2))
            callers.start_soon(fail)
            callers.start_soon(put, store, envelope(3))
            await trio.testing.wait_all_tasks_blocked(0.02)
            breaker.set()
        assert store.last_sequence == 3
        assert store.members() == ()


# -- memory and disk ---------------------------------------------------------------------------------------------------


async def test_an_idle_store_commits_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FLUSH_SECONDS", 0.01)
    async with opened(path) as store:
        await put(store, envelope(1))
        commits = store.stats().commits
        await trio.sleep(0.2)  # twenty times FLUSH_SECONDS
        assert store.stats().commits == commits


async def test_a_store_is_kept_in_a_directory_whose_name_is_no_utf_8(tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"\xff")
    directory.mkdir()
    for number in (1, 2):
        async with opened(directory / "store.db") as store:
            await put(store, envelope(number))
            assert store.last_sequence == number


async def test_heads_that_do_not_fit_into_memory_are_read_from_the_disk(path: Path) -> None:
    async with opened(path, cache_bytes=10_000) as store:
        items = [envelope(version, path=f"{version}") for version in range(1, 51)]
        await put(store, *items)
        # Private: answers are the same with and without the cache.
        assert store._heads_cache.size_bytes <= 10_000  # private: nothing but memory depends on it
        assert len(store._heads_cache) < 50
        for _ in range(2):
            for item in items:
                assert await store.heads(item.key) == (item,)
        successor = envelope(100, path="1")
        await put(store, successor)
        assert await store.heads(successor.key) == (successor, items[0])
        assert store._heads_cache.size_bytes <= 10_000


async def test_heads_that_change_during_a_read_are_not_cached(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache must not keep heads that were read before a change."""
    first, second = envelope(1), envelope(2)
    async with opened(path) as store:
        await put(store, first)
    breaker = threading.Event()
    reading = threading.Event()
    read_heads = queries.heads

    def slow(*asked: Any) -> Any:
        heads = read_heads(*asked)
        reading.set()
        assert breaker.wait(30)
        return heads

    monkeypatch.setattr(queries, "heads", slow)
    async with opened(path) as store, trio.open_nursery() as nursery:
        read: list[Any] = []

        async def read_it() -> None:
            read.append(await store.heads(first.key))

        nursery.start_soon(read_it)
        await trio.to_thread.run_sync(reading.wait)
        await put(store, second)
        breaker.set()
        await until(lambda: read)
        assert read == [(second, first)]
        assert await store.heads(first.key) == (second, first)
