"""File guard: notices that files of a running node were removed, replaced or changed by another program.

An open file that is removed can still be written: the node would acknowledge writes that no later start finds. A
backup that is copied over an open file would be mixed with the pages of the node. So the files are compared with
what the node left: the two that it writes before each transaction and after its commit, and all of them `LOOK_SECONDS`
apart while nothing is written.

The guard is used on the trio thread. It reads attributes of files that are open, which the kernel has in memory.
"""

import os
import time
from collections.abc import Iterable
from math import inf
from pathlib import Path
from typing import Final

from node.store.errors import StoreFilesLost
from node.store.file_stamp import difference, stamp

LOOK_SECONDS: Final = 0.5
FIXED_LOOK_SECONDS: Final = 0.05


class FileGuard:
    """Guards the store's files, and those that are added, which nothing changes while the node runs.

    It begins when the store is open, and only `commit_begins` and `commit_ended` move what is expected.
    """

    def __init__(self, path: Path) -> None:
        real = os.path.realpath(path)  # SQLite keeps the other files beside the file itself, not beside a link to it
        self._written = (str(path), f"{real}-wal")
        self._shared_memory = f"{real}-shm"  # SQLite writes it at any time
        self._expected = {name: stamp(name) for name in (*self._written, self._shared_memory)}
        self._looked_at = -inf
        self._is_committing = False
        self._final = ""
        self.is_content_changed = False
        """What is read from the files may be wrong."""

    def add(self, *files: Path) -> None:
        """Guard further files, which are as they should be now and are not changed any more."""
        self._expected |= {str(path): stamp(str(path)) for path in files}

    def look(self) -> str:
        """What is wrong with the files, in words; '' when they are those that the node left."""
        lost = self._look(self._expected)
        self._looked_at = -inf if lost else time.monotonic()  # after a loss each commit looks again
        return lost

    def _look(self, names: Iterable[str]) -> str:
        if self._final:
            return self._final
        for name in names:
            expected = self._expected[name]
            if expected is None:
                continue
            found = stamp(name)
            if found == expected:
                continue
            is_written = name in self._written
            lost = difference(
                name, expected, found,
                is_content_compared=name != self._shared_memory and not (is_written and self._is_committing),
            )  # fmt: skip
            if lost and found is not None and found.identity == expected.identity:
                self.is_content_changed = is_written
                return self._end(lost)
            if lost:
                return lost
        return ""

    def commit_begins(self) -> None:
        """Raise `StoreFilesLost` when a file is not the one that the node left: then nothing may be written.

        The files that no commit writes are compared again after `FIXED_LOOK_SECONDS` only: a look at a file costs some
        microseconds.
        """
        is_due = time.monotonic() - self._looked_at >= FIXED_LOOK_SECONDS
        if lost := self.look() if is_due else self._look(self._written):
            raise StoreFilesLost(lost)
        self._is_committing = True

    def commit_ended(self, *, is_committed: bool) -> None:
        """Take the files as they are now. Raise `StoreFilesLost` when the commit went into files that are gone."""
        found = {name: stamp(name) for name in self._written}
        lost = self._final
        for name, now in found.items():
            expected = self._expected[name]
            if not lost and expected is not None and (now is None or now[:2] != expected[:2]):
                lost = difference(name, expected, now, is_content_compared=False)
        self._is_committing = False
        if not lost:
            self._expected.update(found)
            if self._expected[self._shared_memory] is None:
                self._expected[self._shared_memory] = stamp(self._shared_memory)
        elif is_committed:
            self._end(lost)  # memory does not know what was committed: the files cannot be used again
            raise StoreFilesLost(lost)

    def _end(self, lost: str) -> str:
        self._final = lost
        return lost
