"""A database file beside the write-ahead file of another time is refused; one beside its own never is."""

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.store.errors import StoreRefused
from node.store.sqlite import meta, write_ahead_chain
from node.store.sqlite.connection import connect
from node.store.sqlite.store import SqliteStore
from node.store.sqlite.write_ahead_chain import WriteAheadChain
from tests.unit.node.store.sqlite.files import create, envelope, fingerprint, opened, put

LATER_ID = "ffeeddccbbaa9988"
OTHERS = ("", "-wal", "-shm")


async def killed(path: Path, copy: Path, first: int, *, count: int = 3) -> None:
    """In `copy`: the files of a store whose process was killed after so many more writes."""
    copy.parent.mkdir()
    async with opened(path) as store:
        for version in range(first, first + count):
            await put(store, envelope(version, content=bytes(30_000)))
        for name in OTHERS:
            shutil.copyfile(f"{path}{name}", f"{copy}{name}")


@pytest.mark.parametrize("count", [3, 250])
async def test_an_older_file_beside_a_newer_write_ahead_file_is_refused(path: Path, tmp_path: Path, count: int) -> None:
    await create(path, 10)
    older, copy = tmp_path / "older", tmp_path / "killed" / "store.db"
    shutil.copyfile(path, older)
    await killed(path, copy, 11, count=count)
    kept = tmp_path / "kept"
    shutil.copyfile(copy, kept)
    shutil.copyfile(older, copy)
    before = [fingerprint(Path(f"{copy}{name}")) for name in OTHERS[:2]]
    with pytest.raises(
        StoreRefused, match=r"is not the file that store\.db-wal beside it belongs to: one of"
    ) as refusal:
        SqliteStore.open(copy, random_id=LATER_ID)
    assert "move store.db-wal and store.db-shm away" in str(refusal.value)
    assert [fingerprint(Path(f"{copy}{name}")) for name in OTHERS[:2]] == before
    shutil.copyfile(kept, copy)
    store = SqliteStore.open(copy, random_id=LATER_ID)
    assert store.last_sequence == 10 + count
    store.close()


async def test_what_the_refusal_says_to_do_helps(path: Path, tmp_path: Path) -> None:
    await create(path, 10)
    older, copy = tmp_path / "older", tmp_path / "killed" / "store.db"
    shutil.copyfile(path, older)
    await killed(path, copy, 11)
    shutil.copyfile(older, copy)
    for name in OTHERS[1:]:
        Path(f"{copy}{name}").rename(tmp_path / f"aside{name}")
    store = SqliteStore.open(copy, random_id=LATER_ID)
    assert (store.last_sequence, store.mark("unproved")) == (10, "1")
    store.close()


class Twin:
    """A file with tiny write-ahead files, written in transactions of random size."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self.path, self._rng = path, rng
        self._open()

    def _open(self) -> None:
        self._db = connect(self.path, "rw")
        self._reader = connect(self.path, "ro")
        self._db.execute("PRAGMA wal_autocheckpoint = 4")
        self._chain = WriteAheadChain(self._db, self.path)

    def step(self) -> None:
        match self._rng.randrange(8):
            case 0 if not self._reader.in_transaction:
                self._reader.execute("BEGIN")
                self._reader.execute("SELECT count(*) FROM rows").fetchone()
            case 1 if self._reader.in_transaction:
                self._reader.execute("COMMIT")
            case 2:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            case _:
                self._commit(self._rng.choice((1, 1, 3, 40)))

    def _commit(self, rows: int) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO rows VALUES (?)", [(bytes(1_000),)] * rows)
        self._chain.mark()
        if self._rng.randrange(6):
            self._db.execute("COMMIT")
            self._chain.committed()
        else:
            self._db.execute("ROLLBACK")
            self._chain.rolled_back()

    def copy(self, to: Path) -> Path:
        """The files as a kill leaves them, or a kill in the middle of a checkpoint."""
        to.mkdir()
        for name in OTHERS:
            shutil.copyfile(f"{self.path}{name}", to / f"store.db{name}")
        return to / "store.db"

    def reopen(self) -> None:
        """After a kill: the write-ahead file goes on."""
        keeps_files = connect(self.path, "ro")
        keeps_files.execute("SELECT * FROM meta").fetchone()
        self.close()
        self._open()
        keeps_files.close()

    def close(self) -> None:
        self._reader.close()
        self._db.close()


def _is_refused(path: Path) -> bool:
    try:
        write_ahead_chain.check(path)
    except StoreRefused:
        return True
    return False


@pytest.mark.parametrize("seed", range(3))
def test_no_file_is_refused_beside_its_own_write_ahead_file(path: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "PRAGMA journal_mode = WAL; CREATE TABLE meta (name PRIMARY KEY, value); CREATE TABLE rows (x)"
        )
        meta.write(db, write_ahead_chain.row_of_run(LATER_ID))
        db.commit()
    twin = Twin(path, rng)
    copies: list[Path] = []
    try:
        for number in range(80):
            twin.step()
            if not rng.randrange(12):
                twin.reopen()
            copy = twin.copy(tmp_path / f"{number}")
            assert not _is_refused(copy)
            copies.append(copy)
    finally:
        twin.close()
    refused = 0
    for newer in copies[40:]:
        shutil.copyfile(copies[0], newer)
        refused += bool(write_ahead_chain.salt_of_frames(newer) and _is_refused(newer))
    assert refused > 3
