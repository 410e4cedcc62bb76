"""The hints of the SQLite store: in memory, on the disk, and between the two."""

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.store.log import Incoming, Origin
from node.store.sqlite import hints as sqlite_hints
from tests.unit.node.store.sqlite.files import (
    ALICE,
    BOB,
    NOW,
    create,
    envelope,
    opened,
    put,
)
from tests.until import until


async def test_hints_are_read_when_there_is_a_commit_during_every_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(path)
    async with opened(path) as store:
        # Private: no caller can place a commit into the middle of a read.
        ask = store._reader.ask

        async def interrupted(query: Any) -> Any:
            answer = await ask(query)
            store._writer.deferred_commits += 1
            return answer

        monkeypatch.setattr(store._reader, "ask", interrupted)  # private: no call comes in the middle of a read
        with trio.fail_after(20):
            hints = await store.due_hints(ALICE, limit=256, now_ms=NOW)
        assert [hint.sequence for hint in hints] == list(range(1, 201))


async def test_acknowledgements_are_written_within_a_second_without_another_commit(path: Path) -> None:
    async with opened(path) as store:
        await put(store, envelope(1), holders=(ALICE, BOB))
        commits = store.stats().commits
        store.acknowledge(ALICE, [1])
        await until(lambda: store.stats().commits > commits)
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM hints").fetchone() == (1,)
            assert db.execute("SELECT count(*) FROM acknowledged").fetchone() == (1,)


async def test_writes_that_are_not_cached_have_hints_and_standings_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_hints, "CACHED_WRITES_MAX", 10)
    async with opened(path) as store:
        for version in range(1, 51):
            await store.merge([Incoming(envelope(version), Origin.LOCAL, (ALICE, BOB))], now_ms=NOW + version)
        assert store.pending().oldest_at_ms == NOW + 1
        store.postpone_hint(ALICE, 7, next_try_ms=NOW + 5000, refusal="busy")
        hints = await store.due_hints(ALICE, limit=100, now_ms=NOW)
        assert [hint.sequence for hint in hints] == [each for each in range(1, 51) if each != 7]
        assert [hint.at_ms for hint in hints[:3]] == [NOW + 1, NOW + 2, NOW + 3]
        store.acknowledge(ALICE, range(1, 31))
        store.acknowledge(BOB, range(1, 21))
        assert [hint.sequence for hint in await store.due_hints(BOB, limit=2, now_ms=NOW)] == [21, 22]
        standing = await store.standing(sequence=25)
        assert standing is not None
        assert (standing.acknowledged, standing.wanted) == ((ALICE,), 2)
        await until(lambda: store.pending().oldest_at_ms == NOW + 21)
        assert (await store.replicated(envelope(3).digest, 2)).sequence == 3


async def test_many_hints_survive_a_restart_and_are_due_in_order(path: Path) -> None:
    holders = tuple(f"12D3KooW{name}" for name in "abcd")
    async with opened(path) as store:
        for start_at in range(1, 5001, 500):
            await put(
                store, *(envelope(version, path=f"{version}") for version in range(start_at, start_at + 500)),
                holders=holders,
            )  # fmt: skip
    async with opened(path) as store:
        assert store.hint_counts() == dict.fromkeys(holders, 5000)
        delivered: list[int] = []
        while hints := await store.due_hints(holders[0], limit=256, now_ms=NOW):
            delivered += [hint.sequence for hint in hints]
            store.acknowledge(holders[0], [hint.sequence for hint in hints])
        assert delivered == list(range(1, 5001))
        assert store.hint_counts() == dict.fromkeys(holders[1:], 5000)
    async with opened(path) as store:
        assert store.hint_counts() == dict.fromkeys(holders[1:], 5000)


async def test_a_crash_before_a_deferred_acknowledgement_costs_one_more_delivery_and_nothing_else(path: Path) -> None:
    copy = path.with_name("crashed.sqlite3")
    async with opened(path) as store:
        await put(store, envelope(1), holders=(ALICE,))
        shutil.copy(path, copy)
        shutil.copy(f"{path}-wal", f"{copy}-wal")
        store.acknowledge(ALICE, [1])
    async with opened(copy) as store:
        assert store.hint_counts() == {ALICE: 1}
        store.acknowledge(ALICE, [1])
        standing = await store.standing(sequence=1)
        assert standing is not None
        assert standing.acknowledged == (ALICE,)
