"""Files of a running store that are removed, replaced or changed: nothing more is acknowledged, and no file of another
node is written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from node.store.errors import StoreFilesLost
from node.store.sqlite.file_guard import FIXED_LOOK_SECONDS, LOOK_SECONDS, FileGuard
from protocols.errors import Unavailable
from tests.unit.node.store.sqlite.files import ALICE, create, envelope, opened, put
from tests.until import until

Mischief = Callable[[Path], None]


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _remove(path: Path) -> None:
    path.unlink()


def _remove_log(path: Path) -> None:
    _wal(path).unlink()


def _move_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def _replace(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.rename(path)


def _lay_over(path: Path) -> None:
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.write(content)


def _remove_key(path: Path) -> None:
    (path.parent / "identity.key").unlink()


def _change_key(path: Path) -> None:
    (path.parent / "identity.key").write_bytes(b"another")


def _remove_lock(path: Path) -> None:
    path.with_name(path.name + ".lock").unlink()


MISCHIEF: dict[str, tuple[Mischief, str]] = {
    "removed": (_remove, "store.sqlite3 was removed"),
    "write-ahead file removed": (_remove_log, "-wal was removed"),
    "directory moved": (_move_directory, "store.sqlite3 was removed"),
    "replaced": (_replace, "store.sqlite3 was replaced"),
    "copied over": (_lay_over, "store.sqlite3 was changed by another program"),
    "key removed": (_remove_key, "identity.key was removed"),
    "key changed": (_change_key, "identity.key was changed"),
    "lock removed": (_remove_lock, r"\.lock was removed"),
}


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "identity.key").write_bytes(b"a key")
    return directory / "store.sqlite3"


@pytest.mark.parametrize("name", MISCHIEF)
async def test_the_next_commit_is_refused(name: str, store_path: Path) -> None:
    mischief, words = MISCHIEF[name]
    async with opened(store_path) as store:
        store.guard(store_path.parent / "identity.key")
        await put(store, envelope(1))
        mischief(store_path)
        if "key" in name or "lock" in name:  # a commit looks at these files less often
            await trio.sleep(FIXED_LOOK_SECONDS)
        with pytest.raises(Unavailable, match=words):
            await put(store, envelope(2))
        assert store.last_sequence == 1
        assert "nothing is written any more" in store.last_failure


def test_after_a_look_that_found_a_loss_no_commit_begins(store_path: Path) -> None:
    store_path.touch()
    guard = FileGuard(store_path)
    guard.add(store_path.parent / "identity.key")
    _remove_key(store_path)
    assert "identity.key was removed" in guard.look()
    with pytest.raises(StoreFilesLost):
        guard.commit_begins()


@pytest.mark.parametrize("name", MISCHIEF)
async def test_it_is_noticed_within_a_second_while_nothing_is_written(name: str, store_path: Path) -> None:
    assert 2 * LOOK_SECONDS <= 1.0
    mischief, words = MISCHIEF[name]
    async with opened(store_path) as store:
        store.guard(store_path.parent / "identity.key")
        await put(store, envelope(1))
        assert store.last_failure == ""
        mischief(store_path)
        with trio.fail_after(30):
            await until(lambda: store.last_failure)
        assert words.replace("\\", "") in store.last_failure


async def test_files_that_vanish_during_a_commit_fail_it_though_sqlite_does_not(store_path: Path) -> None:
    is_removing = False

    def remove() -> None:
        if is_removing and store_path.exists():
            store_path.unlink()

    async with opened(store_path, before_commit=remove) as store:
        await put(store, envelope(1))
        is_removing = True
        with pytest.raises(Unavailable, match="was removed"):
            await put(store, envelope(2))
        assert store.last_sequence == 1
        with pytest.raises(Unavailable, match="was removed"):
            await put(store, envelope(3))


async def test_files_that_come_back_are_written_again(store_path: Path) -> None:
    async with opened(store_path) as store:
        await put(store, envelope(1))
        elsewhere = store_path.with_name("elsewhere")
        store_path.rename(elsewhere)
        with pytest.raises(Unavailable):
            await put(store, envelope(2))
        elsewhere.rename(store_path)
        await put(store, envelope(3), holders=(ALICE,))
        assert store.last_failure == ""
    async with opened(store_path) as store:
        assert store.last_sequence == 2
        assert [head.version for head in await store.heads(envelope(1).key)] == [3, 1]


async def test_a_store_behind_a_link_is_guarded_like_any_other(store_path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.sqlite3"
    link.symlink_to(store_path)
    await create(store_path, count=1)
    async with opened(link) as store:
        await put(store, envelope(10))
        _wal(store_path).unlink()
        with pytest.raises(Unavailable, match="-wal was removed"):
            await put(store, envelope(11))
    async with opened(link) as store:
        await put(store, envelope(12))
        store_path.unlink()
        with pytest.raises(Unavailable, match=r"link.sqlite3 was removed"):
            await put(store, envelope(13))


async def test_nothing_is_read_from_a_file_that_was_changed(store_path: Path) -> None:
    async with opened(store_path, cache_bytes=0) as store:
        await put(store, envelope(1))
        _lay_over(store_path)
        with pytest.raises(Unavailable):
            await put(store, envelope(2))
        with pytest.raises(Unavailable, match="changed by another program"):
            await store.by_digest(envelope(1).digest)


@pytest.mark.parametrize("way", ["renamed", "copied over", "directory"])
async def test_the_files_of_another_node_in_their_place_are_not_written_at_the_end_either(
    way: str, store_path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    await create(other / "store.sqlite3", count=20)
    async with opened(other / "store.sqlite3") as running:
        await put(running, envelope(500))  # so that it has a write-ahead file
        for name in os.listdir(other):
            shutil.copyfile(other / name, tmp_path / name)
    files = ("store.sqlite3", "store.sqlite3-wal")
    before = {name: (tmp_path / name).read_bytes() for name in files}
    async with opened(store_path) as store:
        await put(store, *(envelope(version) for version in range(1, 50)))
        if way == "directory":
            store_path.parent.rename(tmp_path / "elsewhere")
            store_path.parent.mkdir()
        for name in files:
            if way == "renamed":
                os.rename(tmp_path / name, store_path.with_name(name))
            else:
                shutil.copyfile(tmp_path / name, store_path.with_name(name))
    assert {name: store_path.with_name(name).read_bytes() for name in files} == before
