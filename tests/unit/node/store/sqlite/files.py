"""SQLite stores for the tests of their files."""

import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from node.store.errors import StoreRefused
from node.store.log import Incoming, Origin
from node.store.sqlite.store import SqliteStore
from protocols.envelope import Envelope, Notice, seal
from protocols.keys import PrivateKey

ROOT = Path(__file__).parents[5]
AUTHOR = PrivateKey.from_seed(bytes(32))
ALICE, BOB = "12D3KooWAlice", "12D3KooWBob"
NOW = 1_800_000_000_000
LOG_ID = "00112233445566aa"


def envelope(
    version: int, *, path: str = "doc", content: bytes = b"x", parents: Iterable[bytes] = ()
) -> Envelope:  # fmt: skip
    return seal(
        AUTHOR, address=f"ucxl://a:r@p:t/*^/{path}", content=content, content_type="text/plain", version=version,
        parents=parents,
    )  # fmt: skip


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteStore]:
    store = SqliteStore.open(path, random_id=LOG_ID, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def put(store: SqliteStore, *items: Envelope | Notice, holders: tuple[str, ...] = ()) -> None:
    await store.merge([Incoming(item, Origin.LOCAL, holders) for item in items], now_ms=NOW)


async def create(path: Path, count: int = 200) -> None:
    """Create a store with so many versions, and close it."""
    async with opened(path) as store:
        await put(store, *(envelope(version, content=bytes(300)) for version in range(1, count + 1)), holders=(ALICE,))


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(path: Path) -> str:
    """The message of the refusal; the file must keep its bytes."""
    before = fingerprint(path)
    with pytest.raises(StoreRefused) as refusal:
        SqliteStore.open(path, random_id=LOG_ID)
    assert fingerprint(path) == before
    assert str(path) in str(refusal.value)
    return str(refusal.value)


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
