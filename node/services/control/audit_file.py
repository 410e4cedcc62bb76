"""Audit file: where the audit log is kept, as lines that are appended, durable on return, and never changed.

`AuditFile` is a file in the data directory; `MemoryAuditStorage` is its twin for a node in memory. The caller holds the
lock of `node/services/control/audit.py`: one line at a time.
"""

import os
import stat
from pathlib import Path
from typing import Protocol

import trio

from node.store.errors import is_full
from node.store.file_stamp import FileStamp, difference, stamp
from protocols.audit_log import LINE_BYTES_MAX
from protocols.errors import StorageFull, Unavailable

FILE_NAME = "audit.log"


class AuditFileRefused(Exception):
    """The audit log cannot be used; the message says why and what to do. Nothing was changed."""


class AuditStorage(Protocol):
    """Lines without their line breaks, in the order they were appended."""

    @property
    def count(self) -> int: ...

    @property
    def last(self) -> bytes | None:
        """The last line, or None when there is none."""
        ...

    def look(self) -> str:
        """Why it cannot be written any more, because another program removed or changed it; else ''."""
        ...

    async def append(self, line: bytes) -> None:
        """The line is durable on return. Raises `StorageFull` or `Unavailable`, and then nothing was appended."""
        ...

    async def lines(self, *, after: int = 0, limit: int) -> list[bytes]:
        """Up to `limit` lines after the first `after` ones. Raises `Unavailable`."""
        ...


class MemoryAuditStorage:
    """Lines in memory."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    @property
    def count(self) -> int:
        return len(self._lines)

    def look(self) -> str:
        return ""

    @property
    def last(self) -> bytes | None:
        return self._lines[-1] if self._lines else None

    async def append(self, line: bytes) -> None:
        self._lines.append(line)

    async def lines(self, *, after: int = 0, limit: int) -> list[bytes]:
        return self._lines[after : after + limit]


class AuditFile:
    """A file that only its owner may read. An unfinished line at its end, after a crash, was acknowledged to no caller:
    it is cut off."""

    def __init__(self, path: Path) -> None:
        """Open the file, or create it. Raises `AuditFileRefused`. The caller holds the lock of the data directory."""
        self._path = path
        self.count = 0
        self.last: bytes | None = None
        self.fault = ""
        try:
            self._file = _open(path)
            self._count_lines()
            self._left = _stamp_of(self._file)
        except OSError as error:
            raise AuditFileRefused(
                f"the audit log {path} cannot be used: {error.strerror or error}; every change of a flag is written "
                "there first, so the node does not start without it"
            ) from error

    def close(self) -> None:
        os.close(self._file)

    def _count_lines(self) -> None:
        """Count the lines and find the last one; cut off an unfinished one."""
        with self._path.open("rb") as file:
            end = 0
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, end)
                    os.fsync(self._file)
                    break
                end += len(line)
                self.count += 1
                self.last = line[:-1]

    async def append(self, line: bytes) -> None:
        assert b"\n" not in line, line
        if len(line) > LINE_BYTES_MAX:
            raise Unavailable(f"an entry of {len(line)} bytes is too long for the audit log")
        try:
            await trio.to_thread.run_sync(self._append, line + b"\n")
        except OSError as error:
            kind = StorageFull if is_full(error, self._path) else Unavailable
            why = self.fault or f"the audit log cannot be written ({error.strerror or error})"
            raise kind(f"{why}; without the audit log nothing is changed") from error
        self.count += 1
        self.last = line

    def _append(self, data: bytes) -> None:
        if self.look():
            raise OSError(self.fault)
        try:
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError(28, "No space left on device")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._left.size_bytes)
            raise
        finally:
            self._left = _stamp_of(self._file)

    def look(self) -> str:
        """Compare the file with what this node left: removed, replaced or changed, it is not written any more."""
        lost = difference(str(self._path), self._left, stamp(str(self._path)))
        self.fault = lost and (f"{lost}: no flag can be changed until it is back, or the node is started again")
        return self.fault

    async def lines(self, *, after: int = 0, limit: int) -> list[bytes]:
        try:
            return await trio.to_thread.run_sync(read_lines, self._path, after, limit)
        except OSError as error:
            raise Unavailable(f"the audit log cannot be read: {error.strerror or error}") from error


def read_lines(path: Path, after: int, limit: int) -> list[bytes]:
    """Lines of a log without their line breaks, an unfinished last one too. Raises `OSError`."""
    found: list[bytes] = []
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number >= after + limit:
                break
            if number >= after:
                found.append(line.removesuffix(b"\n"))
    return found


def _stamp_of(file: int) -> FileStamp:
    found = os.fstat(file)
    return FileStamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(22, "it is not a file")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return file
