"""The rows that say which log a store appends to, which logs it had before, and where each ended; and its marks."""

import json
import sqlite3
from typing import Final

from protocols.log_lineage import LogPosition, with_ended

_FORMER_LOGS: Final = "former_logs"
_MARK_PREFIX: Final = "mark:"
"""Before the names of marks in the table `meta`."""


def log_id(db: sqlite3.Connection) -> str:
    return str(_meta(db, "log_id"))


def former_logs(db: sqlite3.Connection) -> tuple[LogPosition, ...]:
    """Oldest first."""
    logs = json.loads(_meta(db, _FORMER_LOGS) or "[]")
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
    writer.execute("UPDATE meta SET value = ? WHERE name = 'log_id'", (new_log_id,))
    writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_FORMER_LOGS, json.dumps(former)))


def marks(db: sqlite3.Connection) -> dict[str, str]:
    rows = db.execute("SELECT name, value FROM meta")
    return {name.removeprefix(_MARK_PREFIX): text for name, text in rows if name.startswith(_MARK_PREFIX)}


def set_mark(db: sqlite3.Connection, name: str, text: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_MARK_PREFIX + name, text))


def _meta(db: sqlite3.Connection, name: str) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return row[0] if row is not None else None
