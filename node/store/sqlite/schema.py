"""The file: what is in it, how it is made, brought up to date, and recognised.

Tables are laid out for how they grow. `versions` is appended to, its row id is the sequence of the version's first
entry in the log; keys and holders are numbers, so that the indexes over them grow at their end as well. Only two
indexes have their entries at random places, that of the digests and that of the keys: `prefix_index.py` writes them.

A file that cannot be this program's store is refused before anything is written to it: the header alone tells a
foreign and a newer one, a connection that cannot write tells a damaged one.
"""

import os
import sqlite3
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from node.store.errors import StoreRefused

APPLICATION_ID: Final = 0x627A7A7A
"""'bzzz', at offset 68 of the file: `file` and we know by it whose it is."""
CHECKED_WHOLE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A file up to this size is checked page by page when it is opened (under half a second)."""

_MAGIC: Final = b"SQLite format 3\0"
_HEADER_BYTES: Final = 100

MIGRATIONS: Final[tuple[str, ...]] = (
    # 1: the beginning
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE keys (id INTEGER PRIMARY KEY, key BLOB NOT NULL, address TEXT NOT NULL) STRICT;
    CREATE INDEX keys_by_start ON keys (substr(key, 7, 11));

    CREATE TABLE versions (
        sequence INTEGER PRIMARY KEY,   -- of its first entry in the log
        digest BLOB NOT NULL,           -- there once: the ledger sees to it
        key_id INTEGER NOT NULL,
        version INTEGER NOT NULL,       -- less 2^63, for a whole number of SQLite has a sign
        author TEXT NOT NULL,
        deleted INTEGER NOT NULL,
        origin INTEGER NOT NULL,        -- of its first entry: 0 local, 1 peer, 2 sync
        is_local INTEGER NOT NULL,      -- written here, be it that a peer had it first
        at_ms INTEGER NOT NULL,
        parents BLOB NOT NULL,          -- digests, one after the other
        content_type TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        reissued_as BLOB,
        encoded BLOB                    -- NULL: its content is elsewhere
    ) STRICT;
    CREATE INDEX versions_by_start ON versions (substr(digest, 1, 8));
    CREATE INDEX versions_of_key ON versions (key_id, version);
    CREATE INDEX versions_in_time ON versions (version) WHERE reissued_as IS NULL;
    CREATE INDEX versions_of_ours ON versions (sequence) WHERE is_local = 1 AND reissued_as IS NULL;

    -- Further entries of the log: a version of which more became known.
    CREATE TABLE learned (
        sequence INTEGER PRIMARY KEY, of INTEGER NOT NULL, origin INTEGER NOT NULL, at_ms INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE heads (
        key_id INTEGER NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY (key_id, sequence)
    ) STRICT, WITHOUT ROWID;

    -- Edges to parents that are not held (yet).
    CREATE TABLE orphans (
        parent BLOB NOT NULL, child BLOB NOT NULL, key_id INTEGER NOT NULL, version INTEGER NOT NULL,
        PRIMARY KEY (parent, child)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE holders (id INTEGER PRIMARY KEY, peer TEXT NOT NULL UNIQUE) STRICT;

    CREATE TABLE hints (
        holder INTEGER NOT NULL, sequence INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
        next_try_ms INTEGER NOT NULL DEFAULT 0, refusal TEXT NOT NULL DEFAULT '', is_refused INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (holder, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX hints_refused ON hints (holder, sequence) WHERE is_refused = 1;

    CREATE TABLE acknowledged (
        sequence INTEGER NOT NULL, holder INTEGER NOT NULL, PRIMARY KEY (sequence, holder)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE idempotency (
        name TEXT PRIMARY KEY, digest BLOB NOT NULL, at_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX idempotency_in_time ON idempotency (at_ms);

    CREATE TABLE cursors (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE staged (digest BLOB NOT NULL UNIQUE, encoded BLOB NOT NULL, at_ms INTEGER NOT NULL) STRICT;

    CREATE TABLE members (
        peer TEXT PRIMARY KEY, name TEXT NOT NULL, addresses TEXT NOT NULL, first_seen_ms INTEGER NOT NULL,
        last_seen_ms INTEGER NOT NULL, labels TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE providers (
        key BLOB NOT NULL, peer TEXT NOT NULL, expires_ms INTEGER NOT NULL, PRIMARY KEY (key, peer)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX providers_in_time ON providers (expires_ms);
    """,
    # 2: a write whose end is uncertain is found by its idempotency key; which versions stand in for which
    """
    ALTER TABLE staged ADD COLUMN idempotency_key TEXT;
    CREATE INDEX staged_by_name ON staged (idempotency_key) WHERE idempotency_key IS NOT NULL;

    CREATE TABLE stand_ins (
        old BLOB NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY (old, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX stand_ins_by_sequence ON stand_ins (sequence);
    """,
    # 3: the indexes that are written later than what they are over, see prefix_index.py
    """
    CREATE TABLE digest_starts (
        start BLOB NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (start, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE key_starts (
        start BLOB NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (start, id)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO digest_starts SELECT substr(digest, 1, 8), sequence FROM versions ORDER BY 1, 2;
    INSERT INTO key_starts SELECT substr(key, 7, 11), id FROM keys ORDER BY 1, 2;
    DROP INDEX versions_by_start;
    DROP INDEX keys_by_start;

    -- Up to which row each of them is whole.
    CREATE TABLE indexed (name TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO indexed SELECT 'digest_starts', ifnull(max(sequence), 0) FROM versions;
    INSERT INTO indexed SELECT 'key_starts', ifnull(max(id), 0) FROM keys;
    """,
)  # fmt: skip


