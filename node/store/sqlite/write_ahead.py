"""The write-ahead file of a store: notices that it was removed or emptied, or that the store was copied without it.

Commits are in the write-ahead file (`-wal`) first. When that is gone, SQLite opens what is left without a word: the
latest acknowledged writes are missing. So the database file itself says that it is in use: the row `write_ahead` of
the table `meta` is `open`, and is in the file before the first write. An orderly end writes `closed` and moves
everything into the file. A file that is `open` and has no write-ahead file beside it lost what was in that one. What a
write-ahead file lost at its end alone is known to peers only, see `protocols/log_lineage.py`.
"""

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from node.store.marks import UNPROVED_MARK
from node.store.sqlite.log_rows import begin_log, set_mark

_OPEN: Final = "open"
_CLOSED: Final = "closed"
_MAGIC: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24


def has_frames(path: Path) -> bool:
    """Whether the write-ahead file of this database has commits that SQLite would read. Raises `OSError`."""
    try:
        with open(f"{path.resolve()}-wal", "rb") as file:  # SQLite keeps it beside the file, not beside a link to it
            head = file.read(_HEADER_BYTES + _FRAME_HEADER_BYTES)
    except FileNotFoundError:
        return False
    is_whole = len(head) == _HEADER_BYTES + _FRAME_HEADER_BYTES and head[:4] in _MAGIC
    return is_whole and head[16:24] == head[_HEADER_BYTES + 8 : _HEADER_BYTES + 16]  # the salts of header and frame


def was_open(writer: sqlite3.Connection) -> bool:
    """Whether the file was in use when it was closed or copied."""
    row = writer.execute("SELECT value FROM meta WHERE name = 'write_ahead'").fetchone()
    return row is not None and row[0] == _OPEN


def begin(writer: sqlite3.Connection, *, is_lost: bool, is_proved: bool, log_id: str) -> None:
    """Begin the log of this run, and mark the file as in use; and as not proved to be whole, unless it is.

    When a full disk does not take that, the store is opened all the same: its former log goes on, and a later loss goes
    unnoticed.
    """
    try:
        writer.execute("BEGIN IMMEDIATE")
        begin_log(writer, log_id)
        if not is_proved:
            set_mark(writer, UNPROVED_MARK, "1")
        writer.execute("INSERT OR REPLACE INTO meta VALUES ('write_ahead', ?)", (_OPEN,))
        writer.execute("COMMIT")
        writer.execute("PRAGMA wal_checkpoint(FULL)")
    except sqlite3.Error:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        if is_lost:
            raise


def end(writer: sqlite3.Connection) -> None:
    """Move everything into the file, and mark it as closed. If that fails, the write-ahead file stays."""
    with suppress(sqlite3.Error):
        writer.execute("INSERT OR REPLACE INTO meta VALUES ('write_ahead', ?)", (_CLOSED,))
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
