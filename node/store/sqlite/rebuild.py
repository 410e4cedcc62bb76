"""Rebuild: makes everything in a store's file anew that is derived from the envelopes in it.

Envelopes, the log, hints and acknowledgements are facts and stay. The rows of versions, the keys, the heads, the edges
to missing parents, the reissues and all indexes follow from the envelopes.
"""

import os
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from node.store.errors import StoreRefused
from node.store.sqlite import schema
from node.store.sqlite.check import RowFault, check_page
from node.store.sqlite.connection import connect, prepare_reader
from node.store.sqlite.file_check import check as check_file
from node.store.sqlite.file_lock import FileLock
from node.store.sqlite.prefix_index import PrefixIndexes
from node.store.sqlite.rows import insert, parents_of
from node.store.sqlite.transaction import Transaction
from protocols.envelope import decode

PAGE_ROWS = 256


class CheckReport(NamedTuple):
    """What a check of a whole file found."""

    checked: int
    faults: tuple[RowFault, ...]
    structure: str
    """What SQLite says of its pages and indexes; '' when all is well."""
    set_aside: tuple[bytes, ...]
    """Digests of versions whose content was found damaged before, and is not there again."""


def check_store(path: Path) -> CheckReport:
    """Check every version in a file, whether a node uses it or not; nothing is written. Raises `StoreRefused`."""
    try:
        check_file(path, newest_schema=len(schema.MIGRATIONS))
        with closing(connect(path, "ro")) as db:
            prepare_reader(db)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version < len(schema.MIGRATIONS):
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
            aside = db.execute(
                "SELECT v.digest FROM damaged d JOIN versions v ON v.sequence = d.sequence WHERE v.encoded IS NULL"
            )
            return CheckReport(checked, tuple(faults), "; ".join(structure), tuple(digest for (digest,) in aside))
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
        stack.callback(schema.close_connections, opened.writer, opened.reader)
        try:
            return _rebuild(opened.writer)
        except (OSError, sqlite3.Error) as error:
            raise StoreRefused(f"{path} cannot be rebuilt: {error}; it was left as it was") from error


def _rebuild(db: sqlite3.Connection) -> int:
    db.execute("REINDEX")
    transaction = Transaction(db)
    db.execute("BEGIN IMMEDIATE")
    try:
        _rebuild_prefixes(db)
        transaction.prefixes.load(db)
        sequences = [sequence for (sequence,) in db.execute("SELECT sequence FROM versions")]
        for sequence in sequences:
            transaction.mend_row(sequence, rebuilds_heads=False)
        _rebuild_prefixes(db)
        _rebuild_edges(db)
        db.execute("DELETE FROM heads")
        for (key_id,) in db.execute("SELECT DISTINCT key_id FROM versions").fetchall():
            transaction.rebuild_heads(key_id)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return len(sequences)


def _rebuild_prefixes(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM digest_starts")
    db.execute("DELETE FROM key_starts")
    db.execute("DELETE FROM indexed")
    db.execute("INSERT INTO digest_starts SELECT substr(digest, 1, 8), sequence FROM versions ORDER BY 1, 2")
    db.execute("INSERT INTO key_starts SELECT substr(key, 7, 11), id FROM keys ORDER BY 1, 2")
    db.execute("INSERT INTO indexed SELECT 'digest_starts', ifnull(max(sequence), 0) FROM versions")
    db.execute("INSERT INTO indexed SELECT 'key_starts', ifnull(max(id), 0) FROM keys")


def _rebuild_edges(db: sqlite3.Connection) -> None:
    """The edges to parents that are not held, and which versions replace which."""
    db.execute("DELETE FROM orphans")
    db.execute("DELETE FROM stand_ins")
    held = {digest for (digest,) in db.execute("SELECT digest FROM versions")}
    for sequence, digest, key_id, version, parents, is_current in db.execute(
        "SELECT sequence, digest, key_id, version, parents, reissued_as IS NULL FROM versions"
    ).fetchall():
        missing = [parent for parent in parents_of(parents) if parent not in held] if is_current else []
        insert(db, "orphans", [(parent, digest, key_id, version) for parent in missing], verb="INSERT OR IGNORE")
        (encoded,) = db.execute("SELECT encoded FROM versions WHERE sequence = ?", (sequence,)).fetchone()
        reissues = decode(encoded).reissues if encoded is not None else ()
        insert(db, "stand_ins", [(old, sequence) for old in reissues], verb="INSERT OR IGNORE")
