"""Checks of the rows of versions: are header and content the ones that were signed, does what is derived agree?

A header is what its author signed, or it is damaged; content is what the digest in the header says. All else in the row
of a version is derived from the header, as are the heads of a key and the prefix indexes; so that can be mended.
"""

import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final, NamedTuple

from node.store.sqlite.history_blocks import has_right_blocks
from node.store.sqlite.prefix_index import CONTENT_IS, DIGEST_IS, PrefixIndexes
from node.store.sqlite.rows import GIVEN_UP, SIGN, parents_of
from protocols.envelope import Notice, notice_of, verify
from protocols.errors import BzzzError
from protocols.header import DIGEST_BYTES
from protocols.heads import HeadSet

PAGE_ROWS: Final = 64
PAGE_BYTES: Final = 1 << 20
PAGE_PARENTS: Final = 2_048
PAGE_HEADS_MAX: Final = 1000
"""A page is checked in one go in the reader's thread: it must be short."""
HEADS_MAX: Final = 500
"""The heads of a key with more versions and parents, or with more than are left for its page, are checked by
`bzzz store check` alone."""
LOST_ADDRESS: Final = "an address that is lost"

_ROW: Final = (
    "SELECT v.sequence, v.key_id, k.address, v.digest, v.version, v.author, v.deleted, v.parents, k.key, "
    "v.header, v.signature, v.content_id, c.digest, c.content "
    "FROM versions v LEFT JOIN keys k ON k.id = v.key_id LEFT JOIN contents c ON c.id = v.content_id "
)


class RowFault(NamedTuple):
    """One fault. `is_signed_part` says that what was signed is damaged: header, signature or content; a `key_id`, that
    the row is right, and what is derived from all versions of the key is not."""

    sequence: int
    digest: bytes
    address: str
    is_signed_part: bool
    text: str
    key_id: int | None = None


class Page(NamedTuple):
    """The result of a check of some versions. `until` is None when there was none left."""

    until: int | None
    faults: tuple[RowFault, ...]
    checked: int


def genuine(header: bytes, signature: bytes) -> Notice | None:
    """The notice in these bytes, when they are those that its author signed."""
    try:
        notice = notice_of(header, signature)
        verify(notice)
    except BzzzError:
        return None
    return notice


def check_page(
    db: sqlite3.Connection,
    prefixes: PrefixIndexes,
    after: int,
    *,
    rows_max: int = PAGE_ROWS,
    keys_checked: set[int] | None = None,
) -> Page:
    """Check the next versions after this sequence, in a few milliseconds.

    With `keys_checked` it takes as long as it takes: the heads of each key that is not in it are checked, however many
    versions it has, and the key is added.
    """
    faults: list[RowFault] = []
    keys: dict[int, tuple[int, bytes, str]] = {}
    until, checked = _extent(db, after, rows_max)
    rows = db.execute(f"{_ROW} WHERE v.sequence > ? AND v.sequence <= ?", (after, until or 0)).fetchall()
    for row in rows:  # no statement is open here: the index must be as new as what memory knows of it
        faults += _faults_of(db, prefixes, row)
        if row[1] != GIVEN_UP:
            keys.setdefault(row[1], (row[0], row[3], row[2] or LOST_ADDRESS))
    budget = PAGE_HEADS_MAX
    for key_id, (sequence, digest, address) in keys.items():
        if keys_checked is None:
            count = _cost_of_heads(db, key_id)
            if count > min(HEADS_MAX, budget):
                continue
            budget -= count
        elif key_id in keys_checked:
            continue
        else:
            keys_checked.add(key_id)
        faults += [RowFault(sequence, digest, address, False, text, key_id) for text in _faults_of_key(db, key_id)]
    return Page(until, tuple(faults), checked)


