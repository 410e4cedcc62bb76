"""Checks of the store's file before it is opened: is it a store, is it whole, is its schema known?

A file that fails is refused before anything is written to it. The header alone tells a foreign and a newer file, a
connection that cannot write tells a damaged one.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from node.store.errors import StoreRefused
from node.store.sqlite.connection import connect
from protocols.header import FORMAT

APPLICATION_ID: Final = 0x627A7A7A
"""'bzzz', at offset 68 of the file: SQLite's mark of the program that owns it, which `file` shows too."""
CHECKED_WHOLE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A file up to this size is checked page by page when it is opened (under half a second)."""

_MAGIC: Final = b"SQLite format 3\0"
_HEADER_BYTES: Final = 100

_NO_INDEX: Final = (
    sqlite3.SQLITE_IOERR_SHMSIZE,  # a full disk has no room for the index of the write-ahead file
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMMAP,
)

_PROBES: Final = (
    "SELECT value FROM meta WHERE name = 'log_id'",
    "SELECT * FROM versions ORDER BY sequence DESC LIMIT 1",
    "SELECT * FROM versions ORDER BY sequence LIMIT 1",
    "SELECT * FROM contents ORDER BY id DESC LIMIT 1",
    "SELECT * FROM keys ORDER BY id DESC LIMIT 1",
    "SELECT * FROM heads ORDER BY key_id DESC LIMIT 1",
    "SELECT * FROM hints ORDER BY holder DESC, sequence DESC LIMIT 1",
    "SELECT max(prefix) FROM digest_prefixes",
    "SELECT max(prefix) FROM key_prefixes",
    "SELECT max(prefix) FROM content_prefixes",
)
"""They read the ends of the large trees, where a file was cut off."""


def check(path: Path, *, oldest_schema: int, newest_schema: int) -> None:
    """Raise `StoreRefused` unless this is a store with one of these schemas. Nothing is written to it."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    size = path.stat().st_size
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise _damaged(path, "it does not begin as a SQLite database does")
    schemas = range(oldest_schema, newest_schema + 1)
    _check_owner(path, _number(header, 68), _number(header, 60), schemas)
    page_bytes = _number(header, 16) >> 16
    if not _has_log(path) and size < _number(header, 28) * (65536 if page_bytes == 1 else page_bytes):
        # With a log the file may be short: a full disk can end a checkpoint midway, and the log has all pages.
        raise _damaged(path, f"it has {size} bytes, and more were written")
    try:
        _check_content(path, size, schemas)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and _is_of_disk(error.sqlite_errorcode):
            raise
        raise _damaged(path, str(error)) from error


def _is_of_disk(code: int) -> bool:
    """Whether an error is that of the disk or the directory, and says nothing of the file."""
    return code & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL) or code in _NO_INDEX


def _has_log(path: Path) -> bool:
    log = Path(f"{path.resolve()}-wal")  # SQLite keeps it beside the file, not beside a link to it
    return log.exists() and log.stat().st_size > 0


def _check_owner(path: Path, application_id: int, schema: int, schemas: range) -> None:
    if application_id != APPLICATION_ID:
        raise StoreRefused(
            f"{path} is a SQLite database of another program: it was left as it is; give this node a data directory "
            "of its own"
        )  # fmt: skip
    if schema > schemas[-1]:
        raise StoreRefused(
            f"{path} has schema {schema}, and this program knows up to {schemas[-1]}: it was written by a newer "
            f"one and left as it is; start that one, or put {path.name}.schema-{schemas[-1]} in its place, the "
            "copy from before the upgrade, which lacks what was written since"
        )  # fmt: skip
    if schema < schemas[0]:
        raise StoreRefused(
            f"{path} has schema {schema}: it is the store of an earlier build, with envelopes of format 1, and this "
            f"build reads format {FORMAT[0]}. It was left as it is: read what you need of it with the earlier build, "
            f"then move {path.name} away (or name another --data-dir); this node starts with an empty store, into "
            "which that content has to be written again"
        )  # fmt: skip


def _check_content(path: Path, size: int, schemas: range) -> None:
    """Through SQLite, so that the pages in the log next to the file count as well."""
    with closing(connect(path, "ro")) as reader:
        (application_id,) = reader.execute("PRAGMA application_id").fetchone()
        (schema,) = reader.execute("PRAGMA user_version").fetchone()
        _check_owner(path, application_id, schema, schemas)
        if size <= CHECKED_WHOLE_BYTES_MAX:
            (verdict,) = reader.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise _damaged(path, verdict.removeprefix("*** in database main ***\n"))
        for probe in _PROBES:
            reader.execute(probe).fetchone()


def _damaged(path: Path, reason: str) -> StoreRefused:
    return StoreRefused(
        f"{path} is damaged or no store ({reason}): it was left as it is; restore a copy of it, or move it away and "
        "start with an empty store, which the swarm fills with what it holds"
    )  # fmt: skip


def _number(header: bytes, offset: int) -> int:
    return int.from_bytes(header[offset : offset + 4], "big")
