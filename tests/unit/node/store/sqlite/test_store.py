"""The store's file: what it survives, what it refuses, and that it is left as it was when it does.

What both stores promise is in `tests/contract`; here is what a file alone can suffer.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.store.errors import StoreRefused
from node.store.log import Incoming, Origin
from node.store.members import Member
from node.store.sqlite import file_check, queries, schema, writer
from node.store.sqlite import hints as sqlite_hints
from node.store.sqlite import store as sqlite_store
from node.store.sqlite.file_lock import lock_directory
from node.store.sqlite.store import SqliteStore
from protocols.envelope import Envelope, seal
from protocols.errors import StorageFull, Unavailable
from protocols.keys import PrivateKey

ROOT = Path(__file__).parents[5]
AUTHOR = PrivateKey.from_seed(bytes(32))
ALICE, BOB = "12D3KooWAlice", "12D3KooWBob"
NOW = 1_800_000_000_000
LOG_ID = "00112233445566aa"


def envelope(version: int, *, path: str = "doc", content: bytes = b"x") -> Envelope:
    return seal(
        AUTHOR, address=f"ucxl://a:r@p:t/*^/{path}", content=content, content_type="text/plain", version=version,
        parents=(),
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteStore]:
    store = SqliteStore.open(path, random_id=LOG_ID, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def put(store: SqliteStore, *items: Envelope, holders: tuple[str, ...] = ()) -> None:
    await store.merge([Incoming(item, Origin.LOCAL, holders) for item in items], now_ms=NOW)


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def made(path: Path, count: int = 200) -> None:
    async with opened(path) as store:
        await put(store, *(envelope(version, content=bytes(300)) for version in range(1, count + 1)), holders=(ALICE,))


def refused(path: Path) -> str:
    """The message with which it is refused; its bytes stay as they are."""
    before = fingerprint(path)
    with pytest.raises(StoreRefused) as refusal:
        SqliteStore.open(path, random_id=LOG_ID)
    assert fingerprint(path) == before
    assert str(path) in str(refusal.value)
    return str(refusal.value)


# -- what the file is -----------------------------------------------------------------------------------------------


async def test_a_commit_is_on_the_disk_when_it_is_acknowledged(path: Path) -> None:
    async with opened(path) as store:
        db = store._connections[0]
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"


async def test_the_file_and_its_log_are_the_owners_alone(path: Path) -> None:
    await made(path)
    path.chmod(0o644)
    async with opened(path) as store:
        await put(store, envelope(1000))
        modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert {name for name in modes if name.startswith(path.name)} >= {path.name, f"{path.name}-wal"}
    assert set(modes.values()) == {0o600}, modes


async def test_a_closed_store_is_one_file(path: Path) -> None:
    await made(path)
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


async def test_a_half_made_file_is_made_again(path: Path) -> None:
    path.with_name(path.name + ".new").write_bytes(b"half")
    await made(path)
    async with opened(path) as store:
        assert store.last_sequence == 200


# -- what is refused ------------------------------------------------------------------------------------------------


def test_a_text_file_is_refused(path: Path) -> None:
    path.write_text("notes\n" * 100)
    assert "damaged or no store" in refused(path)


def test_an_empty_file_is_refused(path: Path) -> None:
    path.touch()
    assert "damaged or no store" in refused(path)


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE versions (sequence INTEGER PRIMARY KEY)")
        db.commit()
    assert "another program" in refused(path)


async def test_a_store_of_a_newer_program_is_refused(path: Path) -> None:
    await made(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
        db.commit()
    assert "newer" in refused(path)


async def test_a_newer_schema_that_is_in_the_log_alone_is_refused(path: Path) -> None:
    await made(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA user_version = 99")
        copy = path.with_name("copy.sqlite3")
        shutil.copy(path, copy)
        shutil.copy(f"{path}-wal", f"{copy}-wal")
    log = Path(f"{copy}-wal")
    before = fingerprint(log)
    assert "schema 99" in refused(copy)
    assert fingerprint(log) == before


@pytest.mark.parametrize("page", [1, 3, 7, -1])
async def test_a_damaged_page_is_refused(path: Path, page: int) -> None:
    await made(path)
    data = bytearray(path.read_bytes())
    pages = len(data) // 4096
    at = (page % pages) * 4096
    data[at : at + 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    assert "damaged" in refused(path)


@pytest.mark.parametrize("pages", [1, 10, 40])
async def test_a_file_that_was_cut_off_is_refused(path: Path, pages: int) -> None:
    await made(path)
    os.truncate(path, pages * 4096)
    assert "damaged" in refused(path)


async def test_a_large_file_that_was_cut_off_is_refused_without_reading_all_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_check, "CHECKED_WHOLE_BYTES_MAX", 0)
    await made(path)
    async with opened(path) as store:
        assert store.last_sequence == 200
    os.truncate(path, path.stat().st_size - 4096)
    assert "damaged" in refused(path)


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="No such file"):
        SqliteStore.open(tmp_path / "nowhere" / "store.sqlite3", random_id=LOG_ID)


# -- migrations -----------------------------------------------------------------------------------------------------


async def test_an_older_schema_is_brought_up_to_date_with_all_it_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(path)
    steps = ("CREATE TABLE extra (x)", "INSERT INTO extra VALUES (7)")
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS + steps)
    for _ in range(2):
        async with opened(path) as store:
            assert store.last_sequence == 200
            assert store._connections[0].execute("SELECT x FROM extra").fetchall() == [(7,)]


async def test_a_store_of_the_first_schema_is_taken_on(path: Path) -> None:
    await made(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(
            "DROP TABLE stand_ins; DROP INDEX staged_by_name; ALTER TABLE staged DROP COLUMN idempotency_key; "
            "DROP TABLE digest_starts; DROP TABLE key_starts; DROP TABLE indexed; "
            "CREATE INDEX keys_by_start ON keys (substr(key, 7, 11)); "
            "CREATE INDEX versions_by_start ON versions (substr(digest, 1, 8)); PRAGMA user_version = 1"
        )
    async with opened(path) as store:
        assert store.last_sequence == 200
        for change in await store.log(after=0):
            assert await store.by_digest(change.digest) in await store.heads(change.key)
        wish = envelope(9999)
        await store.stage(wish, idempotency_key="wish", now_ms=NOW)
        assert await store.staged_under("wish") == wish


async def test_a_migration_that_fails_leaves_the_older_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await made(path)
    with monkeypatch.context() as patch:
        step = "CREATE TABLE extra (x); INSERT INTO nowhere VALUES (1)"
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
        with pytest.raises(StoreRefused, match="nowhere"):
            SqliteStore.open(path, random_id=LOG_ID)
    assert not path.with_name(f"{path.name}-wal").exists(), "no connection was left open"
    async with opened(path) as store:
        assert store.last_sequence == 200


# -- while there is much to do --------------------------------------------------------------------------------------


async def test_hints_are_read_though_there_is_a_commit_in_every_look(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(path)
    async with opened(path) as store:
        ask = store._reader.ask

        async def interrupted(query: Any) -> Any:
            answer = await ask(query)
            store._writer.deferred_commits += 1
            return answer

        monkeypatch.setattr(store._reader, "ask", interrupted)
        with trio.fail_after(20):
            hints = await store.due_hints(ALICE, limit=256, now_ms=NOW)
        assert [hint.sequence for hint in hints] == list(range(1, 201))


# -- one process at a time ------------------------------------------------------------------------------------------

HOLD = """
import os, sys
from pathlib import Path
from node.store.sqlite.file_lock import lock_directory
from node.store.sqlite.store import SqliteStore
store = SqliteStore.open(Path(sys.argv[1]), random_id="0" * 16)
lock = lock_directory(Path(sys.argv[1]).parent)
print("held", flush=True)
sys.stdin.read()
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_second_process_is_told_who_holds_the_store_until_that_is_gone(path: Path) -> None:
    with start(HOLD, str(path)) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "held\n"
            assert f"in use by process {child.pid}" in refused(path)
            with pytest.raises(StoreRefused, match=f"{path.parent} is in use by process {child.pid}"):
                lock_directory(path.parent)
        finally:
            child.kill()
    lock_directory(path.parent).release()
    store = SqliteStore.open(path, random_id=LOG_ID)
    assert store.log_id == "0" * 16
    for connection in store._connections:
        connection.close()
    store._lock.release()


