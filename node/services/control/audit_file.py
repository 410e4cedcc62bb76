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

    @property
    def fault(self) -> str:
        """Why another program seems to have written in it, or ''."""
        ...

    async def append(self, line: bytes) -> None:
        """The line is durable on return. Raises `StorageFull` or `Unavailable`, and then nothing was appended."""
        ...

    async def lines(self, *, after: int = 0, limit: int) -> list[bytes]:
        """Up to `limit` lines after the first `after` ones. Raises `Unavailable`."""
        ...


class MemoryAuditStorage:
    """Lines in memory."""

    fault = ""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    @property
    def count(self) -> int:
        return len(self._lines)

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
            self._end = self._count_lines()
        except OSError as error:
            raise AuditFileRefused(
                f"the audit log {path} cannot be used: {error.strerror or error}; every change of a flag is written "
                "there first, so the node does not start without it"
            ) from error

    def close(self) -> None:
        os.close(self._file)

    def _count_lines(self) -> int:
        """Count the lines and find the last one; cut off an unfinished one. Returns where the next line begins."""
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
        return end

    async def append(self, line: bytes) -> None:
        assert b"\n" not in line, line
        if len(line) > LINE_BYTES_MAX:
            raise Unavailable(f"an entry of {len(line)} bytes is too long for the audit log")
        try:
            await trio.to_thread.run_sync(self._append, line + b"\n")
        except OSError as error:
            kind = StorageFull if is_full(error, self._path) else Unavailable
            why = error.strerror or str(error)
            raise kind(f"the audit log cannot be written ({why}), and without it nothing is changed") from error
        self.count += 1
        self.last = line

    def _append(self, data: bytes) -> None:
        self._reopen_if_replaced()
        size = os.fstat(self._file).st_size
        if size != self._end:
            sizes = f"{size} bytes, and this node left it with {self._end}"
            self.fault = f"{self._path} has {sizes}: another program wrote in it"
        try:
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError(28, "No space left on device")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise
        self._end = size + len(data)

    def _reopen_if_replaced(self) -> None:
        """If the file was moved away or replaced, go on in the file that is there now, and record it as a fault."""
        ours = os.fstat(self._file)
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            self.fault = f"{self._path} was taken away or replaced while this node ran"
            fresh = _open(self._path)
            os.close(self._file)
            self._file = fresh
            self._end = os.fstat(fresh).st_size

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
