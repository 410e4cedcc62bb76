"""Queries of histories: the versions of a key in the total order, by number, by place and a page at a time.

Each takes a few milliseconds at most. The place of a number is found in the blocks of the key, see `history_blocks.py`;
a key without blocks is short enough to step over its versions.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from node.store.sqlite.history_blocks import BEGIN, END, Place
from node.store.sqlite.prefix_index import KEY_IS, PrefixIndexes, digest_prefix
from node.store.sqlite.rows import ITEM_TABLES, NOTICE_COLUMNS, REISSUED_AS, SIGN, notice_in, placeholders
from node.store.versions import Version, VersionRef

_NUMBER_MAX: Final = 1 << 62
"""More than any key has versions, and what SQLite can count with."""


class WalkedVersion(NamedTuple):
    ref: VersionRef
    is_reissued: bool


def key_id(db: sqlite3.Connection, prefixes: PrefixIndexes, key: bytes) -> int | None:
    row = db.execute(f"SELECT k.id FROM keys k WHERE {KEY_IS}", prefixes.key_parameters(key)).fetchone()
    return int(row[0]) if row is not None else None


def count(db: sqlite3.Connection, key: int, *, with_reissued: bool) -> int:
    """How many versions a key has."""
    versions, reissued = db.execute(
        "SELECT sum(versions), sum(reissued) FROM history_blocks WHERE key_id = ?", (key,)
    ).fetchone()
    if versions is None:
        query = "SELECT count(*) FROM versions v INDEXED BY versions_of_key WHERE v.key_id = ?"
        (versions,) = db.execute(query, (key,)).fetchone()
        (reissued,) = (0,) if with_reissued else db.execute(f"{query} AND {REISSUED_AS} IS NOT NULL", (key,)).fetchone()
    return int(versions if with_reissued else versions - reissued)


def place_of(db: sqlite3.Connection, key: int, number: int, *, with_reissued: bool) -> Place | None:
    """The place of the `number`-th version of a key, counted from 1; None when it has fewer."""
    begin, number, has_reissued = _block_of(db, key, min(number, _NUMBER_MAX), with_reissued=with_reissued)
    condition = f"AND {REISSUED_AS} IS NULL" if has_reissued and not with_reissued else ""
    place: Place | None = db.execute(
        "SELECT v.version, v.author, v.digest FROM versions v INDEXED BY versions_of_key "
        f"WHERE v.key_id = ? AND (v.version, v.author, v.digest) > (?, ?, ?) {condition} "
        "ORDER BY v.version, v.author, v.digest LIMIT 1 OFFSET ?",
        (key, *begin, number - 1),
    ).fetchone()
    return place


def _block_of(db: sqlite3.Connection, key: int, number: int, *, with_reissued: bool) -> tuple[Place, int, bool]:
    """Where the block of the `number`-th version begins, the number of that version in it, and whether versions in it
    may have been reissued. A key without blocks is one block."""
    counted = "versions" if with_reissued else "versions - reissued"
    row = db.execute(
        "SELECT version, author, digest, :number - until + counted, reissued FROM ("
        f"SELECT version, author, digest, reissued, {counted} AS counted, "
        f"sum({counted}) OVER (ORDER BY version, author, digest ROWS UNBOUNDED PRECEDING) AS until "
        "FROM history_blocks WHERE key_id = :key) WHERE until >= :number LIMIT 1",
        {"key": key, "number": number},
    ).fetchone()
    if row is not None:
        return row[:3], row[3], bool(row[4])
    (has_blocks,) = db.execute("SELECT EXISTS (SELECT 1 FROM history_blocks WHERE key_id = ?)", (key,)).fetchone()
    return (END, 1, False) if has_blocks else (BEGIN, number, True)


def latest_held(db: sqlite3.Connection, key: int, until: Place) -> tuple[Place | None, Place]:
    """The latest version up to a place that has content and was not reissued, looked for in one block; and the place
    up to which to look for it next when there is none, `BEGIN` when there is no more."""
    begin = db.execute(
        "SELECT version, author, digest FROM history_blocks WHERE key_id = ? AND held > 0 "
        "AND (version, author, digest) < (?, ?, ?) ORDER BY version DESC, author DESC, digest DESC LIMIT 1",
        (key, *until),
    ).fetchone()
    end = db.execute(
        "SELECT version, author, digest FROM history_blocks WHERE key_id = ? "
        "AND (version, author, digest) > (?, ?, ?) ORDER BY version, author, digest LIMIT 1",
        (key, *(begin or BEGIN)),
    ).fetchone()
    if begin is None and end is not None:  # no block has a version with content
        return None, BEGIN
    found: Place | None = db.execute(
        "SELECT v.version, v.author, v.digest FROM versions v JOIN contents c ON c.id = v.content_id "
        "WHERE v.key_id = ? AND (v.version, v.author, v.digest) > (?, ?, ?) "
        f"AND (v.version, v.author, v.digest) <= (?, ?, ?) AND c.content IS NOT NULL AND {REISSUED_AS} IS NULL "
        "ORDER BY v.version DESC, v.author DESC, v.digest DESC LIMIT 1",
        (key, *(begin or BEGIN), *min(until, end or END)),
    ).fetchone()
    return found, begin or BEGIN


def walk(db: sqlite3.Connection, key: int, beyond: Place | None, is_backwards: bool, limit: int) -> list[WalkedVersion]:
    """The next versions of a key in one direction, those that were reissued too: at most `limit`."""
    direction, than = ("DESC", "<") if is_backwards else ("ASC", ">")
    where = f"AND (v.version, v.author, v.digest) {than} (?, ?, ?)" if beyond is not None else ""
    return [
        WalkedVersion(VersionRef(version + SIGN, author, digest), bool(is_reissued))
        for version, author, digest, is_reissued in db.execute(
            f"SELECT v.version, v.author, v.digest, {REISSUED_AS} IS NOT NULL FROM versions v "
            f"WHERE v.key_id = ? {where} "
            f"ORDER BY v.version {direction}, v.author {direction}, v.digest {direction} LIMIT ?",
            (key, *(beyond or ()), limit),
        )
    ]


def missing_parents(db: sqlite3.Connection, key: int, limit: int) -> list[bytes]:
    """One look into the index for each: a thousand versions may name the same one."""
    rows = db.execute(
        "WITH RECURSIVE missing (parent) AS ("
        "SELECT min(parent) FROM orphans INDEXED BY orphans_of_key WHERE key_id = :key UNION ALL "
        "SELECT (SELECT min(o.parent) FROM orphans o INDEXED BY orphans_of_key "
        "WHERE o.key_id = :key AND o.parent > missing.parent) FROM missing WHERE missing.parent IS NOT NULL "
        "LIMIT :limit) SELECT parent FROM missing WHERE parent IS NOT NULL",
        {"key": key, "limit": limit},
    )
    return [parent for (parent,) in rows]


def versions(db: sqlite3.Connection, key: int, beyond: Place, limit: int) -> list[Version]:
    """The versions of a key beyond a place, in the total order."""
    return [
        Version(notice=notice_in(row), is_held=bool(row[7]), is_head=bool(row[8]), reissued_as=row[9])
        for row in db.execute(
            f"SELECT {NOTICE_COLUMNS}, c.content IS NOT NULL, h.sequence IS NOT NULL, {REISSUED_AS} "
            f"FROM {ITEM_TABLES} LEFT JOIN heads h ON h.key_id = v.key_id AND h.sequence = v.sequence "
            "WHERE v.key_id = ? AND (v.version, v.author, v.digest) > (?, ?, ?) "
            "ORDER BY v.version, v.author, v.digest LIMIT ?",
            (key, *beyond, limit),
        )
    ]


def unknown(db: sqlite3.Connection, prefixes: PrefixIndexes, digests: Sequence[bytes]) -> list[bytes]:
    return _others(db, prefixes, digests, "versions v WHERE v.header IS NOT NULL")


def without_content(db: sqlite3.Connection, prefixes: PrefixIndexes, digests: Sequence[bytes]) -> list[bytes]:
    tables = "versions v JOIN contents c ON c.id = v.content_id"
    return _others(db, prefixes, digests, f"{tables} WHERE v.header IS NOT NULL AND c.content IS NOT NULL")


def _others(db: sqlite3.Connection, prefixes: PrefixIndexes, digests: Sequence[bytes], rows: str) -> list[bytes]:
    """Those of these digests that none of these rows has."""
    candidates = prefixes.digests.find(db, [digest_prefix(digest) for digest in digests])
    found = {
        digest
        for places, values in placeholders(candidates)
        for (digest,) in db.execute(f"SELECT v.digest FROM {rows} AND v.sequence IN {places}", values)
    }
    return [digest for digest in digests if digest not in found]
