"""Clean end: tells at a start whether the store's file is the one that the last run on this machine closed in order.

When the file is closed, a note beside it keeps what the file system says of it then: its identity, its size, and the
time of its last change (`ctime`), which no program can set; and the id of the machine's boot. A copy that was put in
its place, a restored backup and a file that was opened since all differ from the note. So does every file after a boot:
the disk of a virtual machine may have been set back to a snapshot. Not noticed here is a file system that was set back
as a whole while the machine ran on; the first hello of a member tells that, see `protocols/log_lineage.py`.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from node.store.sqlite.write_ahead import has_frames

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.closed")


def write_note(path: Path) -> None:
    """Call it when the file has been closed. Without a note, or with one that a crash cut off, the next start asks."""
    with suppress(OSError):
        if not has_frames(path):
            with open(note_of(path), "w", encoding="ascii", opener=_for_owner) as note:
                json.dump(_facts(path), note)


def is_followed(path: Path) -> bool:
    """Whether the file is as its note says. Call it before the file is opened; the note is removed."""
    try:
        noted = note_of(path).read_text(encoding="ascii")
        note_of(path).unlink()
        return json.loads(noted) == _facts(path) and not has_frames(path)
    except (OSError, ValueError, RecursionError):
        return False


def _for_owner(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _facts(path: Path) -> list[str | int]:
    found = os.stat(path)
    boot_id = BOOT_ID.read_text(encoding="ascii").strip()
    return [boot_id, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
