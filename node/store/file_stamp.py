"""File stamp: tells whether a file is the one that this process left, by its identity, its size and its time."""

import os
from typing import NamedTuple


class FileStamp(NamedTuple):
    """What the file system says of a file; two stamps differ when the file was replaced or written in between."""

    device: int
    inode: int
    size_bytes: int
    changed_ns: int

    @property
    def identity(self) -> tuple[int, int]:
        return self.device, self.inode


def stamp(path: str, *, follows_link: bool = True) -> FileStamp | None:
    """The stamp of the file at a path; None when there is none or it cannot be seen."""
    try:
        found = os.stat(path, follow_symlinks=follows_link)
    except OSError:
        return None
    return FileStamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def difference(path: str, expected: FileStamp, found: FileStamp | None, *, is_content_compared: bool = True) -> str:
    """What happened to a file, in words; '' when it is the expected one."""
    if found is None:
        return f"{path} was removed while the node runs"
    if found.identity != expected.identity:
        return f"{path} was replaced by another file while the node runs"
    if is_content_compared and found != expected:
        return f"{path} was changed by another program while the node runs"
    return ""
