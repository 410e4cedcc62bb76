"""The writer of the store: what is on the disk is not written again, whatever else goes wrong."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.store import schema
from node.store.ledger import Ledger
from node.store.writer import Writer
from protocols.codes import Unavailable


async def test_what_cannot_be_told_was_still_written_once(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    connections = schema.opened(path, log_id="0" * 16)
    writer = Writer(Ledger(connections[0]), path, lambda _: None)
    done: list[str] = []

    def fail(_: Any) -> None:
        raise RuntimeError("a defect in telling")

    async def write(name: str, publish: Any) -> None:
        with pytest.raises(Unavailable, match="it may be there"):
            await writer.hand_in(lambda _: done.append(name), publish)

    with pytest.raises(ExceptionGroup) as ended:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "a", fail)
            nursery.start_soon(write, "b", lambda _: None)
            await trio.testing.wait_all_tasks_blocked()  # both are in one batch
            nursery.start_soon(writer.run)
    for connection in connections:
        connection.close()
    assert ended.group_contains(RuntimeError, match="a defect in telling")
    assert sorted(done) == ["a", "b"]
    assert writer.commits == 1
