"""The schema of the store's file: its tables, and how a file is created, upgraded and opened.

The tables are laid out for the way they grow. Rows are appended to `versions`: the row id is the sequence of the
version's first entry in the log. Keys and holders are numbers, so the indexes over them grow at their end as well. Only
the three indexes over digests and keys have entries at random places: `prefix_index.py` writes these.
"""

import logging
import os
import sqlite3
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from node.store.errors import StoreRefused
from node.store.marks import UNPROVED_MARK, of_loss
from node.store.sqlite import clean_end, meta, write_ahead, write_ahead_chain
from node.store.sqlite.connection import connect, prepare_reader, prepare_writer
from node.store.sqlite.file_check import APPLICATION_ID, check
from node.store.sqlite.history_blocks import BUILD_ALL
from node.store.sqlite.owner import Owner

log = logging.getLogger(__name__)

BASE_SCHEMA: Final = 6
"""The schema of a new file before any migration. Files with an earlier one hold envelopes of format 1."""
BASE: Final = """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE keys (id INTEGER PRIMARY KEY, key BLOB NOT NULL, address TEXT NOT NULL) STRICT;

    -- All but the signature, and what this node adds, is derived from the header.
    CREATE TABLE versions (
        sequence INTEGER PRIMARY KEY,   -- of its first entry in the log
        digest BLOB NOT NULL,           -- unique: the merge makes sure of it
        key_id INTEGER NOT NULL,
        version INTEGER NOT NULL,       -- minus 2^63: SQLite's integers are signed
        author TEXT NOT NULL,
        deleted INTEGER NOT NULL,
        origin INTEGER NOT NULL,        -- of its first entry: 0 local, 1 peer, 2 sync
        is_local INTEGER NOT NULL,      -- written here, even if a peer sent it first
        at_ms INTEGER NOT NULL,
        reissued_as BLOB,
        content_id INTEGER,             -- NULL: its content never came
        parents BLOB NOT NULL,          -- their digests, joined
        header BLOB,                    -- NULL: it was found damaged
        signature BLOB
    ) STRICT;
    CREATE INDEX versions_of_key ON versions (key_id, version, author, digest);  -- the total order
    CREATE INDEX versions_in_time ON versions (version) WHERE reissued_as IS NULL;
    CREATE INDEX versions_of_ours ON versions (sequence) WHERE is_local = 1 AND reissued_as IS NULL;

    -- Each content once, however many versions have it.
    CREATE TABLE contents (
        id INTEGER PRIMARY KEY,         -- the entry in the log with which it came
        digest BLOB NOT NULL,
        sequence INTEGER NOT NULL,      -- the version with which it came
        content BLOB                    -- NULL: it was found damaged
    ) STRICT;

    -- Further entries of the log: the content of a known version came.
    CREATE TABLE completions (
        sequence INTEGER PRIMARY KEY, of INTEGER NOT NULL, origin INTEGER NOT NULL, at_ms INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE heads (
        key_id INTEGER NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY (key_id, sequence)
    ) STRICT, WITHOUT ROWID;

    -- Edges to parents that are not known (yet).
    CREATE TABLE orphans (
        parent BLOB NOT NULL, child BLOB NOT NULL, key_id INTEGER NOT NULL, version INTEGER NOT NULL,
        PRIMARY KEY (parent, child)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX orphans_of_key ON orphans (key_id, parent);

    -- Which versions claim to replace which.
    CREATE TABLE reissues (
        reissued BLOB NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY (reissued, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX reissues_by_sequence ON reissues (sequence);

    -- The indexes over digest and key prefixes, see prefix_index.py, and the row up to which each of them is complete.
    CREATE TABLE digest_prefixes (
        prefix BLOB NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (prefix, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE key_prefixes (
        prefix BLOB NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (prefix, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE content_prefixes (
        prefix BLOB NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (prefix, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE prefixes_until (name TEXT PRIMARY KEY, id INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO prefixes_until VALUES ('digest_prefixes', 0), ('key_prefixes', 0), ('content_prefixes', 0);

    -- Headers with their signature, and contents, that are not those of their digest any more, as they were found.
    CREATE TABLE damaged (
        sequence INTEGER PRIMARY KEY, content_id INTEGER, bytes BLOB NOT NULL
    ) STRICT;

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

    CREATE TABLE staged (
        digest BLOB NOT NULL UNIQUE, encoded BLOB NOT NULL, at_ms INTEGER NOT NULL, idempotency_key TEXT
    ) STRICT;
    CREATE INDEX staged_by_name ON staged (idempotency_key) WHERE idempotency_key IS NOT NULL;

    CREATE TABLE members (
        peer TEXT PRIMARY KEY, name TEXT NOT NULL, addresses TEXT NOT NULL, first_seen_ms INTEGER NOT NULL,
        last_seen_ms INTEGER NOT NULL, labels TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- The last entry of each member's log that this node knows of.
    CREATE TABLE member_logs (
        peer TEXT PRIMARY KEY, log_id TEXT NOT NULL, sequence INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE providers (
        key BLOB NOT NULL, peer TEXT NOT NULL, expires_ms INTEGER NOT NULL, PRIMARY KEY (key, peer)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX providers_in_time ON providers (expires_ms);
"""
HISTORY_BLOCKS: Final = f"""
    -- The blocks of long histories, see history_blocks.py: the place after which each begins, and what is in it.
    CREATE TABLE history_blocks (
        key_id INTEGER NOT NULL, version INTEGER NOT NULL, author TEXT NOT NULL, digest BLOB NOT NULL,
        versions INTEGER NOT NULL, reissued INTEGER NOT NULL, held INTEGER NOT NULL,
        PRIMARY KEY (key_id, version, author, digest)
    ) STRICT, WITHOUT ROWID;
    {BUILD_ALL};
"""
NO_PROVIDERS: Final = "DROP TABLE IF EXISTS providers"
MIGRATIONS: Final = (HISTORY_BLOCKS, NO_PROVIDERS)
"""The steps from the base on: each makes the next schema of the one before."""


