"""Histories read from the file: how many queries a walk takes."""

from collections.abc import Callable
from typing import Any

import pytest

from node.store.sqlite import history_queries
from node.store.sqlite.history import REFS, SqliteHistories
from node.store.sqlite.history_queries import WalkedVersion
from node.store.sqlite.rows import SIGN
from node.store.versions import VersionRef

REISSUED = 2 * REFS + 1
WALKED = [WalkedVersion(VersionRef(n, "author", bytes(32)), n <= REISSUED) for n in range(1, REISSUED + 100)]


async def test_many_reissued_versions_are_passed_over_in_few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []

    def walk(db: object, key: int, beyond: Any, is_backwards: bool, limit: int) -> list[WalkedVersion]:
        limits.append(limit)
        start = beyond[0] + SIGN if beyond is not None else 0
        return WALKED[start : start + limit]

    async def ask(query: Callable[[Any], Any]) -> Any:
        return query(None)

    monkeypatch.setattr(history_queries, "walk", walk)
    monkeypatch.setattr(history_queries, "key_id", lambda db, prefixes, key: 1)
    prefixes: Any = None
    found = await SqliteHistories(ask, prefixes).walk(b"key", None, is_backwards=False, limit=3)
    assert [ref.version for ref in found] == [REISSUED + 1, REISSUED + 2, REISSUED + 3]
    assert limits == [3, REFS, REFS, REFS]
