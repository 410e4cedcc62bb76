"""Errors of a store: what a disk reports, translated into the errors of this project.

StoreRefused            opening: the file cannot be this node's store
CommitLate              a commit: it was not confirmed by the deadline of its caller
protocols.errors:
  StorageFull           a commit: the disk is full
  Unavailable           a commit or a read: the disk failed otherwise, or the store is closed
"""

import errno
import os
import sqlite3
from pathlib import Path

from protocols.errors import BzzzError, StorageFull, Unavailable

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class CommitLate(Exception):
    """A commit was not confirmed by the deadline of a caller. It may still be made."""


class StoreRefused(Exception):
    """The file cannot be this node's store (damaged, foreign, newer, locked); the message says which and what to do.

    Raised while opening only, and the file is left exactly as it was.
    """


class StoreFilesLost(OSError):
    """Files of the running node were removed, replaced or changed by another program; the message says which."""


def translated(error: OSError | sqlite3.Error, path: Path | None = None) -> BzzzError:
    """`StorageFull` when there is no room, else `Unavailable`; `details['reason']` holds the disk's own message."""
    if isinstance(error, StoreFilesLost):
        return Unavailable(
            f"{error}: nothing of this was acknowledged, and nothing is written any more; end the node, put the right "
            "files in place, and start it again",
            reason=str(error),
        )  # fmt: skip
    where = str(path) if path is not None else "the store"
    if is_full(error, path):
        return StorageFull(
            f"{where}: there is no room on the disk, nothing of this was written, and reads go on; make room, then "
            "try again",
            reason=str(error),
        )  # fmt: skip
    return Unavailable(
        f"{where}: the disk failed ({error}), nothing of this was acknowledged; look after the disk, then try again",
        reason=str(error),
    )


def is_full(error: OSError | sqlite3.Error, path: Path | None) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return True
    # Some paths of SQLite (the shared memory next to the log, a quota) report a full disk as a plain I/O error.
    return code & 0xFF == sqlite3.SQLITE_IOERR and path is not None and not _has_room(path)


def _has_room(path: Path) -> bool:
    try:
        room = os.statvfs(path.parent)
    except OSError:
        return True
    return room.f_bavail * room.f_frsize >= 64 * 1024
