"""Blocks of long histories: how many versions of a key are before a place in the total order, without counting them.

The versions of a key that has many are divided into blocks, in the total order. A row of `history_blocks` has the
place after which a block begins, how many versions are in it, how many of these were reissued, and how many have
content. So the n-th version is found by the sums of a few rows and one look into a block, wherever versions were
inserted. A block with more than `BLOCK_MAX` versions is divided into equal ones of `BLOCK_ROWS` or some more. Keys with
fewer versions, which is nearly every key, have no blocks.

Which keys are long is noticed from what was added to them lately, counted in memory for `GROWING_MAX` keys at most. A
key may therefore be longer than `BLOCK_MAX` and have no block yet: readers count its versions one by one.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from node.store.sqlite.rows import GIVEN_UP, REISSUED_AS, SIGN

Place = tuple[int, str, bytes]
"""A place among the versions of a key in the total order: that of a version, as (version as stored, author, digest)."""
BEGIN: Final[Place] = (-SIGN, "", b"")
"""Before all of them."""
END: Final[Place] = (SIGN - 1, "\U0010ffff", b"")
"""Behind all of them: no author's id begins so."""

BLOCK_MAX: Final = 1_024
BLOCK_ROWS: Final = 512
GROWTH: Final = 256
"""After so many new versions of a key they are counted."""
GROWING_MAX: Final = 8_192


_BEGIN: Final = (str(BEGIN[0]), "''", "x''")
_IS_REISSUED: Final = f"{REISSUED_AS} IS NOT NULL"
_IS_HELD: Final = "v.content_id IS NOT NULL"


def building(
    condition: str, *, begin: Sequence[str] = _BEGIN, is_reissued: str = _IS_REISSUED, is_held: str = _IS_HELD
) -> str:
    """The statement that divides the versions of a condition into blocks; the first block of a key begins at `begin`.

    A block ends at its greatest version: SQLite takes the bare columns from the row that `max` chose.
    """
    version, author, digest = begin
    return f"""
        INSERT INTO history_blocks (key_id, version, author, digest, versions, reissued, held)
        SELECT key_id, lag(version, 1, {version}) OVER by_key, lag(author, 1, {author}) OVER by_key,
            lag(digest, 1, {digest}) OVER by_key, versions, reissued, held
        FROM (
            SELECT key_id, block, version, author, digest, max(number), count(*) AS versions,
                sum(is_reissued) AS reissued, sum(is_held) AS held
            FROM (
                SELECT *, (number - 1) * (total / {BLOCK_ROWS}) / total AS block
                FROM (
                    SELECT v.key_id, v.version, v.author, v.digest, {is_held} AS is_held,
                        {is_reissued} AS is_reissued,
                        row_number() OVER (PARTITION BY v.key_id ORDER BY v.version, v.author, v.digest) AS number,
                        count(*) OVER (PARTITION BY v.key_id) AS total
                    FROM versions v WHERE {condition}
                )
            )
            GROUP BY key_id, block
        )
        WINDOW by_key AS (PARTITION BY key_id ORDER BY block)
    """


BUILD_ALL: Final = building(
    f"v.key_id <> {GIVEN_UP} AND v.key_id IN "
    f"(SELECT key_id FROM versions GROUP BY key_id HAVING count(*) > {BLOCK_MAX})"
)


class Count(NamedTuple):
    """A number of versions, and how many of these were reissued, and have content."""

    versions: int
    reissued: int
    held: int


class CountChange(NamedTuple):
    """What counts more at a place of a key: a new version, or what is new about one."""

    key_id: int
    place: Place
    more: Count


class _Block(NamedTuple):
    begin: Place
    total: Count


