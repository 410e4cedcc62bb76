"""Rebuild: makes everything in a store's file anew that is derived from the headers and the contents in it.

Headers, contents, the log, hints and acknowledgements are facts and stay. The rows of versions, the keys, the heads,
the edges to missing parents, the reissues and all indexes follow from the headers. A version whose header is damaged,
and was not answered by a holder yet, is given up: its address goes on without it.
"""

import os
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from node.store.errors import StoreRefused
from node.store.sqlite import queries, schema
from node.store.sqlite.check import RowFault, check_page
from node.store.sqlite.connection import connect, prepare_reader
from node.store.sqlite.file_check import check as check_file
from node.store.sqlite.file_lock import FileLock
from node.store.sqlite.prefix_index import PrefixIndexes
from node.store.sqlite.rows import GIVEN_UP, insert, parents_of
from node.store.sqlite.transaction import Transaction
from protocols.envelope import notice_of

PAGE_ROWS = 256


class CheckReport(NamedTuple):
    """What a check of a whole file found."""

    checked: int
    faults: tuple[RowFault, ...]
    structure: str
    """What SQLite says of its pages and indexes; '' when all is well."""
    set_aside: tuple[bytes, ...]
    """Digests of versions whose header or content was found damaged before, and is not there again."""


def check_store(path: Path) -> CheckReport:
    """Check every version in a file, whether a node uses it or not; nothing is written. Raises `StoreRefused`."""
    try:
        check_file(path, oldest_schema=schema.BASE_SCHEMA, newest_schema=schema.newest_schema())
        with closing(connect(path, "ro")) as db:
            prepare_reader(db)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version < schema.newest_schema():
                raise StoreRefused(f"{path} is of an earlier build: start a node once, which brings it up to date")
            prefixes = PrefixIndexes()
            prefixes.load(db)
            faults: list[RowFault] = []
            keys_checked: set[int] = set()
            checked, after = 0, 0
            while True:
                page = check_page(db, prefixes, after, rows_max=PAGE_ROWS, keys_checked=keys_checked)
                checked += page.checked
                faults += page.faults
                if page.until is None:
                    break
                after = page.until
            structure = [text for (text,) in db.execute("PRAGMA integrity_check(10)") if text != "ok"]
            return CheckReport(checked, tuple(faults), "; ".join(structure), tuple(queries.set_aside(db)))
    except FileNotFoundError:
        raise StoreRefused(f"there is no store at {path}") from None
    except (OSError, sqlite3.Error) as error:
        raise StoreRefused(f"{path} cannot be checked: {error}") from error


def rebuild_store(path: Path) -> int:
    """Rebuild a file that no node uses; return the number of its versions. Raises `StoreRefused`."""
    with ExitStack() as stack:
        if not path.exists():
            raise StoreRefused(f"there is no store at {path}")
        lock = FileLock.take(path.with_name(path.name + ".lock"), what=f"the store {path}")
        stack.callback(lock.release)
        opened = schema.open_connections(path, log_id=os.urandom(8).hex())
        stack.callback(schema.close_connections, path, opened.writer, opened.reader)
        try:
            return _rebuild(opened.writer, path)
        except (OSError, sqlite3.Error) as error:
            raise StoreRefused(f"{path} cannot be rebuilt: {error}; it was left as it was") from error


def _rebuild(db: sqlite3.Connection, path: Path) -> int:
    db.execute("REINDEX")
    transaction = Transaction(db, path)
    db.execute("BEGIN IMMEDIATE")
    try:
        _rebuild_prefixes(db)
        transaction.prefixes.load(db)
        sequences = [sequence for (sequence,) in db.execute("SELECT sequence FROM versions")]
        for sequence in sequences:
            transaction.mend_row(sequence, rebuilds_keys=False)
        db.execute("UPDATE versions SET key_id = ? WHERE header IS NULL", (GIVEN_UP,))
        _rebuild_prefixes(db)
        _rebuild_edges(db)
        for table in ("heads", "history_blocks"):
            db.execute(f"DELETE FROM {table}")
        for (key_id,) in db.execute("SELECT DISTINCT key_id FROM versions WHERE header IS NOT NULL").fetchall():
            transaction.rebuild_key(key_id)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return len(sequences)


def _rebuild_prefixes(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM prefixes_until")
    for name, prefix, row_id, table in (
        ("digest_prefixes", "substr(digest, 1, 8)", "sequence", "versions"),
        ("key_prefixes", "substr(key, 7, 11)", "id", "keys"),
        ("content_prefixes", "substr(digest, 1, 8)", "id", "contents"),
    ):
        db.execute(f"DELETE FROM {name}")
        db.execute(f"INSERT INTO {name} SELECT {prefix}, {row_id} FROM {table} ORDER BY 1, 2")
        db.execute(f"INSERT INTO prefixes_until SELECT '{name}', ifnull(max({row_id}), 0) FROM {table}")


def _rebuild_edges(db: sqlite3.Connection) -> None:
    """The edges to parents that are not held, and which versions replace which."""
    db.execute("DELETE FROM orphans")
    db.execute("DELETE FROM reissues")
    held = {digest for (digest,) in db.execute("SELECT digest FROM versions WHERE header IS NOT NULL")}
    for sequence, digest, key_id, version, parents in db.execute(
        "SELECT sequence, digest, key_id, version, parents FROM versions WHERE header IS NOT NULL"
    ).fetchall():
        missing = [parent for parent in parents_of(parents) if parent not in held]
        insert(db, "orphans", [(parent, digest, key_id, version) for parent in missing], verb="INSERT OR IGNORE")
        header, signature = db.execute(
            "SELECT header, signature FROM versions WHERE sequence = ?", (sequence,)
        ).fetchone()
        reissues = notice_of(header, signature).reissues
        insert(db, "reissues", [(old, sequence) for old in reissues], verb="INSERT OR IGNORE")