def newest_schema() -> int:
    return BASE_SCHEMA + len(MIGRATIONS)


class Opened(NamedTuple):
    """The connections to an open file."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    lost: str = ""
    """What was found missing in it, in words."""
    taken_over: str = ""
    """That it was another node's, in words."""


def open_connections(path: Path, *, log_id: str, owner: Owner | None = None) -> Opened:
    """Return a connection to write and one to read. A missing file is created. Its log has this id from now on.

    With an `owner`, it belongs to that node from now on. The caller holds the lock on the file, and closes them with
    `close_connections`. Raises `StoreRefused`.
    """
    with ExitStack() as unfinished:
        try:
            if is_created := not path.exists():
                _create(path, log_id, owner)
            taken_over = owner.taken_over(path) if owner is not None else ""
            write_ahead_chain.check(path)
            is_proved = is_created or clean_end.is_followed(path)
            check(path, oldest_schema=BASE_SCHEMA, newest_schema=newest_schema())
            _restrict_permissions(path)
            had_frames = write_ahead.has_frames(path)
            writer = connect(path, "rw")
            unfinished.callback(writer.close)
            lost = write_ahead.lost_with(path, writer, had_frames=had_frames)
            if not lost:
                unfinished.callback(write_ahead.end, writer)
            writer.execute("PRAGMA journal_mode = WAL")
            _copy_before_upgrade(writer, path)
            migrate(writer)
            prepare_writer(writer)
            said_before = write_ahead.lost_before(writer)
            rows = _rows(owner, lost, is_proved=is_proved)
            write_ahead.begin(writer, rows, is_required=bool(lost or taken_over), log_id=log_id)
            if lost := lost or said_before:
                log.error("%s", lost)
            if taken_over:
                log.warning("%s", taken_over)
            reader = unfinished.enter_context(closing(connect(path, "ro")))
            prepare_reader(reader)
        except (OSError, sqlite3.Error) as error:
            raise StoreRefused(f"{path} cannot be opened as the store: {error}") from error
        unfinished.pop_all()
    return Opened(writer, reader, lost, taken_over)


