"""A lock file: one process at a time. The lock ends with its process, however that ends; the file itself stays."""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from node.store.errors import StoreRefused


class FileLock:
    """Held from `take` until `release`. Two in one process exclude each other as well."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, path: Path, *, what: str) -> Self:
        """Take the lock in the file at `path`, which is created when missing. The message names `what` is locked.

        Raises `StoreRefused` when another process holds it (the message has its pid), or the file cannot be created.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreRefused(f"{what} cannot be used: {error.strerror} ({path})") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StoreRefused(f"{what} cannot be locked: {error.strerror} ({path})") from error
            raise StoreRefused(
                f"{what} is in use by {f'process {holder}' if holder else 'another process'}: "
                "end that one first, or take another directory"
            ) from error
        with suppress(OSError):  # a full disk: the lock is held, only another process's message lacks the pid
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        return cls(path, descriptor)

    def release(self) -> None:
        """Let another process take the lock. Calling it twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_directory(directory: Path) -> FileLock:
    """Lock a data directory for this process. Raises `StoreRefused`."""
    return FileLock.take(directory / "lock", what=f"the data directory {directory}")
