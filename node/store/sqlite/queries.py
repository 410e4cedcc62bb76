"""Queries of the tables: plain functions over a connection that only reads, called in the reader's thread."""

import json
import logging
import sqlite3
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

from node.store.hint_index import HintIndex
from node.store.log import Change
from node.store.members import Member
from node.store.sqlite.heads_cache import Heads
from node.store.sqlite.prefix_index import CONTENT_IS, DIGEST_IS, KEY_IS, PrefixIndexes
from node.store.sqlite.rows import (
    ITEM_COLUMNS,
    ITEM_TABLES,
    NOTICE_COLUMNS,
    ORIGINS,
    REISSUED_AS,
    SIGN,
    LostHeads,
    item_of,
    placeholders,
)
from node.store.versions import HeldContent
from protocols.envelope import Envelope, Notice, decode, order_key
from protocols.errors import InvalidPayload
from protocols.log_lineage import LogPosition

_LOG: Final = logging.getLogger(__name__)

HEADS_BYTES: Final = 2 * 1024 * 1024
"""Content of the heads of one key in memory, beside that of the latest. A peer may make a thousand heads of 1 MiB."""
HEADS_AT_ONCE: Final = 100
"""Heads that one query reads at most. An address may have thousands, and the reader answers other calls between."""
HEAD_ROWS_AT_ONCE: Final = 1_000
_CHANGE: Final = "v.digest, k.key, k.address, v.version, v.author, v.deleted"


class HeadRow(NamedTuple):
    """A head, without its header and its content. It compares as the total order does."""

    version: int
    author: str
    digest: bytes
    sequence: int
    size_bytes: int
    """Of its content; 0 when that is not here."""


def heads(db: sqlite3.Connection, prefixes: PrefixIndexes, key: bytes) -> Heads | None:
    """The heads of a key, the latest first; None when these are more than one query is to read."""
    rows = head_rows(db, prefixes, key, 0, HEADS_AT_ONCE + 1)
    if not rows:
        _raise_if_lost(db, prefixes, key)
    if len(rows) > HEADS_AT_ONCE:
        return None
    return tuple(head_items(db, *by_content_read(sorted(rows, reverse=True))))


def head_rows(db: sqlite3.Connection, prefixes: PrefixIndexes, key: bytes, after: int, limit: int) -> list[HeadRow]:
    """The heads of a key whose first entry is after this one, in the order of their entries."""
    rows = db.execute(
        "SELECT v.version, v.author, v.digest, h.sequence, ifnull(length(c.content), 0) FROM keys k "
        "JOIN heads h ON h.key_id = k.id JOIN versions v ON v.sequence = h.sequence "
        "LEFT JOIN contents c ON c.id = v.content_id "
        f"WHERE {KEY_IS} AND h.sequence > :after ORDER BY h.sequence LIMIT :limit",
        prefixes.key_parameters(key) | {"after": after, "limit": limit},
    )
    return [HeadRow(*row) for row in rows]


def by_content_read(rows: Sequence[HeadRow]) -> tuple[list[int], list[int]]:
    """The sequences of heads that are read with their content, and of those that are read without; the latest first, as
    the rows are.

    Of many large ones only the first have their content, `HEADS_BYTES` of it: the others are notices, though their
    content may be held."""
    sizes = accumulate(row.size_bytes for row in rows)
    count = sum(1 for number, size in enumerate(sizes) if not number or size <= HEADS_BYTES)
    sequences = [row.sequence for row in rows]
    return sequences[:count], sequences[count:]


def head_items(db: sqlite3.Connection, with_content: Sequence[int], without: Sequence[int]) -> list[Envelope | Notice]:
    """Versions by sequence, the latest first: with their content, and without."""
    items = [
        item_of(row)
        for sequences, columns in ((with_content, ITEM_COLUMNS), (without, NOTICE_COLUMNS))
        for places, values in placeholders(sequences)
        for row in db.execute(f"SELECT {columns} FROM {ITEM_TABLES} WHERE v.sequence IN {places}", values)
    ]
    return sorted(items, key=order_key, reverse=True)


def _raise_if_lost(db: sqlite3.Connection, prefixes: PrefixIndexes, key: bytes) -> None:
    """Without heads a key has no versions either, or the rows of its heads were lost."""
    row = db.execute(
        f"SELECT k.id FROM keys k WHERE {KEY_IS} AND EXISTS (SELECT 1 FROM versions v WHERE v.key_id = k.id) "
        "AND NOT EXISTS (SELECT 1 FROM heads h WHERE h.key_id = k.id)",
        prefixes.key_parameters(key),
    ).fetchone()
    if row is not None:
        raise LostHeads(row[0])


def by_digest(db: sqlite3.Connection, prefixes: PrefixIndexes, digest: bytes, until: int) -> Envelope | Notice | None:
    """A version whose first entry is `until` or earlier: later entries are committed, but not published yet."""
    row = db.execute(
        f"SELECT {ITEM_COLUMNS} FROM {ITEM_TABLES} WHERE {DIGEST_IS} AND v.sequence <= :until AND v.header IS NOT NULL",
        prefixes.digest_parameters(digest) | {"until": until},
    ).fetchone()
    return item_of(row) if row is not None else None