def opened(path: Path, *, log_id: str) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """A connection to write and one to read; the file is made, with this log id, when there is none.

    The caller holds the lock on it. Raises `StoreRefused`.
    """
    with ExitStack() as unfinished:
        try:
            if not path.exists():
                _make(path, log_id)
            check(path)
            _close_to_others(path)
            writer = unfinished.enter_context(closing(_connected(path, "rw")))
            writer.execute("PRAGMA journal_mode = WAL")
            migrate(writer, MIGRATIONS)
            _prepare_writer(writer)
            reader = unfinished.enter_context(closing(_connected(path, "ro")))
            reader.execute("PRAGMA cache_size = -8192")
        except (OSError, sqlite3.Error) as error:
            raise StoreRefused(f"{path} cannot be opened as the store: {error}") from error
        unfinished.pop_all()
    return writer, reader


def _close_to_others(path: Path) -> None:
    """SQLite gives the files beside it the mode of the file."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        with suppress(FileNotFoundError):
            path.with_name(name).chmod(0o600)


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    """Every statement is our own transaction unless we begin one; one thread at a time, but not always the same."""
    return sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False,
        cached_statements=512, timeout=2.0,
    )  # fmt: skip


def _prepare_writer(writer: sqlite3.Connection) -> None:
    for pragma in (
        "synchronous = FULL",  # a commit has reached the disk, not its queue
        "fullfsync = ON",  # also where only this says so (macOS)
        "wal_autocheckpoint = 1000",  # with more, moving them into the file holds up a commit for longer
        "journal_size_limit = 67108864",
        "cache_size = -16384",
        "secure_delete = OFF",  # what is deleted here is hints; overwriting them with zeros costs a third of paying
        "temp_store = MEMORY",
    ):
        writer.execute(f"PRAGMA {pragma}")
    # What is acknowledged is not owed: done with one statement for all holders, whoever writes the acknowledgement.
    writer.execute(
        "CREATE TEMP TRIGGER acknowledged_is_paid AFTER INSERT ON main.acknowledged BEGIN "
        "DELETE FROM hints WHERE holder = NEW.holder AND sequence = NEW.sequence; END"
    )


def migrate(writer: sqlite3.Connection, migrations: tuple[str, ...]) -> None:
    """Bring the schema up to date, each step in a transaction of its own."""
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            writer.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT")
        except sqlite3.Error:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise


def _make(path: Path, log_id: str) -> None:
    """Under another name first: a file under this one is whole, whenever the power goes."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    writer = _connected(new, "rw")
    try:
        writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(writer, MIGRATIONS)
        writer.execute("INSERT INTO meta VALUES ('log_id', ?)", (log_id,))
    finally:
        writer.close()
    new.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


# -- recognising ----------------------------------------------------------------------------------------------------


def check(path: Path) -> None:
    """Raise `StoreRefused` unless this is a store that this program can use; nothing is written to it."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    size = path.stat().st_size
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise _damaged(path, "it does not begin as a SQLite database does")
    _check_owner(path, _number(header, 68), _number(header, 60))
    page_bytes = _number(header, 16) >> 16
    if not _has_log(path) and size < _number(header, 28) * (65536 if page_bytes == 1 else page_bytes):
        # With a log it may be short: a full disk can end the moving of pages into it midway, and the log has them all.
        raise _damaged(path, f"it has {size} bytes, and more were written")
    try:
        _check_inside(path, size)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN:
            raise
        raise _damaged(path, str(error)) from error


def _has_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def _check_owner(path: Path, application_id: int, version: int) -> None:
    if application_id != APPLICATION_ID:
        raise StoreRefused(
            f"{path} is a SQLite database of another program: it was left as it is; give this node a data directory "
            "of its own"
        )  # fmt: skip
    if version > len(MIGRATIONS):
        raise StoreRefused(
            f"{path} has schema {version}, and this program knows up to {len(MIGRATIONS)}: it was written by a newer "
            "one and left as it is; start that one, or restore the copy from before the upgrade"
        )  # fmt: skip


def _check_inside(path: Path, size: int) -> None:
    """What the log beside the file holds counts as well, so this goes through SQLite."""
    reader = _connected(path, "ro")
    try:
        _check_owner(
            path, reader.execute("PRAGMA application_id").fetchone()[0],
            reader.execute("PRAGMA user_version").fetchone()[0],
        )  # fmt: skip
        if size <= CHECKED_WHOLE_BYTES_MAX:
            (verdict,) = reader.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise _damaged(path, verdict.removeprefix("*** in database main ***\n"))
        (version,) = reader.execute("PRAGMA user_version").fetchone()
        for since, probe in _PROBES:
            if version >= since:
                reader.execute(probe).fetchone()
    finally:
        reader.close()


_PROBES: Final = (
    (1, "SELECT value FROM meta WHERE name = 'log_id'"),
    (1, "SELECT * FROM versions ORDER BY sequence DESC LIMIT 1"),
    (1, "SELECT * FROM versions ORDER BY sequence LIMIT 1"),
    (1, "SELECT * FROM keys ORDER BY id DESC LIMIT 1"),
    (1, "SELECT * FROM heads ORDER BY key_id DESC LIMIT 1"),
    (1, "SELECT * FROM hints ORDER BY holder DESC, sequence DESC LIMIT 1"),
    (3, "SELECT max(start) FROM digest_starts"),
    (3, "SELECT max(start) FROM key_starts"),
)
"""The ends of the large trees, and since which schema they are there: read in a file too large to be checked whole."""


def _damaged(path: Path, reason: str) -> StoreRefused:
    return StoreRefused(
        f"{path} is damaged or no store ({reason}): it was left as it is; restore a copy of it, or move it away and "
        "start with an empty store, which the swarm fills with what it holds"
    )  # fmt: skip


def _number(header: bytes, offset: int) -> int:
    return int.from_bytes(header[offset : offset + 4], "big")
