"""Connections to the store's file, and the settings of SQLite for them."""

import os
import sqlite3
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from node.store.errors import StoreRefused

_WRITER_PRAGMAS = (
    "synchronous = FULL",  # a commit has reached the disk, not only its queue
    "fullfsync = ON",  # needed for the same on macOS
    "wal_autocheckpoint = 1000",  # with more pages, a checkpoint delays a commit for longer
    "journal_size_limit = 67108864",
    "cache_size = -16384",
    "secure_delete = OFF",  # only hints are deleted; to overwrite them with zeros costs a third of an acknowledgement
    "temp_store = MEMORY",
)


PATH_BYTES_MAX = 496
"""SQLite refuses a path of more than 504 bytes (its MAX_PATHNAME is 512, and a journal's name has 8 more), and a new
store has the name `store.db.new` at first."""


def refuse_long_path(path: Path) -> None:
    """Raises `StoreRefused` for a path that SQLite does not take. Nothing is made."""
    if (length := len(os.fsencode(os.path.realpath(path)))) > PATH_BYTES_MAX:
        raise StoreRefused(
            f"the path of the store would have {length} bytes, and SQLite takes at most {PATH_BYTES_MAX}; name a "
            "shorter data directory with --data-dir"
        )


def connect(path: Path, mode: Literal["rw", "ro", "immutable"]) -> sqlite3.Connection:
    """Open a connection in autocommit mode. It is used by one thread at a time, but not always by the same.

    With `immutable` it reads the file as it is: no lock, and nothing of a write-ahead file beside it.
    """
    url = (
        f"file:{quote(os.fsencode(path.absolute()))}?{'immutable=1&mode=ro' if mode == 'immutable' else f'mode={mode}'}"
    )
    return sqlite3.connect(
        url, uri=True, isolation_level=None, check_same_thread=False, cached_statements=512, timeout=2.0
    )


def prepare_writer(writer: sqlite3.Connection) -> None:
    for pragma in _WRITER_PRAGMAS:
        writer.execute(f"PRAGMA {pragma}")
    # An acknowledgement ends its hint: one statement for all holders, wherever acknowledgements are inserted.
    writer.execute(
        "CREATE TEMP TRIGGER acknowledgement_deletes_hint AFTER INSERT ON main.acknowledged BEGIN "
        "DELETE FROM hints WHERE holder = NEW.holder AND sequence = NEW.sequence; END"
    )


def prepare_reader(reader: sqlite3.Connection) -> None:
    reader.execute("PRAGMA cache_size = -8192")