class HistoryBlocks:
    """The blocks of a store, kept in the transactions that add versions. Used in the writer's thread."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.load()

    def load(self) -> None:
        """Read what is kept in memory; again after a transaction was rolled back."""
        self._keys = {key_id for (key_id,) in self._db.execute("SELECT DISTINCT key_id FROM history_blocks")}
        """Those that have blocks."""
        self._growing: dict[int, int] = {}
        """How many versions of other keys were added since they were last counted."""

    def update(self, changes: Iterable[CountChange]) -> None:
        """Count what is new. The rows of the versions are written; the first version of a key need not be counted."""
        by_key: dict[int, list[CountChange]] = {}
        for change in changes:
            key_id = change.key_id
            if key_id in self._keys:
                by_key.setdefault(key_id, []).append(change)
            else:
                self._growing[key_id] = self._growing.get(key_id, 0) + change.more.versions
        for key_id, of_key in by_key.items():
            self._update_key(key_id, sorted(of_key))
        if self._growing:
            self._look_for_long_keys()

    def _update_key(self, key_id: int, changes: Sequence[CountChange]) -> None:
        full: list[_Block] = []
        at = 0
        while at < len(changes):
            block = self._block_of(key_id, changes[at].place)
            if block is None:  # its row was lost
                self.rebuild(key_id)
                return
            until = len(changes)
            if until - at > 1 and (end := self._end_of(key_id, block)) is not None:
                until = bisect_right(changes, end, lo=at, key=lambda change: change.place)
            more = [change.more for change in changes[at:until]]
            block = block._replace(total=Count(*map(sum, zip(block.total, *more, strict=True))))
            self._db.execute(
                "UPDATE history_blocks SET versions = ?, reissued = ?, held = ? "
                "WHERE key_id = ? AND version = ? AND author = ? AND digest = ?",
                (*block.total, key_id, *block.begin),
            )
            if block.total.versions > BLOCK_MAX:
                full.append(block)
            at = until
        for block in full:  # all changes are counted: the versions that are counted anew have them, too
            self._divide(key_id, block)

    def _block_of(self, key_id: int, place: Place) -> _Block | None:
        row = self._db.execute(
            "SELECT version, author, digest, versions, reissued, held FROM history_blocks "
            "WHERE key_id = ? AND (version, author, digest) < (?, ?, ?) "
            "ORDER BY version DESC, author DESC, digest DESC LIMIT 1",
            (key_id, *place),
        ).fetchone()
        return _Block(row[:3], Count(*row[3:])) if row is not None else None

    def _end_of(self, key_id: int, block: _Block) -> Place | None:
        place: Place | None = self._db.execute(
            "SELECT version, author, digest FROM history_blocks WHERE key_id = ? "
            "AND (version, author, digest) > (?, ?, ?) ORDER BY version, author, digest LIMIT 1",
            (key_id, *block.begin),
        ).fetchone()
        return place

    def _divide(self, key_id: int, block: _Block) -> None:
        end = self._end_of(key_id, block)
        self._db.execute(
            "DELETE FROM history_blocks WHERE key_id = ? AND version = ? AND author = ? AND digest = ?",
            (key_id, *block.begin),
        )
        condition = (
            "v.key_id = :key_id AND (v.version, v.author, v.digest) > (:version, :author, :digest) "
            "AND (v.version, v.author, v.digest) <= (:end_version, :end_author, :end_digest)"
        )
        versions, reissued, held = block.total
        self._db.execute(
            building(
                condition, begin=(":version", ":author", ":digest"),
                is_reissued=_IS_REISSUED if reissued else "0",  # where all are alike the index alone is read
                is_held=_IS_HELD if 0 < held < versions else str(int(held > 0)),
            ),
            dict(zip(("version", "author", "digest"), block.begin, strict=True))
            | dict(zip(("end_version", "end_author", "end_digest"), end or END, strict=True))
            | {"key_id": key_id},
        )  # fmt: skip

    def _look_for_long_keys(self) -> None:
        grown = [key_id for key_id, count in self._growing.items() if count >= GROWTH]
        if not grown and len(self._growing) > GROWING_MAX:
            self._growing.clear()
        for key_id in grown:
            del self._growing[key_id]
            self.rebuild(key_id)

    def rebuild(self, key_id: int) -> None:
        """Count the versions of a key, and make its blocks anew when they are many."""
        self._db.execute("DELETE FROM history_blocks WHERE key_id = ?", (key_id,))
        self._keys.discard(key_id)
        (count,) = self._db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM versions WHERE key_id = ? LIMIT ?)", (key_id, BLOCK_MAX + 1)
        ).fetchone()
        if count > BLOCK_MAX:
            self._db.execute(building("v.key_id = :key_id"), {"key_id": key_id})
            self._keys.add(key_id)


def has_right_blocks(db: sqlite3.Connection, key_id: int) -> bool:
    """Whether the blocks of a key, if it has some, are those of its versions. It reads all of them."""
    blocks = db.execute(
        "SELECT version, author, digest, versions, reissued, held FROM history_blocks WHERE key_id = ? "
        "ORDER BY version, author, digest",
        (key_id,),
    ).fetchall()
    if not blocks:
        return True
    counted = [[0, 0, 0] for _ in blocks]
    at = -1
    for *place, is_reissued, is_held in db.execute(
        f"SELECT v.version, v.author, v.digest, {_IS_REISSUED}, {_IS_HELD} FROM versions v "
        "WHERE v.key_id = ? ORDER BY v.version, v.author, v.digest",
        (key_id,),
    ):
        while at + 1 < len(blocks) and blocks[at + 1][:3] < tuple(place):
            at += 1
        if at < 0:
            return False
        counted[at] = [each + more for each, more in zip(counted[at], (1, is_reissued, is_held), strict=True)]
    return counted == [list(block[3:]) for block in blocks]
