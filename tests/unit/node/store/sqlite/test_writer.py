"""The writer: which operations share a commit, and that a committed one is not written again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.store.sqlite import schema
from node.store.sqlite.file_guard import FileGuard
from node.store.sqlite.transaction import Transaction
from node.store.sqlite.writer import FLUSH_SECONDS, Writer
from protocols.errors import Unavailable
from tests.until import until


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Transaction, Path, FileGuard]]:
    path = tmp_path / "store.sqlite3"
    connections = schema.open_connections(path, log_id="0" * 16)
    yield Transaction(connections[0], path), path, FileGuard(path)
    connections.reader.close()
    connections.writer.close()


async def test_operations_of_one_turn_of_the_loop_share_a_commit_despite_acknowledgements_between_them(
    opened: tuple[Transaction, Path, FileGuard],
) -> None:
    writer = Writer(*opened)

    async def write(go_on: trio.Event) -> None:
        await go_on.wait()
        await writer.submit(lambda _: None, lambda _: None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for number in range(10):  # the loop runs the woken tasks in either order
            events = [trio.Event() for _ in range(4)]
            async with trio.open_nursery() as writers:
                for event in events:
                    writers.start_soon(write, event)
                await trio.testing.wait_all_tasks_blocked()
                for event in events:
                    event.set()
                    writer.deferred.cursors["reader"] = number
                    writer.flush_soon()
        nursery.cancel_scope.cancel()
    assert writer.commits == 10


async def test_deferred_writes_get_a_commit_of_their_own_when_no_operation_comes(
    opened: tuple[Transaction, Path, FileGuard], autojump_clock: trio.testing.MockClock
) -> None:
    transaction, path, guard = opened
    writer = Writer(transaction, path, guard)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for number in range(3):
            await trio.testing.wait_all_tasks_blocked()
            writer.deferred.cursors["reader"] = number
            writer.flush_soon()
            await trio.sleep(FLUSH_SECONDS * 0.9)
            assert writer.commits == number
            writer.flush_soon()
            await trio.sleep(FLUSH_SECONDS * 0.1)
            await until(lambda count=number: writer.commits > count, on_real_clock=True)
            assert transaction.db.execute("SELECT sequence FROM cursors").fetchall() == [(number,)]
        nursery.cancel_scope.cancel()


async def test_an_operation_whose_publishing_fails_is_still_written_once(
    opened: tuple[Transaction, Path, FileGuard],
) -> None:
    writer = Writer(*opened)
    done: list[str] = []

    def fail(_: Any) -> None:
        raise RuntimeError("a defect in publishing")

    async def write(name: str, publish: Any) -> None:
        with pytest.raises(Unavailable, match="it may be there"):
            await writer.submit(lambda _: done.append(name), publish)

    with pytest.raises(ExceptionGroup) as ended:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "a", fail)
            nursery.start_soon(write, "b", lambda _: None)
            await trio.testing.wait_all_tasks_blocked()  # both are in one batch
            nursery.start_soon(writer.run)
    assert ended.group_contains(RuntimeError, match="a defect in publishing")
    assert sorted(done) == ["a", "b"]
    assert writer.commits == 1