def test_a_lock_excludes_its_own_process_too(tmp_path: Path) -> None:
    lock = lock_directory(tmp_path)
    with pytest.raises(StoreRefused, match=f"process {os.getpid()}"):
        lock_directory(tmp_path)
    lock.release()
    lock.release()
    lock_directory(tmp_path).release()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


# -- kill -9 --------------------------------------------------------------------------------------------------------

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
    """Promise 1: killed in mid-write, again and again; each time all is there, and heads, log and hints agree."""
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
                parents = {parent for version in versions for parent in version.parents}
                assert {head.digest for head in heads} == {each.digest for each in versions} - parents
    assert len(acknowledged) > 100


def _killed_in_mid_write(path: Path, first: int) -> list[bytes]:
    with start(PUT_IN_A_LOOP, str(path), str(first)) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(40)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    return [bytes.fromhex(line) for line in lines if len(line) == 65]


# -- full and stalled disks -----------------------------------------------------------------------------------------


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
    """A real one: a file system of three megabytes, in a name space of its own, so that it takes no root."""
    command = f"mount -t tmpfs -o size=3m tmpfs {tmp_path} && exec {sys.executable} -c '{FILL}' {tmp_path}"
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run(
        [*unshare, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("this machine allows no file system of our own")
    done = subprocess.run([*unshare, "sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 20


async def test_a_disk_that_hangs_does_not_hold_up_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "CLOSE_SECONDS", 0.2)
    breaker = threading.Event()
    failed = trio.Event()

    async def write(store: SqliteStore) -> None:
        with pytest.raises(Unavailable, match="may be there"):
            await put(store, envelope(1))
        failed.set()

    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as callers:
                async with opened(path, before_commit=lambda: breaker.wait(30) and None) as store:
                    callers.start_soon(write, store)
                    await trio.testing.wait_all_tasks_blocked(0.02)
                await failed.wait()
                with pytest.raises(Unavailable):
                    await put(store, envelope(2))
            breaker.set()
            while store._connections[0].in_transaction:  # what was given up ends in its own time, as a process would
                await trio.sleep(0.01)
            for connection in store._connections:
                connection.close()
    finally:
        breaker.set()


async def test_calls_beyond_the_queue_of_a_disk_that_hangs_fail_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "QUEUE_MAX", 5)
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


async def test_what_cannot_be_written_at_all_fails_alone(path: Path) -> None:
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


# -- memory and disk ------------------------------------------------------------------------------------------------


async def test_acknowledgements_are_written_within_a_second_without_another_commit(path: Path) -> None:
    async with opened(path) as store:
        await put(store, envelope(1), holders=(ALICE, BOB))
        commits = store.stats().commits
        store.acknowledge(ALICE, [1])
        with trio.fail_after(5):
            while store.stats().commits == commits:
                await trio.sleep(0.01)
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM hints").fetchone() == (1,)
            assert db.execute("SELECT count(*) FROM acknowledged").fetchone() == (1,)


async def test_an_idle_store_commits_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FLUSH_SECONDS", 0.01)
    async with opened(path) as store:
        await put(store, envelope(1))
        commits = store.stats().commits
        await trio.sleep(0.2)  # twenty times as long as it would take to notice that there is something to write
        assert store.stats().commits == commits


async def test_heads_that_do_not_fit_into_memory_are_read_from_the_disk(path: Path) -> None:
    async with opened(path, cache_bytes=10_000) as store:
        items = [envelope(version, path=f"{version}") for version in range(1, 51)]
        await put(store, *items)
        assert store._heads.size_bytes <= 10_000
        assert len(store._heads) < 50
        for _ in range(2):
            for item in items:
                assert await store.heads(item.key) == (item,)
        successor = envelope(100, path="1")
        await put(store, successor)
        assert await store.heads(successor.key) == (successor, items[0])
        assert store._heads.size_bytes <= 10_000


async def test_writes_that_memory_has_forgotten_are_paid_and_answered_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_hints, "CACHED_WRITES_MAX", 10)
    async with opened(path) as store:
        for version in range(1, 51):
            await store.merge([Incoming(envelope(version), Origin.LOCAL, (ALICE, BOB))], now_ms=NOW + version)
        assert store.pending().oldest_at_ms == NOW + 1
        store.postpone_hint(ALICE, 7, next_try_ms=NOW + 5000, refusal="busy")
        hints = await store.due_hints(ALICE, limit=100, now_ms=NOW)
        assert [hint.sequence for hint in hints] == [each for each in range(1, 51) if each != 7]
        assert [hint.at_ms for hint in hints[:3]] == [NOW + 1, NOW + 2, NOW + 3]
        store.acknowledge(ALICE, range(1, 31))
        store.acknowledge(BOB, range(1, 21))
        assert [hint.sequence for hint in await store.due_hints(BOB, limit=2, now_ms=NOW)] == [21, 22]
        standing = await store.standing(sequence=25)
        assert standing is not None
        assert (standing.acknowledged, standing.wanted) == ((ALICE,), 2)
        with trio.fail_after(5):
            while store.pending().oldest_at_ms != NOW + 21:
                await trio.sleep(0.001)
        assert (await store.replicated(envelope(3).digest, 2)).sequence == 3


async def test_a_flood_of_hints_survives_a_restart_and_is_paid_in_order(path: Path) -> None:
    holders = tuple(f"12D3KooW{name}" for name in "abcd")
    async with opened(path) as store:
        for start_at in range(1, 5001, 500):
            await put(
                store, *(envelope(version, path=f"{version}") for version in range(start_at, start_at + 500)),
                holders=holders,
            )  # fmt: skip
    async with opened(path) as store:
        assert store.hint_counts() == dict.fromkeys(holders, 5000)
        paid: list[int] = []
        while hints := await store.due_hints(holders[0], limit=256, now_ms=NOW):
            paid += [hint.sequence for hint in hints]
            store.acknowledge(holders[0], [hint.sequence for hint in hints])
        assert paid == list(range(1, 5001))
        assert store.hint_counts() == dict.fromkeys(holders[1:], 5000)
    async with opened(path) as store:
        assert store.hint_counts() == dict.fromkeys(holders[1:], 5000)


async def test_a_read_that_was_overtaken_by_a_write_is_not_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heads of a key are being read while they change: memory must not keep what was read."""
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
        with trio.fail_after(5):
            while not read:
                await trio.sleep(0)
        assert read == [(second, first)]
        assert await store.heads(first.key) == (second, first)


async def test_what_was_written_with_a_crash_before_the_lazy_part_is_paid_once_more_and_no_worse(path: Path) -> None:
    copy = path.with_name("crashed.sqlite3")
    async with opened(path) as store:
        await put(store, envelope(1), holders=(ALICE,))
        shutil.copy(path, copy)
        shutil.copy(f"{path}-wal", f"{copy}-wal")
        store.acknowledge(ALICE, [1])
    async with opened(copy) as store:
        assert store.hint_counts() == {ALICE: 1}
        store.acknowledge(ALICE, [1])
        standing = await store.standing(sequence=1)
        assert standing is not None
        assert standing.acknowledged == (ALICE,)
