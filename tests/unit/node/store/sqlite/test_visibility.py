"""A version that is committed but not published yet must be invisible to all readers alike."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from node.store.log import Incoming, Origin
from node.store.sqlite.store import SqliteStore
from node.store.sqlite.transaction import Transaction
from protocols.envelope import seal
from protocols.keys import PrivateKey


async def test_a_version_is_not_seen_by_its_digest_before_it_is_seen_as_a_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a read that finds the digest looks for the head, finds nothing, and wrongly answers 'absent'."""
    committed, may_publish = threading.Event(), threading.Event()
    commit: Callable[..., list[Any]] = Transaction.commit

    def commit_and_wait(transaction: Transaction, operations: Sequence[Any], *rest: Any) -> list[Any]:
        results = commit(transaction, operations, *rest)
        if operations:
            committed.set()
            may_publish.wait(30)
        return results

    monkeypatch.setattr(Transaction, "commit", commit_and_wait)
    envelope = seal(
        PrivateKey.from_seed(bytes(32)), address="ucxl://a:b@c:d/*^/x", content=b"x", content_type="text/plain",
        version=1 << 40, parents=(),
    )  # fmt: skip
    store = SqliteStore.open(tmp_path / "store.sqlite", random_id="0123456789abcdef")

    async def merge() -> None:
        await store.merge([Incoming(envelope, Origin.PEER)], now_ms=1)

    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        assert await store.heads(envelope.key) == ()
        async with trio.open_nursery() as merging:
            merging.start_soon(merge)
            await trio.to_thread.run_sync(committed.wait, 30)
            seen = await store.by_digest(envelope.digest), await store.heads(envelope.key)
            may_publish.set()
        assert seen == (None, ())
        assert await store.by_digest(envelope.digest) == envelope
        assert await store.heads(envelope.key) == (envelope,)
        nursery.cancel_scope.cancel()
