"""The rows that a run of merges has decided on: written together, with one statement a table."""

import sqlite3
from dataclasses import dataclass, field
from typing import Any

from node.store.sqlite.history_blocks import CountChange
from node.store.sqlite.rows import ROWS_MAX, insert, placeholders


@dataclass(slots=True)
class RowBuffer:
    """Rows to insert, by table, and rows to delete."""

    keys: list[tuple[Any, ...]] = field(default_factory=list)
    versions: list[tuple[Any, ...]] = field(default_factory=list)
    count_changes: list[CountChange] = field(default_factory=list)
    """For the blocks of the histories of keys that had versions before."""
    contents: list[tuple[Any, ...]] = field(default_factory=list)
    heads: dict[tuple[int, int], None] = field(default_factory=dict)
    ended_heads: list[tuple[int, int]] = field(default_factory=list)
    orphans: list[tuple[bytes, bytes, int, int]] = field(default_factory=list)
    arrived_parents: list[bytes] = field(default_factory=list)
    """Parents of orphans that have come: their rows in `orphans` go."""
    hints: list[tuple[int, int]] = field(default_factory=list)
    acknowledged: list[tuple[int, int]] = field(default_factory=list)
    reissues: list[tuple[bytes, int]] = field(default_factory=list)
    """(digest of a reissued version, sequence of the version that says so)"""
    idempotency: list[tuple[str, bytes, int]] = field(default_factory=list)
    unstaged: list[bytes] = field(default_factory=list)

    def write(self, db: sqlite3.Connection) -> bool:
        """Write everything; return whether there are new orphans."""
        insert(db, "keys (id, key, address)", self.keys)
        insert(
            db,
            "versions (sequence, digest, key_id, version, author, deleted, origin, is_local, at_ms, content_id, "
            "parents, header, signature)",
            self.versions,
        )
        insert(db, "contents (id, digest, sequence, content)", self.contents)
        for start in range(0, len(self.ended_heads), ROWS_MAX):
            ended = self.ended_heads[start : start + ROWS_MAX]
            ((key_places, key_ids),) = placeholders([key_id for key_id, _ in ended])
            ((places, sequences),) = placeholders([sequence for _, sequence in ended])
            # The plus keeps SQLite from trying every key with every sequence; a sequence has one key anyway.
            db.execute(f"DELETE FROM heads WHERE key_id IN {key_places} AND +sequence IN {places}", key_ids + sequences)
        insert(db, "heads (key_id, sequence)", list(self.heads))
        orphans = self._write_orphans(db) if self.orphans or self.arrived_parents else []
        insert(db, "reissues (reissued, sequence)", self.reissues, verb="INSERT OR IGNORE")
        insert(db, "hints (holder, sequence)", self.hints)
        insert(db, "acknowledged (sequence, holder)", self.acknowledged)
        insert(db, "idempotency (name, digest, at_ms)", self.idempotency, verb="INSERT OR IGNORE")
        for places, values in placeholders(self.unstaged):
            db.execute(f"DELETE FROM staged WHERE digest IN {places}", values)
        return bool(orphans)

    def _write_orphans(self, db: sqlite3.Connection) -> list[tuple[bytes, bytes, int, int]]:
        """Return those that were written: the parents of the others came in the same run."""
        for places, values in placeholders(self.arrived_parents):
            db.execute(f"DELETE FROM orphans WHERE parent IN {places}", values)
        arrived = set(self.arrived_parents)
        orphans = [orphan for orphan in self.orphans if orphan[0] not in arrived]
        insert(db, "orphans (parent, child, key_id, version)", orphans, verb="INSERT OR IGNORE")
        return orphans