def by_content(db: sqlite3.Connection, prefixes: PrefixIndexes, digest: bytes, until: int) -> Envelope | None:
    """The version with which a content came, in an entry that is `until` or earlier."""
    row = db.execute(
        f"SELECT {ITEM_COLUMNS} FROM contents c JOIN versions v ON v.sequence = c.sequence "
        f"JOIN keys k ON k.id = v.key_id WHERE {CONTENT_IS} AND c.id <= :until AND c.content IS NOT NULL",
        prefixes.content_parameters(digest) | {"until": until},
    ).fetchone()
    item = item_of(row) if row is not None else None
    return item if isinstance(item, Envelope) else None


def has_content(db: sqlite3.Connection, prefixes: PrefixIndexes, digest: bytes, until: int) -> bool:
    """Whether a content came in an entry that is `until` or earlier, and is here."""
    row = db.execute(
        f"SELECT 1 FROM contents c WHERE {CONTENT_IS} AND c.id <= :until AND c.content IS NOT NULL",
        prefixes.content_parameters(digest) | {"until": until},
    ).fetchone()
    return row is not None


def contents(db: sqlite3.Connection, before: int, limit: int) -> list[HeldContent]:
    """The contents that came before an entry of the log, the latest first."""
    rows = db.execute(
        "SELECT c.id, c.digest, k.key, v.is_local FROM contents c JOIN versions v ON v.sequence = c.sequence "
        "JOIN keys k ON k.id = v.key_id WHERE c.id < ? AND c.content IS NOT NULL ORDER BY c.id DESC LIMIT ?",
        (before, limit),
    )
    return [HeldContent(sequence, digest, key, bool(is_local)) for sequence, digest, key, is_local in rows]


def latest_reissue(db: sqlite3.Connection, prefixes: PrefixIndexes, digest: bytes) -> bytes:
    while True:
        row = db.execute(
            f"SELECT {REISSUED_AS} FROM versions v WHERE {DIGEST_IS}", prefixes.digest_parameters(digest)
        ).fetchone()
        if row is None or row[0] is None:
            return digest
        digest = row[0]


def count_completions(db: sqlite3.Connection) -> int:
    """The number of log entries that are not the first one of a version."""
    return int(db.execute("SELECT count(*) FROM completions").fetchone()[0])


def idempotent(db: sqlite3.Connection, name: str) -> bytes | None:
    digest: bytes | None = _one(db, "SELECT digest FROM idempotency WHERE name = ?", name)
    return digest


def log(db: sqlite3.Connection, after: int, until: int) -> list[Change]:
    """The entries after `after`, up to and including `until`."""
    return _changes(
        db,
        f"SELECT v.sequence, {_CHANGE}, v.origin, v.at_ms FROM versions v JOIN keys k ON k.id = v.key_id "
        "WHERE v.sequence > :after AND v.sequence <= :until UNION ALL "
        f"SELECT l.sequence, {_CHANGE}, l.origin, l.at_ms FROM completions l JOIN versions v ON v.sequence = l.of "
        "JOIN keys k ON k.id = v.key_id WHERE l.sequence > :after AND l.sequence <= :until ORDER BY 1",
        {"after": after, "until": until},
    )  # fmt: skip


def local_writes(db: sqlite3.Connection, after: int, until: int, limit: int) -> list[Change]:
    return _changes(
        db,
        f"SELECT v.sequence, {_CHANGE}, v.origin, v.at_ms FROM versions v JOIN keys k ON k.id = v.key_id "
        "WHERE v.is_local = 1 AND v.reissued_as IS NULL AND v.sequence > :after AND v.sequence <= :until "
        "ORDER BY v.sequence LIMIT :limit",
        {"after": after, "until": until, "limit": limit},
    )


def writes(db: sqlite3.Connection, sequences: Sequence[int]) -> list[Change]:
    """The first entries of these versions, ascending."""
    found: list[Change] = []
    for places, values in placeholders(sequences):
        found += _changes(
            db,
            f"SELECT v.sequence, {_CHANGE}, v.origin, v.at_ms FROM versions v JOIN keys k ON k.id = v.key_id "
            f"WHERE v.sequence IN {places} ORDER BY v.sequence",
            values,
        )
    return found


def _changes(db: sqlite3.Connection, query: str, values: dict[str, int] | Sequence[object]) -> list[Change]:
    return [
        Change(sequence, digest, key, address, version + SIGN, author, bool(deleted), ORIGINS[origin], at_ms)
        for sequence, digest, key, address, version, author, deleted, origin, at_ms in db.execute(query, values)
    ]


class LocalWrite(NamedTuple):
    """A local write and its acknowledgements, as the tables have them."""

    sequence: int
    digest: bytes
    at_ms: int
    acknowledged: tuple[str, ...]


