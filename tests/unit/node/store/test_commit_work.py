"""Commit work: where the time of a commit went, in threads that really wait."""

import os
import threading
import time
from collections.abc import Callable
from hashlib import sha256

import pytest

from node.store.commit_work import CommitWork, ready_seconds

DATA = bytes(1_000_000)


def _in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_sync_that_blocks_is_the_disks() -> None:
    work = CommitWork()

    def commit() -> None:
        work.begin()
        work.begin_sync()
        time.sleep(0.2)
        work.end_sync()
        work.end()

    _in_thread(commit)
    spent = work.spent()
    assert spent.disk > (spent.ready + spent.process) / 2.0
    assert work.sync_seconds >= 0.2


def test_what_blocks_before_the_sync_is_the_processes() -> None:
    work = CommitWork()

    def commit() -> None:
        work.begin()
        time.sleep(0.2)
        work.begin_sync()
        work.end_sync()
        work.end()

    _in_thread(commit)
    spent = work.spent()
    assert spent.disk < spent.process


def test_a_thread_that_has_not_begun_waits_for_a_processor() -> None:
    work = CommitWork()
    time.sleep(0.05)
    spent = work.spent()
    assert spent.ready >= 0.05
    assert spent.disk == spent.process == 0.0


@pytest.mark.skipif(not ready_seconds(threading.get_native_id()), reason="the system does not count waits of threads")
def test_a_thread_that_waits_for_a_processor_is_not_slowed_by_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads on one processor that turn without the interpreter's lock: each waits for most of the time."""
    work = CommitWork()
    processor = min(os.sched_getaffinity(0))

    has_ended = threading.Event()

    def turn() -> None:
        sha256(DATA).digest()  # which releases the interpreter's lock

    def other() -> None:
        os.sched_setaffinity(0, {processor})
        while not has_ended.is_set():
            turn()

    def commit() -> None:
        os.sched_setaffinity(0, {processor})
        try:
            work.begin()
            work.begin_sync()
            until = time.perf_counter() + 0.8
            while time.perf_counter() < until:
                turn()
            work.end_sync()
            work.end()
        finally:
            has_ended.set()

    threads = [threading.Thread(target=other) for _ in range(3)] + [threading.Thread(target=commit)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = work.spent()
    assert spent.ready > 0.3
    assert spent.ready > spent.disk
