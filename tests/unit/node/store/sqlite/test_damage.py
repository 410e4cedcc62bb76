"""Damaged files: content is answered only if it has its digest, and what is derived from it is made anew."""

import sqlite3
from pathlib import Path

import pytest

from node.store.log import Incoming, Origin
from node.store.sqlite.merge import Merger
from node.store.sqlite.rebuild import check_store, rebuild_store
from node.store.sqlite.store import SqliteStore
from protocols.envelope import Envelope, Notice
from protocols.errors import Internal, Unavailable
from tests.unit.node.store.sqlite.files import ALICE, NOW, envelope, opened, put

ITEMS = [envelope(version, path=f"doc{version % 3}", content=b"content %d" % version) for version in range(1, 10)]
VICTIM = ITEMS[4]


async def _create(path: Path) -> None:
    async with opened(path) as store:
        await put(store, *ITEMS, holders=(ALICE,))


def _edit(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def _flip_content(path: Path) -> None:
    """Change one byte of one content, as a disk would."""
    data = bytearray(path.read_bytes())
    at = data.index(VICTIM.content)
    assert data.count(VICTIM.content) == 1
    data[at + 3] ^= 1
    path.write_bytes(data)


async def _read_all(store: SqliteStore) -> None:
    for item in ITEMS:
        assert await store.by_digest(item.digest) == item
    for item in ITEMS:
        heads = await store.heads(item.key)
        assert {head.digest for head in heads} == {each.digest for each in ITEMS if each.key == item.key}


DERIVED: dict[str, tuple[str, ...]] = {
    "version": ("UPDATE versions SET version = version + 1 WHERE sequence = 5",),
    "key": ("UPDATE versions SET key_id = 1 + key_id % 3 WHERE sequence = 5",),
    "digest": ("UPDATE versions SET digest = zeroblob(32) WHERE sequence = 5",),
    "all heads of a key": ("DELETE FROM heads WHERE key_id = 2",),
    "all heads": ("DELETE FROM heads",),
    "one head": ("DELETE FROM heads WHERE sequence = 5",),
    "address": ("UPDATE keys SET key = zeroblob(49), address = 'x' WHERE id = 2",),
    "author": ("UPDATE versions SET author = 'x', deleted = 1, parents = zeroblob(32) WHERE sequence = 5",),
    "index of digests": ("DELETE FROM digest_prefixes WHERE id = 5",),
    "index of contents": ("DELETE FROM content_prefixes WHERE id = 5",),
    "content of another": ("UPDATE versions SET content_id = 4 WHERE sequence = 5",),
    "digest of the content": ("UPDATE contents SET digest = zeroblob(32) WHERE id = 5",),
}


async def _flush_indexes(path: Path) -> None:
    """Have the prefix indexes on the disk, where they can be damaged, and not in memory."""
    _edit(
        path,
        "INSERT OR IGNORE INTO digest_prefixes SELECT substr(digest, 1, 8), sequence FROM versions",
        "INSERT OR IGNORE INTO key_prefixes SELECT substr(key, 7, 11), id FROM keys",
        "INSERT OR IGNORE INTO content_prefixes SELECT substr(digest, 1, 8), id FROM contents",
        "UPDATE prefixes_until SET id = (SELECT max(sequence) FROM versions) WHERE name = 'digest_prefixes'",
        "UPDATE prefixes_until SET id = (SELECT max(id) FROM keys) WHERE name = 'key_prefixes'",
        "UPDATE prefixes_until SET id = (SELECT max(id) FROM contents) WHERE name = 'content_prefixes'",
    )


async def test_a_changed_byte_is_never_answered_and_its_version_is_set_aside(path: Path) -> None:
    await _create(path)
    _flip_content(path)
    async with opened(path) as store:
        found = await store.by_digest(VICTIM.digest)
        assert isinstance(found, Notice)
        assert found.digest == VICTIM.digest
        assert store.damage.found == 1
        assert store.damage.set_aside == {VICTIM.digest: VICTIM.key}
        assert any(isinstance(head, Notice) for head in await store.heads(VICTIM.key))
        assert [hint.digest for hint in await store.due_hints(ALICE, now_ms=NOW)] == [item.digest for item in ITEMS]
    async with opened(path) as store:
        assert store.damage.set_aside == {VICTIM.digest: VICTIM.key}, "a restart knows it too"
        await store.merge([Incoming(VICTIM, Origin.PEER)], now_ms=NOW)
        assert store.damage.set_aside == {}
        await _read_all(store)
    async with opened(path) as store:
        assert store.damage.set_aside == {}
        await _read_all(store)


async def test_damaged_content_does_not_have_the_whole_history_of_its_address_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes the longer the more versions there are, and the writer is held meanwhile."""
    await _create(path)
    _flip_content(path)
    rebuilt: list[int] = []
    rebuild_key = Merger.rebuild_key

    def noted(merger: Merger, key_id: int) -> None:
        rebuilt.append(key_id)
        rebuild_key(merger, key_id)

    monkeypatch.setattr(Merger, "rebuild_key", noted)
    async with opened(path) as store:
        await _check_all(store)
        assert store.damage.set_aside == {VICTIM.digest: VICTIM.key}
        await store.merge([Incoming(VICTIM, Origin.PEER)], now_ms=NOW)
        await _read_all(store)
    assert rebuilt == []
    _edit(path, "UPDATE versions SET version = version + 1 WHERE sequence = 5")
    async with opened(path) as store:
        await _check_all(store)
        await _read_all(store)
    assert len(rebuilt) == 1


async def test_a_changed_byte_in_a_head_that_is_read_by_its_address_is_not_answered(path: Path) -> None:
    await _create(path)
    _flip_content(path)
    async with opened(path) as store:
        heads = await store.heads(VICTIM.key)
        assert {head.digest for head in heads} == {item.digest for item in ITEMS if item.key == VICTIM.key}
        assert [head.digest for head in heads if isinstance(head, Notice)] == [VICTIM.digest]


@pytest.mark.parametrize("part", ["header", "signature"])
async def test_a_version_with_a_damaged_header_is_asked_for_again(part: str, path: Path) -> None:
    """Nothing is answered for its address meanwhile: the versions before it would come back as heads."""
    last = envelope(20, path="doc0", content=b"last", parents=[ITEMS[8].digest])
    async with opened(path) as store:
        await put(store, *ITEMS, last, holders=(ALICE,))
    _edit(path, f"UPDATE versions SET {part} = zeroblob(length({part})) WHERE sequence = 10")
    async with opened(path) as store:
        await _check_all(store)
        assert store.damage.set_aside == {last.digest: last.key}
        assert await store.by_digest(last.digest) is None
        assert await store.unknown([last.digest]) == [last.digest]
        for ask in (store.heads, store.versions):
            with pytest.raises(Unavailable, match="asked of the holders again"):
                await ask(last.key)
        assert await store.heads(ITEMS[4].key) != ()
        await put(store, last.notice)
        assert store.damage.set_aside == {}
        assert last in await store.heads(last.key), "its content was whole"
        assert [change.sequence for change in await store.log(after=0)] == list(range(1, 12))
    async with opened(path) as store:
        assert await store.by_digest(last.digest) == last
        assert len(await store.due_hints(ALICE, now_ms=NOW)) == 10
        await _check_all(store)
        assert store.damage.found == 0


async def test_a_rebuild_gives_up_what_has_a_damaged_header(path: Path) -> None:
    first = envelope(1, content=b"first")
    last = envelope(2, content=b"last", parents=[first.digest])
    async with opened(path) as store:
        await put(store, first, last)
    _edit(path, "UPDATE versions SET header = zeroblob(9) WHERE sequence = 2")
    (fault,) = check_store(path).faults
    assert (fault.digest, fault.is_signed_part) == (last.digest, True)
    rebuild_store(path)
    assert check_store(path) == (2, (), "", ())
    async with opened(path) as store:
        assert await store.heads(first.key) == (first,)
        assert [version.notice for version in await store.versions(first.key)] == [first.notice]
        await put(store, last)
        assert await store.heads(first.key) == (last,), "a holder had it"
        assert store.last_sequence == 3


async def test_content_that_several_versions_have_is_whole_again_for_all(path: Path) -> None:
    twin = envelope(30, path="twin", content=VICTIM.content)
    await _create(path)
    async with opened(path) as store:
        await put(store, twin)
    _flip_content(path)
    async with opened(path) as store:
        for item in (VICTIM, twin):
            assert await store.by_digest(item.digest) == item.notice
        assert await store.by_content(VICTIM.content_digest) is None
        await put(store, twin)
        assert await store.by_digest(VICTIM.digest) == VICTIM
        assert store.damage.set_aside == {}
        assert await store.by_content(VICTIM.content_digest) == VICTIM
    async with opened(path) as store:
        assert store.damage.set_aside == {}


async def _check_all(store: SqliteStore) -> None:
    after: int | None = 0
    while after is not None:
        after = await store.check(after=after)


async def test_a_staged_write_that_a_disk_changed_is_not_sent_again(path: Path) -> None:
    async with opened(path) as store:
        await store.stage(VICTIM, idempotency_key="k", now_ms=NOW)
    _flip_content(path)
    async with opened(path) as store:
        with pytest.raises(Internal, match="damaged"):
            await store.staged_under("k")


async def test_the_check_in_the_background_finds_what_no_caller_reads(path: Path) -> None:
    await _create(path)
    async with opened(path) as store:
        await _check_all(store)
        assert store.damage.found == 0
    _flip_content(path)
    async with opened(path) as store:
        await _check_all(store)
        assert store.damage.set_aside == {VICTIM.digest: VICTIM.key}
        await _check_all(store)
        assert store.damage.found == 1


@pytest.mark.parametrize("name", DERIVED)
async def test_the_check_in_the_background_mends_what_is_derived(name: str, path: Path) -> None:
    await _create(path)
    await _flush_indexes(path)
    _edit(path, *DERIVED[name])
    async with opened(path) as store:
        await _check_all(store)
        assert store.damage.found > 0
        assert store.damage.set_aside == {}
        await _read_all(store)
        found = store.damage.found
        await _check_all(store)
        assert store.damage.found == found


@pytest.mark.parametrize("name", ["version", "all heads of a key", "all heads"])
async def test_a_read_mends_what_is_derived_before_it_answers(name: str, path: Path) -> None:
    await _create(path)
    _edit(path, *DERIVED[name])
    async with opened(path) as store:
        await _read_all(store)
        assert store.damage.found > 0


async def test_versions_of_a_key_that_changed_places_are_not_answered_for_another_address(path: Path) -> None:
    await _create(path)
    _edit(path, *DERIVED["key"])
    async with opened(path) as store:
        for item in ITEMS:
            for head in await store.heads(item.key):
                assert isinstance(head, Envelope)
                assert head.key == item.key


@pytest.mark.parametrize("name", DERIVED)
async def test_a_check_of_the_file_names_the_damage_and_a_rebuild_mends_it(name: str, path: Path) -> None:
    await _create(path)
    await _flush_indexes(path)
    assert check_store(path) == (9, (), "", ())
    _edit(path, *DERIVED[name])
    before = path.read_bytes()
    assert check_store(path).faults
    assert path.read_bytes() == before
    assert rebuild_store(path) == 9
    assert check_store(path) == (9, (), "", ())
    async with opened(path) as store:
        await _read_all(store)
        assert store.hint_counts() == {ALICE: 9}
        assert store.last_sequence == 9


async def test_a_check_of_the_file_names_damaged_content_and_a_rebuild_sets_it_aside(path: Path) -> None:
    await _create(path)
    _flip_content(path)
    (fault,) = check_store(path).faults
    assert (fault.sequence, fault.digest, fault.is_signed_part) == (5, VICTIM.digest, True)
    rebuild_store(path)
    assert check_store(path) == (9, (), "", (VICTIM.digest,))


async def test_a_store_that_a_node_uses_can_be_checked(path: Path) -> None:
    async with opened(path) as store:
        await put(store, *ITEMS)
        assert check_store(path) == (9, (), "", ())


async def test_a_rebuild_of_whole_stores_changes_nothing(path: Path) -> None:
    """Reissues, missing parents and histories keep their heads."""
    first = envelope(1)
    late = [_child(10, [first.digest]), _child(11, [b"\7" * 32]), _child(12, [first.digest, b"\7" * 32])]
    async with opened(path) as store:
        await put(store, first, *late)
        await store.reissue(late[0].digest, _child(20, [], reissues=[late[0].digest]), (), now_ms=NOW)
    before = _tables(path)
    rebuild_store(path)
    assert _tables(path) == before


def _child(version: int, parents: list[bytes], reissues: list[bytes] | None = None) -> Envelope:
    from tests.contract.stores import envelope as sealed

    return sealed(version, parents=parents, reissues=reissues or ())


def _tables(path: Path) -> list[list[tuple[object, ...]]]:
    db = sqlite3.connect(path)
    names = ("versions", "contents", "keys", "heads", "orphans", "reissues", "hints", "acknowledged", "completions")
    found = [db.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in names]
    db.close()
    return found