def local_write(
    db: sqlite3.Connection, prefixes: PrefixIndexes, digest: bytes | None, sequence: int | None
) -> LocalWrite | None:
    """A local write, by digest or sequence; for a reissued one, the write that replaces it."""
    condition = DIGEST_IS if digest is not None else "v.sequence = :sequence"
    while True:
        row = db.execute(
            f"SELECT v.sequence, v.digest, v.at_ms, v.is_local, v.reissued_as FROM versions v WHERE {condition}",
            prefixes.digest_parameters(digest) if digest is not None else {"sequence": sequence},
        ).fetchone()
        if row is None or not row[3]:
            return None
        if row[4] is None:
            break
        condition, digest = DIGEST_IS, row[4]
    peers = db.execute(
        "SELECT h.peer FROM acknowledged a JOIN holders h ON h.id = a.holder WHERE a.sequence = ? ORDER BY h.peer",
        (row[0],),
    )
    found, found_digest, at_ms = row[:3]
    return LocalWrite(found, found_digest, at_ms, tuple(peer for (peer,) in peers))


class HintRow(NamedTuple):
    """A hint, as the tables have it."""

    digest: bytes
    key: bytes
    address: str
    attempts: int
    next_try_ms: int
    refusal: str
    at_ms: int


def hints(db: sqlite3.Connection, holder: str, sequences: Sequence[int]) -> dict[int, HintRow]:
    found: dict[int, HintRow] = {}
    number = _one(db, "SELECT id FROM holders WHERE peer = ?", holder)
    for places, values in placeholders(sequences):
        for sequence, *row in db.execute(
            "SELECT h.sequence, v.digest, k.key, k.address, h.attempts, h.next_try_ms, h.refusal, v.at_ms "
            "FROM hints h JOIN versions v ON v.sequence = h.sequence JOIN keys k ON k.id = v.key_id "
            f"WHERE h.holder = ? AND h.sequence IN {places}",
            (number, *values),
        ):
            found[sequence] = HintRow(*row)
    return found


def at_ms(db: sqlite3.Connection, sequence: int) -> int:
    """When a version was merged; 0 when no version's first entry has this sequence."""
    return int(_one(db, "SELECT at_ms FROM versions WHERE sequence = ?", sequence) or 0)


def set_aside(db: sqlite3.Connection) -> dict[bytes, bytes]:
    """Keys by digest of the versions whose header or content is damaged."""
    return dict(
        db.execute(
            "SELECT v.digest, k.key FROM damaged d JOIN versions v ON v.sequence = d.sequence "
            "JOIN keys k ON k.id = v.key_id"
        )
    )


def staged_under(db: sqlite3.Connection, idempotency_key: str) -> Envelope | None:
    row = db.execute(
        "SELECT digest, encoded FROM staged WHERE idempotency_key = ? ORDER BY rowid DESC LIMIT 1", (idempotency_key,)
    ).fetchone()
    if row is None:
        return None
    envelope = decode(row[1])
    if envelope.digest != row[0]:
        raise InvalidPayload("its content is damaged")
    return envelope


# -- read once, at the opening --------------------------------------------------------------------------------------


def members(db: sqlite3.Connection) -> dict[str, Member]:
    """The remembered members. One that cannot be read is left out, with a line in the log: it says hello again."""
    found = {}
    for peer, name, addresses, first_seen_ms, last_seen_ms, labels in db.execute("SELECT * FROM members"):
        try:
            found[peer] = Member(
                peer=peer, name=name, addresses=_texts(addresses), first_seen_ms=first_seen_ms,
                last_seen_ms=last_seen_ms, labels=dict(json.loads(labels)),
            )  # fmt: skip
        except (ValueError, TypeError, RecursionError) as error:
            _LOG.warning("the stored member %s cannot be read, and is left out: %s", peer, error)
    return found


def _texts(encoded: str) -> tuple[str, ...]:
    texts = json.loads(encoded)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("its addresses are no list of texts")
    return tuple(texts)


def cursors(db: sqlite3.Connection) -> dict[str, int]:
    return dict(db.execute("SELECT name, sequence FROM cursors"))


def member_logs(db: sqlite3.Connection) -> dict[str, LogPosition]:
    return {peer: LogPosition(*position) for peer, *position in db.execute("SELECT * FROM member_logs")}


def hint_index(db: sqlite3.Connection) -> HintIndex:
    """All hints. A million of them take about a second."""
    index = HintIndex()
    for holder, sequence, next_try_ms, is_refused in db.execute(
        "SELECT o.peer, h.sequence, h.next_try_ms, h.is_refused FROM holders o JOIN hints h ON h.holder = o.id"
    ):
        index.add(holder, sequence, next_try_ms=next_try_ms, is_refused=bool(is_refused))
    return index


def _one(db: sqlite3.Connection, query: str, value: object) -> Any:
    row = db.execute(query, (value,)).fetchone()
    return row[0] if row is not None else None
