"""Checks of the rows of versions: does each content have its digest, and does what is derived from it agree?

Content is what its digest says, or it is damaged. All else in a row of an envelope is derived from its bytes, as are
the heads of a key and the prefix indexes; so that can be mended from the bytes.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from node.store.sqlite.prefix_index import DIGEST_IS, PrefixIndexes
from node.store.sqlite.rows import SIGN, parents_of
from protocols.envelope import Envelope, decode, verify
from protocols.errors import BzzzError
from protocols.heads import HeadSet

PAGE_ROWS: Final = 64
PAGE_BYTES: Final = 1 << 20
PAGE_HEADS_VERSIONS_MAX: Final = 1000
"""A page is checked in one go in the reader's thread: it must be short."""
HEADS_VERSIONS_MAX: Final = 500
"""The heads of a key with more versions, or with more than are left for its page, are checked by `bzzz store check`
alone."""

_ROW: Final = (
    "SELECT v.sequence, v.digest, v.key_id, v.version, v.author, v.deleted, v.parents, v.content_type, v.size_bytes, "
    "v.encoded, k.key, k.address, v.reissued_as FROM versions v LEFT JOIN keys k ON k.id = v.key_id "
)


class RowFault(NamedTuple):
    """One fault. `is_content` says that the bytes of the envelope themselves are damaged."""

    sequence: int
    digest: bytes
    address: str
    is_content: bool
    text: str


class Page(NamedTuple):
    """The result of a check of some versions. `until` is None when there was none left."""

    until: int | None
    faults: tuple[RowFault, ...]
    checked: int


def genuine(encoded: bytes, digest: bytes) -> Envelope | None:
    """The envelope in these bytes, when they are those that the digest or the author's signature vouches for."""
    try:
        envelope = decode(encoded)
        if envelope.digest != digest:
            verify(envelope)  # then it is the digest in the row that is damaged
    except BzzzError:
        return None
    return envelope


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
        keys.setdefault(row[2], (row[0], row[1], row[11] or "an address that is lost"))
    budget = PAGE_HEADS_VERSIONS_MAX
    for key_id, (sequence, digest, address) in keys.items():
        if keys_checked is None:
            count = _count_versions(db, key_id)
            if count > min(HEADS_VERSIONS_MAX, budget):
                continue
            budget -= count
        elif key_id in keys_checked:
            continue
        else:
            keys_checked.add(key_id)
        if not _has_right_heads(db, key_id):
            faults.append(RowFault(sequence, digest, address, False, "its heads are not those of its versions"))
    return Page(until, tuple(faults), checked)


def _extent(db: sqlite3.Connection, after: int, rows_max: int) -> tuple[int | None, int]:
    """The last sequence of the next page, and the number of its rows."""
    until, checked, size_bytes = None, 0, 0
    for sequence, length in db.execute(
        "SELECT sequence, ifnull(length(encoded), 0) FROM versions WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (after, rows_max),
    ).fetchall():
        until, checked, size_bytes = sequence, checked + 1, size_bytes + length
        if size_bytes >= PAGE_BYTES:
            break
    return until, checked


def _faults_of(db: sqlite3.Connection, prefixes: PrefixIndexes, row: tuple[Any, ...]) -> Iterator[RowFault]:
    sequence, digest, _, version, author, deleted, parents, content_type, size_bytes, encoded, key, address, _ = row
    shown = address or "an address that is lost"
    if encoded is not None:
        envelope = genuine(encoded, digest)
        if envelope is None:
            yield RowFault(sequence, digest, shown, True, "its content is damaged")
            return
        derived = (
            envelope.digest, envelope.version - SIGN, envelope.author, int(envelope.deleted),
            b"".join(envelope.parents), envelope.content_type, len(envelope.content), envelope.key,
        )  # fmt: skip
        if derived != (digest, version, author, deleted, parents, content_type, size_bytes, key):
            yield RowFault(sequence, envelope.digest, envelope.address, False, "its row is not that of its content")
            return
    elif key is None:
        yield RowFault(sequence, digest, shown, False, "its address is lost")
        return
    if (sequence,) not in db.execute(
        f"SELECT v.sequence FROM versions v WHERE {DIGEST_IS}", prefixes.digest_parameters(digest)
    ).fetchall():
        yield RowFault(sequence, digest, shown, False, "the index of digests lacks it")


def _count_versions(db: sqlite3.Connection, key_id: int) -> int:
    """How many versions a key has, as far as that is worth counting."""
    counted = "SELECT count(*) FROM (SELECT 1 FROM versions WHERE key_id = ? LIMIT ?)"
    return int(db.execute(counted, (key_id, HEADS_VERSIONS_MAX + 1)).fetchone()[0])


def _has_right_heads(db: sqlite3.Connection, key_id: int) -> bool:
    db.execute("BEGIN")  # one snapshot for all three statements
    try:
        return _heads_agree(db, key_id)
    finally:
        db.execute("COMMIT")


def _heads_agree(db: sqlite3.Connection, key_id: int) -> bool:
    head_set = HeadSet()
    sequences: dict[bytes, int] = {}
    rows = db.execute(
        "SELECT digest, sequence, version, parents, author, reissued_as IS NULL FROM versions WHERE key_id = ?",
        (key_id,),
    )
    for digest, sequence, version, parents, author, is_current in rows:
        if is_current:
            sequences[digest] = sequence
            head_set.add(digest, version + SIGN, parents_of(parents), author=author)
    for old, author in db.execute(
        "SELECT s.old, v.author FROM versions v JOIN stand_ins s ON s.sequence = v.sequence WHERE v.key_id = ?",
        (key_id,),
    ):
        head_set.add_reissues((old,), author)
    stored = {sequence for (sequence,) in db.execute("SELECT sequence FROM heads WHERE key_id = ?", (key_id,))}
    return stored == {sequences[digest] for digest in head_set.heads()}
