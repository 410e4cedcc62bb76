"""The lock file: one process at a time."""

import os
from pathlib import Path

import pytest

from node.store.errors import StoreRefused
from node.store.sqlite.file_lock import lock_directory
from node.store.sqlite.store import SqliteStore
from protocols.log_lineage import LogPosition
from tests.unit.node.store.sqlite.files import LOG_ID, refused, start

HOLD = """
import os, sys
from pathlib import Path
from node.store.sqlite.file_lock import lock_directory
from node.store.sqlite.store import SqliteStore
store = SqliteStore.open(Path(sys.argv[1]), random_id="0" * 16)
lock = lock_directory(Path(sys.argv[1]).parent)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_with_the_pid_of_the_first_until_that_is_gone(path: Path) -> None:
    with start(HOLD, str(path)) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "held\n"
            assert f"in use by process {child.pid}" in refused(path)
            with pytest.raises(StoreRefused, match=f"{path.parent} is in use by process {child.pid}"):
                lock_directory(path.parent)
        finally:
            child.kill()
    lock_directory(path.parent).release()
    store = SqliteStore.open(path, random_id=LOG_ID)
    assert store.former_logs == (LogPosition("0" * 16, 0),)
    store.close()


def test_a_lock_excludes_its_own_process_too(tmp_path: Path) -> None:
    lock = lock_directory(tmp_path)
    with pytest.raises(StoreRefused, match=f"process {os.getpid()}"):
        lock_directory(tmp_path)
    lock.release()
    lock.release()
    lock_directory(tmp_path).release()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
