"""The owner of a store: which store a start takes, refuses or misses, by whose key is in the directory."""

import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.store.errors import StoreRefused
from node.store.marks import LOST_MARK, RECONCILED_MARK
from node.store.sqlite import meta, schema, write_ahead
from node.store.sqlite.owner import Owner
from node.store.sqlite.store import SqliteStore
from protocols.keys import PrivateKey
from tests.unit.node.store.sqlite.files import ALICE, LOG_ID, envelope, fingerprint, opened, put

ADA = PrivateKey.from_seed(b"\1" * 32).peer_id
BEN = PrivateKey.from_seed(b"\2" * 32).peer_id
FIRST, LATER = Owner(ADA, is_new=True), Owner(ADA, is_new=False)


def owner_in(path: Path) -> str | None:
    """The owner that the file names without its write-ahead file."""
    alone = path.with_name("alone")
    shutil.copyfile(path, alone)
    with closing(sqlite3.connect(alone)) as db:
        return meta.value(db, meta.OWNER)


def damage_at_start(path: Path, owner: Owner | None) -> tuple[str, str]:
    """What a start says of the store, `lost` and `taken_over`; it ends in order."""
    with closing(SqliteStore.open(path, random_id=LOG_ID, owner=owner)) as store:
        return store.damage.lost, store.damage.taken_over


async def created(path: Path, owner: Owner | None = FIRST) -> None:
    async with opened(path, owner=owner) as store:
        await put(store, envelope(1), holders=(ALICE,))


async def test_a_first_start_is_silent_and_so_are_those_that_follow(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await created(path)
    for owner in (LATER, LATER, FIRST):  # the last one: a first start was killed before the key had its name
        assert damage_at_start(path, owner) == ("", "")
    assert owner_in(path) == ADA
    assert caplog.text == ""


async def test_a_key_without_a_store_lost_it_and_the_new_one_says_so_until_it_was_compared(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await created(path)
    path.unlink()
    async with opened(path, owner=LATER) as store:
        assert "is missing although this node has run before" in store.damage.lost
        assert store.damage.lost in caplog.text
        assert (store.mark(LOST_MARK), store.mark(RECONCILED_MARK)) == (store.damage.lost, "0")
        assert (store.last_sequence, store.damage.taken_over) == (0, "")
    async with opened(path, owner=LATER) as store:
        assert store.damage.lost == "", "it was said before, and the node has ended in order since"
        assert store.mark(RECONCILED_MARK) == "0"


@pytest.mark.parametrize("point", ["_restrict_permissions", "prepare_writer", "prepare_reader"])
async def test_a_start_that_follows_a_crash_says_the_loss_again(
    path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(schema, point, crash)
        patch.setattr(write_ahead, "end", lambda _: None)  # a killed process ends nothing in order
        with pytest.raises(Crash):
            SqliteStore.open(path, random_id=LOG_ID, owner=LATER)
    lost, _ = damage_at_start(path, LATER)
    assert lost


@pytest.mark.parametrize("point", ["_restrict_permissions", "prepare_writer", "prepare_reader"])
async def test_a_first_start_that_was_killed_is_followed_by_a_silent_one(
    path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(schema, point, crash)
        with pytest.raises(Crash):
            SqliteStore.open(path, random_id=LOG_ID, owner=FIRST)
    for owner in (FIRST, LATER):
        assert damage_at_start(path, owner) == ("", "")


async def test_the_store_of_another_node_is_refused_by_name_and_left_as_it_is(path: Path) -> None:
    await created(path)
    before = fingerprint(path)
    with pytest.raises(
        StoreRefused, match=f"is the store of {ADA}.*identity here is that of {BEN}.*put back"
    ) as refusal:
        SqliteStore.open(path, random_id=LOG_ID, owner=Owner(BEN, is_new=False))
    assert "move identity.key away" in str(refusal.value)
    assert fingerprint(path) == before
    assert damage_at_start(path, LATER) == ("", "")


async def test_the_write_ahead_file_of_the_store_before_does_not_hide_the_other_owner(path: Path) -> None:
    other = path.with_name("other")
    await created(other)
    async with opened(path, owner=Owner(BEN, is_new=True)) as store:
        await put(store, envelope(2))
        for name in ("", "-wal"):
            shutil.copyfile(f"{path}{name}", f"{path}.killed{name}")
    killed = path.with_name(f"{path.name}.killed")
    shutil.copyfile(other, killed)
    before = fingerprint(killed)
    with pytest.raises(StoreRefused, match=f"is the store of {ADA}"):
        SqliteStore.open(killed, random_id=LOG_ID, owner=Owner(BEN, is_new=False))
    assert fingerprint(killed) == before, "no page of the other store was written into it"


@pytest.mark.parametrize("former", [FIRST, None])
async def test_a_new_key_takes_the_store_over_with_what_it_owes(
    path: Path, former: Owner | None, caplog: pytest.LogCaptureFixture
) -> None:
    await created(path, former)
    new = Owner(BEN, is_new=True)
    async with opened(path, owner=new) as store:
        assert f"is the store of {ADA if former else 'an unknown node'}, whose key was lost" in store.damage.taken_over
        assert store.damage.taken_over in caplog.text
        assert store.damage.lost == ""
        assert store.hint_counts() == {ALICE: 1}
        assert owner_in(path) == BEN, "before the key has its name: a later start must not refuse the store"
    assert damage_at_start(path, Owner(BEN, is_new=False)) == ("", "")


async def test_a_store_without_owner_belongs_to_the_next_node_that_opens_it(path: Path) -> None:
    await created(path, None)
    assert damage_at_start(path, None) == ("", "")
    assert damage_at_start(path, LATER) == ("", "")
    assert owner_in(path) == ADA
    assert damage_at_start(path, None) == ("", ""), "a tool that is no node leaves the owner"
    assert owner_in(path) == ADA


async def test_a_take_over_that_a_full_disk_does_not_take_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await created(path)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(meta, "begin_log", full)
        with pytest.raises(StoreRefused, match="disk is full"):
            SqliteStore.open(path, random_id=LOG_ID, owner=Owner(BEN, is_new=True))
    assert owner_in(path) == ADA
    assert damage_at_start(path, LATER) == ("", "")


async def test_a_write_ahead_file_without_its_store_is_set_aside(path: Path) -> None:
    async with opened(path, owner=FIRST) as store:
        await put(store, envelope(1))
        left = path.with_name(f"{path.name}-wal").read_bytes()
    path.unlink()
    path.with_name(f"{path.name}-wal").write_bytes(left)
    async with opened(path, owner=LATER) as store:
        assert store.last_sequence == 0
    assert path.with_name(f"{path.name}-wal.{LOG_ID}").read_bytes() == left


async def test_a_store_that_was_not_run_is_closed_in_order(path: Path) -> None:
    with closing(SqliteStore.open(path, random_id=LOG_ID)) as store:
        pass
    store.close()
    assert sorted(each.name for each in path.parent.iterdir()) == [
        path.name,
        f"{path.name}.closed",
        f"{path.name}.lock",
    ]
    assert damage_at_start(path, None) == ("", "")
