"""A start knows the file that the last run closed in order from every other one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from node.store.marks import UNPROVED_MARK
from node.store.sqlite import clean_end
from node.store.sqlite.rebuild import rebuild_store
from node.store.sqlite.store import SqliteStore
from tests.unit.node.store.sqlite.files import envelope, opened, put


def is_proved(path: Path, number: int = 1) -> bool:
    """Open the store, as the run of that number does, and close it in order."""
    store = SqliteStore.open(path, random_id=f"{number:016x}")
    store.close()
    return not store.mark(UNPROVED_MARK)


async def closed(path: Path) -> None:
    async with opened(path) as store:
        await put(store, envelope(1))


async def test_a_new_file_and_one_that_was_closed_in_order_are_whole(path: Path) -> None:
    assert is_proved(path)
    await closed(path)
    assert is_proved(path, 2)
    assert is_proved(path, 3)


def _copied_over(path: Path) -> None:
    """As `cp -a` restores it: the same content, times and mode."""
    before = path.with_name("before")
    shutil.copy2(path, before)
    path.unlink()
    shutil.copy2(before, path)


def _written_over(path: Path) -> None:
    """The same content written into the same file, with its old times."""
    times = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _without_note(path: Path) -> None:
    clean_end.note_of(path).unlink()


def _with_half_a_note(path: Path) -> None:
    note = clean_end.note_of(path)
    note.write_text(note.read_text(encoding="ascii")[:20], encoding="ascii")


def _rebuilt_copy(path: Path) -> None:
    _copied_over(path)
    rebuild_store(path)


@pytest.mark.parametrize("change", [_copied_over, _written_over, _without_note, _with_half_a_note, _rebuilt_copy])
async def test_any_other_file_in_its_place_is_not_proved(path: Path, change: Callable[[Path], None]) -> None:
    await closed(path)
    change(path)
    assert not is_proved(path)
    assert not is_proved(path, 2), "until a node removes the mark"


async def test_after_a_boot_no_file_is_proved(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    await closed(path)
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another boot", encoding="ascii")
    monkeypatch.setattr(clean_end, "BOOT_ID", boot_id)
    assert not is_proved(path)


async def test_a_file_of_a_run_that_was_killed_is_not_proved(path: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed" / "store.sqlite3"
    killed.parent.mkdir()
    async with opened(path) as store:
        await put(store, envelope(1))
        for name in ("", "-wal"):
            shutil.copyfile(f"{path}{name}", f"{killed}{name}")
    assert not is_proved(killed)
