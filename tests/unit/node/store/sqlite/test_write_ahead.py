"""A write-ahead file that was removed: the next start says so. Each start begins a log, and remembers those before."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from node.store.errors import StoreRefused
from node.store.sqlite import meta, schema
from node.store.sqlite.rebuild import rebuild_store
from node.store.sqlite.store import SqliteStore
from protocols.log_lineage import LogPosition
from tests.unit.node.store.sqlite.files import ALICE, LOG_ID, envelope, opened, put

NEW_ID = "ffeeddccbbaa9988"


def _reopened(path: Path, log_id: str = NEW_ID) -> tuple[str, int, list[LogPosition]]:
    """What the store says that it lost, its last sequence, and its former logs, after a start with another log id."""
    store = SqliteStore.open(path, random_id=log_id)
    store.close()
    assert store.log_id == log_id
    return store.damage.lost, store.last_sequence, list(store.former_logs)


async def _killed(path: Path, copy: Path, count: int = 3) -> None:
    """In `copy`: the files of a store whose process was killed after so many writes."""
    copy.parent.mkdir()
    async with opened(path) as store:
        for version in range(1, count + 1):
            await put(store, envelope(version), holders=(ALICE,))
        for name in ("", "-wal"):
            shutil.copyfile(f"{path}{name}", f"{copy}{name}")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy" / "store.sqlite3"


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _empty(wal: Path) -> None:
    wal.write_bytes(b"")


def _overwrite(wal: Path) -> None:
    wal.write_bytes(bytes(wal.stat().st_size))


def _cut_to_header(wal: Path) -> None:
    wal.write_bytes(wal.read_bytes()[:32])


@pytest.mark.parametrize("damage", [Path.unlink, _empty, _overwrite, _cut_to_header])
async def test_a_write_ahead_file_that_was_removed_is_noticed(
    damage: Callable[[Path], None], path: Path, copy: Path
) -> None:
    await _killed(path, copy)
    damage(_wal(copy))
    lost, last_sequence, former = _reopened(copy)
    assert last_sequence < 3
    assert former == [LogPosition(LOG_ID, last_sequence)], "what came after it was of that log, and is not here"
    assert "lost its write-ahead file" in lost
    assert _reopened(copy)[:2] == ("", last_sequence), "the next start follows an orderly end"


async def test_a_store_that_was_killed_lost_nothing_and_says_nothing(path: Path, copy: Path) -> None:
    await _killed(path, copy)
    assert _reopened(copy) == ("", 3, [LogPosition(LOG_ID, 3)])


async def test_each_start_begins_a_log_that_goes_on_counting(path: Path) -> None:
    async with opened(path) as store:
        await put(store, envelope(1), envelope(2))
    for log_id in ("a" * 16, "b" * 16):
        _reopened(path, log_id)
    async with opened(path) as store:
        assert store.former_logs == (LogPosition(LOG_ID, 2), LogPosition("a" * 16, 2), LogPosition("b" * 16, 2))
        await put(store, envelope(3))
        assert store.last_sequence == 3


async def test_a_store_on_a_full_disk_opens_and_its_log_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path) as store:
        await put(store, envelope(1))

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(meta, "begin_log", full)
        store = SqliteStore.open(path, random_id=NEW_ID)
        store.close()
    assert (store.log_id, store.former_logs) == (LOG_ID, ())


async def test_a_store_runs_once(path: Path) -> None:
    async with opened(path) as store:
        with pytest.raises(AssertionError, match="a store runs once"):
            await store.run()


async def test_a_store_that_was_killed_twice_before_it_wrote_lost_nothing(path: Path, copy: Path) -> None:
    await _killed(path, copy, count=0)
    again = copy.with_name("again.sqlite3")
    async with opened(copy) as store:
        assert not store.damage.lost
        for name in ("", "-wal"):
            shutil.copyfile(f"{copy}{name}", f"{again}{name}")
    assert _reopened(again)[:2] == ("", 0)
    _wal(again).unlink(missing_ok=True)
    assert _reopened(again)[:2] == ("", 0)


async def test_a_store_behind_a_link_that_was_killed_lost_nothing(path: Path, copy: Path, tmp_path: Path) -> None:
    await _killed(path, copy)
    link = tmp_path / "link.sqlite3"
    link.symlink_to(copy)
    assert _reopened(link)[:2] == ("", 3)


async def test_an_orderly_end_leaves_one_file_that_is_complete(path: Path) -> None:
    async with opened(path) as store:
        await put(store, envelope(1))
    assert not _wal(path).exists()
    assert _reopened(path)[:2] == ("", 1)
    rebuild_store(path)
    assert _reopened(path)[:2] == ("", 1)


async def test_a_start_that_is_refused_does_not_look_like_a_loss_to_the_next(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _killed(path, copy)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "INSERT INTO nowhere VALUES (1)"))
        with pytest.raises(StoreRefused):
            SqliteStore.open(copy, random_id=NEW_ID)
    assert _reopened(copy)[:2] == ("", 3)


async def test_a_file_that_was_copied_from_a_running_node_without_its_write_ahead_file_is_noticed(
    path: Path, copy: Path
) -> None:
    await _killed(path, copy)
    with sqlite3.connect(copy) as db, sqlite3.connect(copy.with_name("backup")) as backup:
        db.backup(backup)
    db.close()
    backup.close()
    lost, last_sequence, _ = _reopened(copy.with_name("backup"))
    assert last_sequence == 3
    assert "copied from a running node" in lost
