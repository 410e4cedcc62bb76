"""Audit file: where the audit log is kept, as lines that are appended, durable on return, and never changed.

`AuditFile` is a file in the data directory; `MemoryAuditStorage` is its twin for a node in memory. The caller holds the
lock of `node/services/control/audit.py`: one line at a time.
"""

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Protocol

import trio

from node.store.errors import is_full
from node.store.file_stamp import FileStamp, difference, stamp
from protocols.audit_log import LINE_BYTES_MAX, ROTATED, AuditEntry, ChainBroken, read
from protocols.errors import StorageFull, Unavailable

FILE_NAME = "audit.log"
_EARLIER = re.compile(r"audit\.([0-9]{1,18})-([0-9]{1,18})\.log")


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
    def is_kept(self) -> bool:
        """Whether the lines outlive the process."""
        ...

    @property
    def gap(self) -> str:
        """Which entries were missing when it was opened, in words; else ''."""
        ...

    @property
    def begins_file(self) -> bool:
        """Whether the next line is the first one of its file."""
        ...

    @property
    def size_bytes(self) -> int:
        """The size of the file that lines are appended to."""
        ...

    async def rotate(self) -> str:
        """Begin a new file, and return the name that the one before has now. Raises like `append`."""
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

    is_kept = False
    gap = ""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._file_begins_at = 0

    @property
    def begins_file(self) -> bool:
        return len(self._lines) == self._file_begins_at

    @property
    def size_bytes(self) -> int:
        return sum(len(line) + 1 for line in self._lines[self._file_begins_at :])

    async def rotate(self) -> str:
        self._file_begins_at = len(self._lines)
        return "memory"

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
    """A file that only its owner may read, and those that it was rotated to before, `audit.1-500.log` for example.

    An unfinished line at the end, after a crash, was acknowledged to no caller: it is cut off.
    """

    is_kept = True

    def __init__(self, path: Path) -> None:
        """Open the file, or create it. Raises `AuditFileRefused`. The caller holds the lock of the data directory."""
        self._path = path
        self.count = 0
        self.last: bytes | None = None
        self.fault = ""
        self.gap = ""
        self._here = 0
        """The number of lines in the file that is written."""
        self._first: int | None = None
        """The sequence of its first entry."""
        self._expected: int | None = None
        """The sequence of the entry that must come next, while the files are read."""
        try:
            self._earlier = [(earlier, self._read(earlier)) for earlier in earlier_files(path)]
            self._file = _open(path)
            self._cut_unfinished_line()
            self._here = self._read(path)
            self._left = _stamp_of(self._file)
        except OSError as error:
            raise AuditFileRefused(
                f"the audit log {path} cannot be used: {error.strerror or error}; every change of a flag is written "
                "there first, so the node does not start without it"
            ) from error

    def close(self) -> None:
        os.close(self._file)

    def _cut_unfinished_line(self) -> None:
        with self._path.open("rb") as file:
            end = 0
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, end)
                    os.fsync(self._file)
                end += len(line)

    def _read(self, path: Path) -> int:
        """Count the lines of a file, find the last one, and note where entries are missing."""
        count = 0
        with path.open("rb") as file:
            for line in file:
                sequence = self._check_place(path, line, is_first=not count)
                if not count:
                    self._first = sequence
                count += 1
                self.last = line.removesuffix(b"\n")
        self.count += count
        return count

    def _check_place(self, path: Path, line: bytes, *, is_first: bool) -> int | None:
        """The sequence of an entry; `gap` says which ones are missing before it. Its signature is not checked."""
        fields = _fields(line)
        sequence = fields.get("sequence")
        if not isinstance(sequence, int):
            return None
        begins_chain = self._expected is None and is_first and fields.get("act") == ROTATED
        expected = sequence if begins_chain else self._expected or 1
        if sequence > expected and not self.gap:
            self.gap = (
                f"entries {expected} to {sequence - 1} of the audit log are missing before those of {path.name}: they "
                "were removed (bzzz audit verify)"
            )
        self._expected = sequence + 1
        return sequence

    @property
    def begins_file(self) -> bool:
        return self._here == 0

    @property
    def size_bytes(self) -> int:
        return self._left.size_bytes

    async def rotate(self) -> str:
        entry = _entry(self.last) if self.last is not None else None
        last = entry.sequence if entry is not None else self.count
        first = self._first or self.count - self._here + 1
        rotated = self._path.with_name(f"audit.{first}-{last}.log")
        try:
            await trio.to_thread.run_sync(self._rotate, rotated)
        except OSError as error:
            kind = StorageFull if is_full(error, self._path) else Unavailable
            raise kind(self.fault or f"the audit log cannot be rotated ({error.strerror or error})") from error
        self._earlier.append((rotated, self._here))
        self._here, self._first = 0, None
        return rotated.name

    def _rotate(self, rotated: Path) -> None:
        if self.look():
            raise OSError(self.fault)
        if rotated.exists():
            raise OSError(errno.EEXIST, f"there is a file {rotated.name}")
        self._path.rename(rotated)
        try:
            fresh = _open(self._path)
        except OSError:
            rotated.rename(self._path)
            raise
        os.close(self._file)
        self._file = fresh
        self._left = _stamp_of(fresh)

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
        if not self._here:
            entry = _entry(line)
            self._first = entry.sequence if entry is not None else None
        self._here += 1
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
        lost = difference(str(self._path), self._left, stamp(str(self._path), follows_link=False))
        self.fault = lost and (f"{lost}: no flag can be changed until it is back, or the node is started again")
        return self.fault

    async def lines(self, *, after: int = 0, limit: int) -> list[bytes]:
        try:
            return await trio.to_thread.run_sync(self._lines, after, limit)
        except OSError as error:
            raise Unavailable(f"the audit log cannot be read: {error.strerror or error}") from error

    def _lines(self, after: int, limit: int) -> list[bytes]:
        found: list[bytes] = []
        for path, count in (*self._earlier, (self._path, self._here)):
            if after < count and len(found) < limit:
                found += read_lines(path, after, limit - len(found))
            after = max(0, after - count)
        return found


def earlier_files(path: Path) -> list[Path]:
    """The files that a log was rotated to, the oldest one first. Raises `OSError`."""
    found = []
    for name in os.listdir(path.parent):
        if matched := _EARLIER.fullmatch(name):
            found.append((int(matched[1]), path.with_name(name)))
    return [earlier for _, earlier in sorted(found)]


def _fields(line: bytes) -> dict[str, object]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _entry(line: bytes | None) -> AuditEntry | None:
    try:
        return read(line or b"")
    except ChainBroken:
        return None


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
    try:
        file = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(
                errno.ELOOP, "it is a symbolic link, and the node must be sure which file it writes; put the file there"
            ) from error
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(22, "it is not a file")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return file
