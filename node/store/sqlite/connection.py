"""Connections to the store's file, and the settings of SQLite for them."""

import sqlite3
from pathlib import Path
from typing import Literal
from urllib.parse import quote

_WRITER_PRAGMAS = (
    "synchronous = FULL",  # a commit has reached the disk, not only its queue
    "fullfsync = ON",  # needed for the same on macOS
    "wal_autocheckpoint = 1000",  # with more pages, a checkpoint delays a commit for longer
    "journal_size_limit = 67108864",
    "cache_size = -16384",
    "secure_delete = OFF",  # only hints are deleted; to overwrite them with zeros costs a third of an acknowledgement
    "temp_store = MEMORY",
)


def connect(path: Path, mode: Literal["rw", "ro"]) -> sqlite3.Connection:
    """Open a connection in autocommit mode. It is used by one thread at a time, but not always by the same."""
    return sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False,
        cached_statements=512, timeout=2.0,
    )  # fmt: skip


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