def _rows(owner: Owner | None, lost: str, *, is_proved: bool) -> dict[str, str]:
    """The rows of `meta` that say whose store it is, what it lost, and whether it may lack more."""
    rows = {meta.OWNER: owner.peer_id} if owner is not None else {}
    written = (of_loss(lost) if lost else {}) | ({} if is_proved else {UNPROVED_MARK: "1"})
    return rows | meta.as_marks(written)


def close_connections(path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
    """Leaves one file and its note when the checkpoint succeeds; else the log next to it is as safe."""
    reader.close()
    write_ahead.end(writer)
    writer.close()
    clean_end.write_note(path)


def leave_connections(_: Path, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
    """Close without a checkpoint, which would write into files of another node, or delete their log.

    While the reader is open, closing the writer leaves the files as they are; a reader can change none.
    """
    with suppress(sqlite3.Error):
        reader.execute("SELECT * FROM meta").fetchone()  # so that it holds SQLite's shared lock on the file
    writer.close()
    reader.close()


def copy_of(path: Path, version: int) -> Path:
    """The name of the copy of a file that had this schema, from before its upgrade."""
    return path.with_name(f"{path.name}.schema-{version}")


def _copy_before_upgrade(writer: sqlite3.Connection, path: Path) -> None:
    """Copy a file whose schema will be upgraded: an earlier build, which refuses the upgraded one, can go on there."""
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    if version >= newest_schema():
        return
    copy = copy_of(path, version)
    new = copy.with_name(f"{copy.name}.new")
    try:
        new.unlink(missing_ok=True)
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(connect(new, "rw")) as target:
            writer.backup(target)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.rename(copy)
        _sync_directory(copy.parent)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise StoreRefused(
            f"{path} has schema {version}, and it cannot be copied before its upgrade to {newest_schema()} ({error}): "
            "it was left as it is; make room next to it"
        ) from error
    log.warning(
        "%s is upgraded from schema %d to %d; the copy from before is %s: delete it when you need no earlier build",
        path, version, newest_schema(), copy,
    )  # fmt: skip


def migrate(writer: sqlite3.Connection) -> None:
    """Upgrade the schema, each step in a transaction of its own; an empty file gets the base first."""
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    if not version:
        _apply(writer, BASE, BASE_SCHEMA)
        version = BASE_SCHEMA
    for number, script in enumerate(MIGRATIONS[version - BASE_SCHEMA :], start=version + 1):
        _apply(writer, script, number)


def _apply(writer: sqlite3.Connection, script: str, schema: int) -> None:
    try:
        writer.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {schema}; COMMIT")
    except sqlite3.Error:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise


def _create(path: Path, log_id: str, owner: Owner | None) -> None:
    """Create the file under another name first: so a file of this name is complete, even after a power failure.

    That the owner lost the one before is written into it: a start that follows a crash says it again.
    """
    _set_aside_log(path, log_id)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(connect(new, "rw")) as writer:
        writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(writer)
        lost = owner.lost_with(path) if owner is not None else ""
        rows = _rows(owner, lost, is_proved=True) | write_ahead_chain.row_of_run(log_id)
        meta.write(writer, {meta.LOG_ID: log_id, **rows})
    new.rename(path)
    _sync_directory(path.parent)


def _set_aside_log(path: Path, log_id: str) -> None:
    """Rename the write-ahead file of a store that is gone: SQLite would write its pages into the new one."""
    left = Path(f"{path}-wal")
    with suppress(FileNotFoundError):
        aside = left.with_name(f"{left.name}.{log_id}")
        left.rename(aside)
        log.warning("%s was left of a store that is not there any more; it is %s now", left, aside)
    Path(f"{path}-shm").unlink(missing_ok=True)  # it says only how to read that one


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _restrict_permissions(path: Path) -> None:
    """Only the owner may read. SQLite gives new files next to the file the same mode."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        with suppress(FileNotFoundError):
            path.with_name(name).chmod(0o600)
