"""The blocks of long histories: how they grow, come with an upgrade, and are found wrong and mended."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.store.sqlite import schema
from node.store.sqlite.history_blocks import BLOCK_MAX, BLOCK_ROWS, GROWTH
from node.store.sqlite.rebuild import check_store, rebuild_store
from protocols.envelope import Envelope
from protocols.errors import StorageFull
from tests.unit.node.store.sqlite.files import envelope, opened, put

COUNT = BLOCK_MAX + BLOCK_ROWS + 100
VERSIONS = [envelope(number) for number in range(1, COUNT + 1)]


def _query(path: Path, statement: str) -> list[tuple[int, ...]]:
    with closing(sqlite3.connect(path)) as db, db:
        return db.execute(statement).fetchall()


def _blocks(path: Path) -> list[tuple[int, ...]]:
    return _query(path, "SELECT versions, reissued, held FROM history_blocks ORDER BY version, author, digest")


async def _create(path: Path, versions: list[Envelope]) -> None:
    async with opened(path) as store:
        for start in range(0, len(versions), 100):
            await put(store, *versions[start : start + 100])


@pytest.mark.parametrize("is_in_order", [True, False])
async def test_blocks_stay_small_whatever_the_order_of_arrival(is_in_order: bool, path: Path) -> None:
    arrival = VERSIONS if is_in_order else random.Random(1).sample(VERSIONS, len(VERSIONS))
    await _create(path, arrival)
    blocks = _blocks(path)
    assert sum(versions for versions, _, _ in blocks) == sum(held for _, _, held in blocks) == COUNT
    assert 2 <= len(blocks) <= COUNT // BLOCK_ROWS
    assert max(versions for versions, _, _ in blocks) <= BLOCK_MAX
    assert check_store(path).faults == ()


async def test_a_key_with_few_versions_has_no_blocks(path: Path) -> None:
    await _create(path, VERSIONS[: BLOCK_MAX - GROWTH])
    assert _blocks(path) == []


async def test_an_upgrade_makes_the_blocks_of_histories_that_are_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = [envelope(number, path="short") for number in range(1, 20)]
    await _create(path, VERSIONS + other)
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(f"DROP TABLE history_blocks; PRAGMA user_version = {schema.BASE_SCHEMA}")
    async with opened(path) as store:
        assert await store.count_versions(VERSIONS[0].key) == COUNT
        (second,) = await store.versions(VERSIONS[0].key, after=COUNT - 2, limit=1)
        assert second.digest == VERSIONS[-2].digest
        await put(store, *(envelope(number) for number in range(COUNT + 1, COUNT + 5)))
    assert sum(versions for versions, _, _ in _blocks(path)) == COUNT + 4
    assert check_store(path).faults == ()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE history_blocks SET versions = versions + 1 WHERE version > -9223372036854775808",
        "UPDATE history_blocks SET held = 0",
        "UPDATE history_blocks SET reissued = 1",
        "DELETE FROM history_blocks WHERE version = -9223372036854775808",
    ],
)
async def test_a_check_finds_wrong_blocks_and_a_rebuild_mends_them(damage: str, path: Path) -> None:
    await _create(path, VERSIONS)
    _query(path, damage)
    (fault,) = check_store(path).faults
    assert "the blocks of its history" in fault.text
    rebuild_store(path)
    assert check_store(path).faults == ()


async def test_a_write_goes_on_when_the_row_of_its_block_was_lost(path: Path) -> None:
    await _create(path, VERSIONS)
    _query(path, "DELETE FROM history_blocks WHERE version = -9223372036854775808")
    early = envelope(1, content=b"early")
    async with opened(path) as store:
        await put(store, early)
        assert await store.count_versions(early.key) == COUNT + 1
    assert check_store(path).faults == ()


async def test_a_failed_commit_leaves_the_blocks_as_they_were(path: Path) -> None:
    is_broken = False

    def fail() -> None:
        if is_broken:
            raise OSError(28, "No space left on device")

    await _create(path, VERSIONS)
    async with opened(path, before_commit=fail) as store:
        is_broken = True
        with pytest.raises(StorageFull):
            await put(store, envelope(COUNT + 1))
        is_broken = False
        await put(store, envelope(COUNT + 2))
        assert await store.count_versions(VERSIONS[0].key) == COUNT + 1
    assert check_store(path).faults == ()
