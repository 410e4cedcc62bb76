"""Between rows and values: how a version is stored in the tables, and statements over many rows.

Every call into SQLite releases Python's lock and has to get it back from a busy trio thread. So a batch is a few
statements over many rows, never one statement a row.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

from node.store.log import Origin
from protocols.envelope import Envelope, Notice, envelope_of, notice_of
from protocols.errors import BzzzError, Unavailable
from protocols.header import DIGEST_BYTES

ORIGINS: Final = (Origin.LOCAL, Origin.PEER, Origin.SYNC)
ORIGIN_NUMBERS: Final = {origin: number for number, origin in enumerate(ORIGINS)}
SIGN: Final = 1 << 63
"""The tables store a version less this: it is an unsigned 64-bit number, and SQLite's integers are signed."""

GIVEN_UP: Final = 0
"""The key id of versions whose header was lost for good: no query of a key or of the log finds them."""
ROWS_MAX: Final = 256
REST_MAX: Final = 32

REISSUED_AS: Final = (
    "ifnull(v.reissued_as, (SELECT min(r.digest) FROM reissues s "
    "CROSS JOIN versions r ON r.sequence = s.sequence "  # CROSS: in this order, never all versions of the key first
    "WHERE s.reissued = v.digest AND r.key_id = v.key_id AND r.author = v.author))"
)
"""The digest of the version that replaces `v`: the one that this store made, else the one that its author made."""


def parents_of(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined[at : at + DIGEST_BYTES] for at in range(0, len(joined), DIGEST_BYTES))


NOTICE_COLUMNS: Final = "v.header, v.signature, k.key, v.digest, v.version, v.sequence, NULL"
ITEM_COLUMNS: Final = NOTICE_COLUMNS.replace("NULL", "c.content")
ITEM_TABLES: Final = "versions v JOIN keys k ON k.id = v.key_id LEFT JOIN contents c ON c.id = v.content_id"


class DamagedRow(Exception):
    """The row of a version is not that of its header; or header or content are not those of the digest."""

    def __init__(self, sequence: int) -> None:
        super().__init__(sequence)
        self.sequence = sequence


class LostHeads(Exception):
    """A key has versions and no head."""

    def __init__(self, key_id: int) -> None:
        super().__init__(key_id)
        self.key_id = key_id


def item_of(row: Sequence[Any]) -> Envelope | Notice:
    """The version in a row of `ITEM_COLUMNS`: the envelope when its content is held, else the notice.

    Raises `DamagedRow`: bytes are answered only if they have the digest of their row; `Unavailable` when the header was
    set aside.
    """
    header, signature, key, digest, version, sequence, content = row[:7]
    if header is None:
        raise Unavailable(
            f"version {digest.hex()} is damaged in this node's store, and is asked of the holders again; try again "
            "soon. If no holder has it, bzzz store rebuild gives it up"
        )  # fmt: skip
    try:
        item = notice_of(header, signature) if content is None else envelope_of(header, signature, content)
    except BzzzError:
        raise DamagedRow(sequence) from None
    if (item.digest, item.key, item.version - SIGN) != (digest, key, version):
        raise DamagedRow(sequence)
    return item


def notice_in(row: Sequence[Any]) -> Notice:
    """The version in a row of `NOTICE_COLUMNS`. Raises like `item_of`."""
    item = item_of(row)
    assert isinstance(item, Notice), "a row without content"
    return item


def insert(db: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]], *, verb: str = "INSERT") -> None:
    """Insert rows; `into` names table and columns."""
    if len(rows) <= 1:
        if rows:
            db.execute(_insertion(verb, into, len(rows[0]), 1), rows[0])
        return
    start = 0
    for count in _counts(len(rows)):
        chunk = rows[start : start + count]
        db.execute(_insertion(verb, into, len(chunk[0]), count), tuple(chain.from_iterable(chunk)))
        start += count


def placeholders(values: Sequence[Any]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """`(?, ?, …)` and the values to bind, for as many statements as needed; the last value may be repeated."""
    for start in range(0, len(values), ROWS_MAX):
        chunk = tuple(values[start : start + ROWS_MAX])
        places = 1 << (len(chunk) - 1).bit_length()
        yield _places(places), chunk + chunk[-1:] * (places - len(chunk))


def pair_placeholders(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """`(VALUES (?, ?), …)` and the values to bind, like `placeholders`."""
    rows = list(pairs)
    for start in range(0, len(rows), ROWS_MAX):
        chunk = rows[start : start + ROWS_MAX]
        places = 1 << (len(chunk) - 1).bit_length()
        yield _pair_places(places), tuple(chain.from_iterable(chunk + chunk[-1:] * (places - len(chunk))))


def _counts(total: int) -> Iterator[int]:
    """The number of rows of each statement: powers of two, so that few are prepared, and a small rest as it is."""
    count = ROWS_MAX
    while total:
        while count > total >= REST_MAX:
            count >>= 1
        count = min(count, total)
        yield count
        total -= count


@cache
def selecting(columns: str, table: str, column: str, places: str) -> str:
    """The query of the rows in which a column has one of the values of `placeholders`: the same text each time."""
    return f"SELECT {columns} FROM {table} WHERE {column} IN {places}"


@cache
def _insertion(verb: str, into: str, columns: int, count: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{verb} INTO {into} VALUES {', '.join([row] * count)}"


@cache
def _places(count: int) -> str:
    return f"({', '.join('?' * count)})"


@cache
def _pair_places(count: int) -> str:
    return f"(VALUES {', '.join(['(?, ?)'] * count)})"
