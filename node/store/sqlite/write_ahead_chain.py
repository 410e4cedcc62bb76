"""Write-ahead chain: tells whether a write-ahead file belongs to the database file beside it.

SQLite begins a write-ahead file anew once everything in it is in the database file; its header then has another salt.
It does not notice when the database file was replaced meanwhile, as by a backup that was restored beside the
write-ahead file of a node that was killed: pages of both would be mixed. So each write-ahead file has a row of `meta`,
the link: its own salt, and the salts in the links that the database file under it may have. A database file with
another link is not the one that this write-ahead file was begun over.

Only a commit gives a write-ahead file its salt, so the link is written with the second one. When SQLite begins the file
anew with that commit, the link names a salt that is gone; it is corrected with the next one. Where there is no link
with the right salt, nothing is claimed: files of earlier builds have none.
"""

import os
import sqlite3
import weakref
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from node.store.errors import StoreRefused
from node.store.sqlite import meta
from node.store.sqlite.connection import connect

_LINK: Final = "write_ahead_link"
_MAGIC: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_SALT: Final = slice(16, 24)
"""Of the header; the header of each frame has it at 8."""


class _Link(NamedTuple):
    """`under` has the salts in the links that the database file may have while the write-ahead file is this one."""

    under: tuple[str, ...]
    salt: str

    @classmethod
    def read(cls, db: sqlite3.Connection) -> "_Link":
        under, _, salt = (meta.value(db, _LINK) or "").partition(">")
        return cls(tuple(under.split("+")), salt)

    def __str__(self) -> str:
        return f"{'+'.join(self.under)}>{self.salt}"


class WriteAheadChain:
    """Writes the links. Used in the writer's thread, within its transactions."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = _wal_of(path)
        self._file: int | None = None
        self._last = _Link.read(db)
        """The last link that was committed."""
        self._new: _Link | None = None
        """The link in the transaction that is open."""
        try:
            with closing(connect(path, "immutable")) as alone:
                in_file = _Link.read(alone)
        except sqlite3.Error:  # a checkpoint was cut off, so the file alone cannot be read
            in_file, self._path = self._last, ""
        self._written_to = "" if in_file == self._last else self._salt()
        """The salt of the write-ahead file that has the last link; '': the link is in the database file."""
        self._under = in_file.salt
        """The salt in the link that was in the database file when that write-ahead file began."""

    def mark(self) -> None:
        """Write a link where one is due, as a part of the transaction that is open. It takes a microsecond."""
        salt = self._salt()
        if not salt or salt == self._last.salt:
            return
        under = (self._under, self._last.salt) if self._written_to == salt else (self._last.salt,)
        self._new = _Link(tuple(dict.fromkeys(under)), salt)
        meta.write(self._db, {_LINK: str(self._new)})

    def committed(self) -> None:
        if self._new is not None:
            salt = self._salt()
            if salt != self._written_to:
                self._under = self._last.salt
            self._last, self._written_to, self._new = self._new, salt, None

    def rolled_back(self) -> None:
        self._new = None

    def _salt(self) -> str:
        """The salt of the write-ahead file as the last commit left it; '' when there is none."""
        try:
            if self._file is None:  # SQLite keeps this file until it closes the database
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                weakref.finalize(self, os.close, self._file)
            return os.pread(self._file, _SALT.stop - _SALT.start, _SALT.start).hex()
        except OSError:
            return ""


def row_of_run(log_id: str) -> dict[str, str]:
    """The row with which a run begins, and a new file: no file from before the run has it."""
    return {_LINK: str(_Link((), log_id))}


def check(path: Path) -> None:
    """Raise `StoreRefused` when the write-ahead file is not that of the database file. Call it before the file is
    opened to write. Raises `OSError`."""
    if not (salt := salt_of_frames(path)):
        return
    try:
        with closing(connect(path, "immutable")) as alone, closing(connect(path, "ro")) as together:
            here, there = _Link.read(alone), _Link.read(together)
    except sqlite3.Error:
        return  # what is wrong with the files is found when they are checked
    if there.salt == salt and here.salt and here.salt not in (*there.under, there.salt):
        raise StoreRefused(
            f"{path} is not the file that {path.name}-wal beside it belongs to: one of the two was replaced while the "
            "node did not run, as by a backup that was restored. Both were left as they are. Put back the one that was "
            f"replaced; or move {path.name}-wal and {path.name}-shm away: then the node starts with {path.name} as it "
            "is, and asks the others for what is missing"
        )


def salt_of_frames(path: Path) -> str:
    """The salt of the write-ahead file of this database, if it has commits that SQLite would read; else ''. Raises
    `OSError`."""
    try:
        with open(_wal_of(path), "rb") as file:
            head = file.read(_HEADER_BYTES + _FRAME_HEADER_BYTES)
    except FileNotFoundError:
        return ""
    is_whole = len(head) == _HEADER_BYTES + _FRAME_HEADER_BYTES and head[:4] in _MAGIC
    salt = head[_SALT]
    return salt.hex() if is_whole and salt == head[_HEADER_BYTES + 8 : _HEADER_BYTES + 16] else ""


def _wal_of(path: Path) -> str:
    """SQLite keeps the write-ahead file beside the file itself, not beside a link to it."""
    return f"{os.path.realpath(path)}-wal"
