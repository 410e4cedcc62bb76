"""File guard: notices that files of a running node were removed, replaced or changed by another program.

An open file that is removed can still be written: the node would acknowledge writes that no later start finds. A
backup that is copied over an open file would be mixed with the pages of the node. So the files are compared with
what the node left: before each transaction, after its commit, and `LOOK_SECONDS` apart while nothing is written.

The guard is used on the trio thread. It reads attributes of files that are open, which the kernel has in memory.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from node.store.errors import StoreFilesLost
from node.store.file_stamp import difference, stamp

LOOK_SECONDS: Final = 0.5


class FileGuard:
    """Guards the store's files, and `fixed` ones, which nothing changes while the node runs.

    It begins when the store is open, and only `commit_begins` and `commit_ended` move what is expected.
    """

    def __init__(self, path: Path, *, fixed: Iterable[Path] = ()) -> None:
        real = os.path.realpath(path)  # SQLite keeps the other files beside the file itself, not beside a link to it
        self._written = (str(path), f"{real}-wal")
        self._shared_memory = f"{real}-shm"  # SQLite writes it at any time
        self._fixed = tuple(map(str, fixed))
        self._expected = {name: stamp(name) for name in (*self._written, self._shared_memory, *self._fixed)}
        self._is_committing = False
        self._final = ""
        self.is_content_changed = False
        """What is read from the files may be wrong."""

    def look(self) -> str:
        """What is wrong with the files, in words; '' when they are those that the node left."""
        if self._final:
            return self._final
        for name, expected in self._expected.items():
            if expected is None:
                continue
            is_written = name in self._written
            found = stamp(name)
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
        """Raise `StoreFilesLost` when a file is not the one that the node left: then nothing may be written."""
        if lost := self.look():
            raise StoreFilesLost(lost)
        self._is_committing = True

    def commit_ended(self, *, is_committed: bool) -> None:
        """Take the files as they are now. Raise `StoreFilesLost` when the commit went into files that are gone."""
        lost = self.look()
        self._is_committing = False
        if lost:
            if is_committed:
                self._end(lost)  # memory does not know what was committed: the files cannot be used again
                raise StoreFilesLost(lost)
            return
        for name in (*self._written, self._shared_memory):
            self._expected[name] = stamp(name)

    def _end(self, lost: str) -> str:
        self._final = lost
        return lost
