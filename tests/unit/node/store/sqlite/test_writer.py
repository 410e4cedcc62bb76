"""The writer of the store: who shares a commit, and that what is on the disk is not written again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.store.sqlite import schema
from node.store.sqlite.transaction import Transaction
from node.store.sqlite.writer import FLUSH_SECONDS, Writer
from protocols.errors import Unavailable


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Transaction, Path]]:
    path = tmp_path / "store.sqlite3"
    connections = schema.open_connections(path, log_id="0" * 16)
    yield Transaction(connections[0]), path
    for connection in connections:
        connection.close()


async def test_those_who_go_on_together_share_a_commit_though_an_acknowledgement_comes_among_them(
    opened: tuple[Transaction, Path],
) -> None:
    writer = Writer(*opened)

    async def write(go_on: trio.Event) -> None:
        await go_on.wait()
        await writer.submit(lambda _: None, lambda _: None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for number in range(10):  # the loop takes those who go on in either order
            events = [trio.Event() for _ in range(4)]
            async with trio.open_nursery() as writers:
                for event in events:
                    writers.start_soon(write, event)
                await trio.testing.wait_all_tasks_blocked()
                for event in events:
                    event.set()
                    writer.deferred.cursors["somebody"] = number
                    writer.flush_soon()
        nursery.cancel_scope.cancel()
    assert writer.commits == 10


async def test_what_goes_along_is_committed_alone_when_nothing_else_comes(
    opened: tuple[Transaction, Path], autojump_clock: trio.testing.MockClock
) -> None:
    transaction, path = opened
    writer = Writer(transaction, path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for number in range(3):
            await trio.testing.wait_all_tasks_blocked()
            writer.deferred.cursors["somebody"] = number
            writer.flush_soon()
            await trio.sleep(FLUSH_SECONDS * 0.9)
            assert writer.commits == number
            writer.flush_soon()
            await trio.sleep(FLUSH_SECONDS * 0.1)
            while writer.commits == number:  # the disk's time is its own
                await trio.lowlevel.checkpoint()
            assert transaction.db.execute("SELECT sequence FROM cursors").fetchall() == [(number,)]
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_told_was_still_written_once(opened: tuple[Transaction, Path]) -> None:
    writer = Writer(*opened)
    done: list[str] = []

    def fail(_: Any) -> None:
        raise RuntimeError("a defect in telling")

    async def write(name: str, publish: Any) -> None:
        with pytest.raises(Unavailable, match="it may be there"):
            await writer.submit(lambda _: done.append(name), publish)

    with pytest.raises(ExceptionGroup) as ended:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "a", fail)
            nursery.start_soon(write, "b", lambda _: None)
            await trio.testing.wait_all_tasks_blocked()  # both are in one batch
            nursery.start_soon(writer.run)
    assert ended.group_contains(RuntimeError, match="a defect in telling")
    assert sorted(done) == ["a", "b"]
    assert writer.commits == 1
