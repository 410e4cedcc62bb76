"""The reader: one query that fails is the fault of its caller alone. What cannot be read of members is left out."""

import sqlite3
import threading
from pathlib import Path

import pytest
import trio

from node.store.members import Member
from node.store.sqlite.store import SqliteStore
from tests.unit.node.store.sqlite.files import ALICE, BOB, LOG_ID, envelope, opened, put


async def test_a_query_that_cannot_be_answered_fails_alone(path: Path) -> None:
    def too_large(db: sqlite3.Connection) -> object:
        return db.execute("SELECT ?", (1 << 64,)).fetchone()

    async with opened(path) as store:
        await put(store, envelope(1))
        with pytest.raises(OverflowError):
            await store._reader.ask(too_large)  # private: the store itself asks no such query
        assert len(await store.versions(envelope(1).key)) == 1


async def test_a_connection_is_closed_only_after_the_query_that_uses_it(path: Path) -> None:
    """Closed earlier, SQLite ends the process."""
    began, may_go_on, results = threading.Event(), threading.Event(), []

    def slow(db: sqlite3.Connection) -> None:
        began.set()
        may_go_on.wait(30)
        results.append(db.execute("SELECT 7").fetchone())

    store = await trio.to_thread.run_sync(lambda: SqliteStore.open(path, random_id=LOG_ID))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        store._reader.ask_in_background(slow, lambda _: None)  # private: no query of the store can be held up
        await trio.to_thread.run_sync(began.wait)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(0.1)  # a store that does not wait would have closed by then
        may_go_on.set()
    assert results == [(7,)]


@pytest.mark.parametrize("damage", ["'['", "'7'", "'[7]'", "'{}'"])
async def test_a_stored_member_that_cannot_be_read_is_left_out_with_one_line(
    damage: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as store:
        for peer in (ALICE, BOB):
            await store.save_member(Member(peer=peer, name="n", addresses=(), first_seen_ms=1, last_seen_ms=1))
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE members SET addresses = {damage} WHERE peer = ?", (ALICE,))
    db.close()
    store = await trio.to_thread.run_sync(lambda: SqliteStore.open(path, random_id=LOG_ID))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        assert [member.peer for member in store.members()] == [BOB]
        nursery.cancel_scope.cancel()
    assert f"the stored member {ALICE} cannot be read" in caplog.text
