"""The check of the store's file: what is refused, and that a refused file is left as it was."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from node.store.errors import StoreRefused
from node.store.sqlite import file_check, schema
from node.store.sqlite.store import SqliteStore
from tests.unit.node.store.sqlite.files import (
    LOG_ID,
    create,
    fingerprint,
    opened,
    refused,
)


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
    await create(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {schema.newest_schema() + 1}")
        db.commit()
    assert "newer" in refused(path)


@pytest.mark.parametrize("earlier", range(1, schema.BASE_SCHEMA))
async def test_a_store_of_format_1_is_refused_by_name_and_left_as_it_is(path: Path, earlier: int) -> None:
    await create(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {earlier}")
    message = refused(path)
    for part in ("envelopes of format 1", "reads format 2", f"schema {earlier}", f"move {path.name} away"):
        assert part in message


async def test_a_newer_schema_that_is_in_the_log_alone_is_refused(path: Path) -> None:
    await create(path)
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
    await create(path)
    data = bytearray(path.read_bytes())
    pages = len(data) // 4096
    at = (page % pages) * 4096
    data[at : at + 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    assert "damaged" in refused(path)


@pytest.mark.parametrize("pages", [1, 10, 40])
async def test_a_truncated_file_is_refused(path: Path, pages: int) -> None:
    await create(path)
    os.truncate(path, pages * 4096)
    assert "damaged" in refused(path)


async def test_a_large_truncated_file_is_refused_without_reading_all_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_check, "CHECKED_WHOLE_BYTES_MAX", 0)
    await create(path)
    async with opened(path) as store:
        assert store.last_sequence == 200
    os.truncate(path, path.stat().st_size - 4096)
    assert "damaged" in refused(path)


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="No such file"):
        SqliteStore.open(tmp_path / "nowhere" / "store.sqlite3", random_id=LOG_ID)


async def test_a_disk_without_room_for_the_index_of_the_write_ahead_file_is_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(path)

    def full(*_: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
        raise error

    monkeypatch.setattr(file_check, "connect", full)
    message = refused(path)
    assert "cannot be opened as the store: disk I/O error" in message
    assert "damaged" not in message
