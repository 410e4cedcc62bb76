"""The store's file: its settings and permissions, how it is created and upgraded."""

from pathlib import Path

import pytest

from node.store.errors import StoreRefused
from node.store.sqlite import schema
from node.store.sqlite.store import SqliteStore
from tests.unit.node.store.sqlite.files import (
    LOG_ID,
    create,
    envelope,
    opened,
    put,
)


async def test_a_commit_is_on_the_disk_when_it_is_acknowledged(path: Path) -> None:
    async with opened(path) as store:
        db = store._connections[0]  # private: `synchronous` is a setting of this connection, not of the file
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"


async def test_the_file_and_its_log_are_the_owners_alone(path: Path) -> None:
    await create(path)
    path.chmod(0o644)
    async with opened(path) as store:
        await put(store, envelope(1000))
        modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert {name for name in modes if name.startswith(path.name)} >= {path.name, f"{path.name}-wal"}
    assert set(modes.values()) == {0o600}, modes


async def test_a_closed_store_is_one_file_beside_its_note_and_its_lock(path: Path) -> None:
    await create(path)
    names = [path.name, f"{path.name}.closed", f"{path.name}.lock"]
    assert sorted(each.name for each in path.parent.iterdir()) == names
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}


async def test_a_half_created_file_is_created_again(path: Path) -> None:
    path.with_name(path.name + ".new").write_bytes(b"half")
    await create(path)
    async with opened(path) as store:
        assert store.last_sequence == 200


async def test_an_older_schema_is_upgraded_with_all_it_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await create(path)
    steps = ("CREATE TABLE extra (x)", "INSERT INTO extra VALUES (7)")
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS + steps)
    for _ in range(2):
        async with opened(path) as store:
            assert store.last_sequence == 200
            # Private: no query of the store reads a table that only this test has.
            assert store._connections[0].execute("SELECT x FROM extra").fetchall() == [(7,)]


async def test_an_upgrade_keeps_a_copy_that_the_earlier_build_opens(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await create(path)
    copy = path.with_name(f"{path.name}.schema-{schema.newest_schema()}")
    assert not copy.exists()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE extra (x)"))
        async with opened(path) as store:
            await put(store, envelope(9999))
        assert f"the copy from before is {copy}" in caplog.text
        assert copy.stat().st_mode & 0o777 == 0o600
        caplog.clear()
        async with opened(path):
            pass
        assert caplog.text == "", "there is no second upgrade"
    with pytest.raises(StoreRefused, match=f"put {copy.name} in its place"):
        SqliteStore.open(path, random_id=LOG_ID)
    copy.rename(path)
    async with opened(path) as store:
        assert store.last_sequence == 200


async def test_a_migration_that_fails_leaves_the_older_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await create(path)
    with monkeypatch.context() as patch:
        step = "CREATE TABLE extra (x); INSERT INTO nowhere VALUES (1)"
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
        with pytest.raises(StoreRefused, match="nowhere"):
            SqliteStore.open(path, random_id=LOG_ID)
    assert not path.with_name(f"{path.name}-wal").exists(), "no connection was left open"
    async with opened(path) as store:
        assert store.last_sequence == 200
