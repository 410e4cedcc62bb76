"""The table `meta`: whose store it is, which logs it had and where each ended, and the node's marks."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Final

from protocols.log_lineage import LogPosition, with_ended

LOG_ID: Final = "log_id"
OWNER: Final = "owner"
"""The peer id of the node that the store belongs to. Stores of earlier builds lack it."""
_FORMER_LOGS: Final = "former_logs"
_MARK_PREFIX: Final = "mark:"
"""Before the names of marks."""


def log_id(db: sqlite3.Connection) -> str:
    return str(value(db, LOG_ID))


def former_logs(db: sqlite3.Connection) -> tuple[LogPosition, ...]:
    """Oldest first."""
    logs = json.loads(value(db, _FORMER_LOGS) or "[]")
    return tuple(LogPosition(str(log_id), int(sequence)) for log_id, sequence in logs)


def last_sequence(db: sqlite3.Connection) -> int:
    """The sequence of the last entry; 0 when there is none."""
    (last,) = db.execute(
        "SELECT max(ifnull((SELECT max(sequence) FROM versions), 0), "
        "ifnull((SELECT max(sequence) FROM completions), 0))"
    ).fetchone()  # fmt: skip
    return int(last)


def begin_log(writer: sqlite3.Connection, new_log_id: str) -> None:
    """From now on entries are appended to the log of this id; that of before is a former one. In a transaction."""
    if (before := log_id(writer)) == new_log_id:
        return
    former = with_ended(former_logs(writer), LogPosition(before, last_sequence(writer)))
    write(writer, {LOG_ID: new_log_id, _FORMER_LOGS: json.dumps(former)})


def marks(db: sqlite3.Connection) -> dict[str, str]:
    rows = db.execute("SELECT name, value FROM meta")
    return {name.removeprefix(_MARK_PREFIX): text for name, text in rows if name.startswith(_MARK_PREFIX)}


def as_marks(texts: Mapping[str, str]) -> dict[str, str]:
    """The rows of these marks."""
    return {_MARK_PREFIX + name: text for name, text in texts.items()}


def value(db: sqlite3.Connection, name: str) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return row[0] if row is not None else None


def write(writer: sqlite3.Connection, rows: Mapping[str, str]) -> None:
    writer.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(rows.items()))
