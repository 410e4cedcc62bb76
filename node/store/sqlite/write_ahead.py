"""The write-ahead file of a store: notices that it was removed or emptied, or that the store was copied without it.

Commits are in the write-ahead file (`-wal`) first. When that is gone, SQLite opens what is left without a word: the
latest acknowledged writes are missing. So the database file itself says that it is in use: the row `write_ahead` of
the table `meta` is `open`, and is in the file before the first write. An orderly end writes `closed` and moves
everything into the file. A file that is `open` and has no write-ahead file beside it lost what was in that one. What a
write-ahead file lost at its end alone is known to peers only, see `protocols/log_lineage.py`.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from node.store.marks import LOST_MARK, RECONCILED_MARK
from node.store.sqlite import meta, write_ahead_chain

_STATE: Final = "write_ahead"
_OPEN: Final = "open"
_CLOSED: Final = "closed"


def has_frames(path: Path) -> bool:
    """Whether the write-ahead file of this database has commits that SQLite would read. Raises `OSError`."""
    return bool(write_ahead_chain.salt_of_frames(path))


def lost_with(path: Path, writer: sqlite3.Connection, *, had_frames: bool) -> str:
    """What is missing because the file was in use and has no write-ahead file beside it, in words; else ''."""
    if had_frames or meta.value(writer, _STATE) != _OPEN:
        return ""
    return (
        f"{path} lost its write-ahead file, or was copied from a running node without it: the latest writes that it "
        "acknowledged are missing here"
    )


def lost_before(writer: sqlite3.Connection) -> str:
    """What an earlier start found missing, in words; '' if the node ended in order since, or has asked its peers."""
    known = meta.marks(writer)
    is_open = meta.value(writer, _STATE) != _CLOSED and known.get(RECONCILED_MARK) == "0"
    return known.get(LOST_MARK, "") if is_open else ""


def begin(writer: sqlite3.Connection, rows: Mapping[str, str], *, is_required: bool, log_id: str) -> None:
    """Begin the log of this run, mark the file as in use, and write these rows of the table `meta`.

    When a full disk does not take that, the store is opened all the same, unless it `is_required`: its former log goes
    on, and a later loss goes unnoticed. Raises `sqlite3.Error`.
    """
    try:
        writer.execute("BEGIN IMMEDIATE")
        meta.begin_log(writer, log_id)
        meta.write(writer, {_STATE: _OPEN, **write_ahead_chain.row_of_run(log_id), **rows})
        writer.execute("COMMIT")
        is_blocked, *_ = writer.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        if is_blocked and is_required:
            raise sqlite3.OperationalError("another program reads the file")
    except sqlite3.Error:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        if is_required:
            raise


def end(writer: sqlite3.Connection) -> None:
    """Move everything into the file, and mark it as closed. If that fails, the write-ahead file stays."""
    with suppress(sqlite3.Error):
        writer.execute("UPDATE meta SET value = ? WHERE name = ?", (_CLOSED, _STATE))  # if it was begun
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