def _extent(db: sqlite3.Connection, after: int, rows_max: int) -> tuple[int | None, int]:
    """The last sequence of the next page, and the number of its rows."""
    until, checked, size_bytes, parents = None, 0, 0, 0
    for sequence, length, parents_bytes in db.execute(
        "SELECT v.sequence, ifnull(length(c.content), 0), length(v.parents) FROM versions v "
        "LEFT JOIN contents c ON c.id = v.content_id WHERE v.sequence > ? ORDER BY v.sequence LIMIT ?",
        (after, rows_max),
    ).fetchall():
        until, checked = sequence, checked + 1
        size_bytes, parents = size_bytes + length, parents + parents_bytes // DIGEST_BYTES
        if size_bytes >= PAGE_BYTES or parents >= PAGE_PARENTS:
            break
    return until, checked


def _faults_of(db: sqlite3.Connection, prefixes: PrefixIndexes, row: tuple[Any, ...]) -> Iterator[RowFault]:
    sequence, _, address, digest, *derived = row[:9]
    header, signature, content_id, content_digest, content = row[9:]
    if header is None:
        return
    notice = genuine(header, signature)
    if notice is None:
        yield RowFault(sequence, digest, address or LOST_ADDRESS, True, "its header is damaged")
        return
    right = [notice.version - SIGN, notice.author, int(notice.deleted), b"".join(notice.parents), notice.key]
    if (notice.digest, right) != (digest, derived):
        yield RowFault(sequence, notice.digest, notice.address, False, "its row is not that of its header")
    elif content_id is not None and content_digest != notice.content_digest:
        yield RowFault(sequence, digest, address, False, "its row names another content")
    elif content is not None and sha256(content).digest() != content_digest:
        yield RowFault(sequence, digest, address, True, "its content is damaged")
    elif (sequence,) not in db.execute(
        f"SELECT v.sequence FROM versions v WHERE {DIGEST_IS}", prefixes.digest_parameters(digest)
    ).fetchall():
        yield RowFault(sequence, digest, address, False, "the index of digests lacks it")
    elif (
        content_id is not None
        and (content_id,)
        not in db.execute(
            f"SELECT c.id FROM contents c WHERE {CONTENT_IS}", prefixes.content_parameters(content_digest)
        ).fetchall()
    ):
        yield RowFault(sequence, digest, address, False, "the index of contents lacks its content")


def _cost_of_heads(db: sqlite3.Connection, key_id: int) -> int:
    """How many versions a key has and how many parents these have, as far as that is worth counting."""
    versions, parents_bytes = db.execute(
        "SELECT count(*), ifnull(sum(size), 0) FROM ("
        "SELECT length(parents) AS size FROM versions WHERE key_id = ? LIMIT ?)",
        (key_id, HEADS_MAX + 1),
    ).fetchone()
    return int(versions + parents_bytes // DIGEST_BYTES)


def _faults_of_key(db: sqlite3.Connection, key_id: int) -> Iterator[str]:
    db.execute("BEGIN")  # one snapshot for all statements
    try:
        if not _heads_agree(db, key_id):
            yield "its heads are not those of its versions"
        if not has_right_blocks(db, key_id):
            yield "the blocks of its history are not those of its versions"
    finally:
        db.execute("COMMIT")


def _heads_agree(db: sqlite3.Connection, key_id: int) -> bool:
    head_set = HeadSet()
    sequences: dict[bytes, int] = {}
    rows = db.execute(
        "SELECT digest, sequence, version, parents, author, reissued_as IS NOT NULL FROM versions WHERE key_id = ?",
        (key_id,),
    )
    for digest, sequence, version, parents, author, is_reissued in rows:
        sequences[digest] = sequence
        head_set.add(digest, version + SIGN, parents_of(parents), author=author)
        if is_reissued:
            head_set.add_reissues((digest,), author)
    for old, author in db.execute(
        "SELECT s.reissued, v.author FROM versions v JOIN reissues s ON s.sequence = v.sequence WHERE v.key_id = ?",
        (key_id,),
    ):
        head_set.add_reissues((old,), author)
    stored = {sequence for (sequence,) in db.execute("SELECT sequence FROM heads WHERE key_id = ?", (key_id,))}
    return stored == {sequences[digest] for digest in head_set.heads()}
