"""The contract of every store for long histories: versions by number and by place, whatever came when.

Blocks of two to four versions take the place of those of hundreds, so that a few versions are a long history.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from node.store.base import Store
from node.store.log import Incoming, Origin
from node.store.sqlite import history, history_blocks
from node.store.sqlite.rebuild import check_store, rebuild_store
from node.store.versions import VersionRef
from protocols.envelope import Envelope, Notice, order_key
from tests.contract.stores import AUTHOR, NOW, OTHER_AUTHOR, STORES, StoreRig, envelope, from_peer

Step = tuple[Envelope | Notice, bool]
"""What comes, and whether it ends a batch."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name, value in (("BLOCK_MAX", 4), ("BLOCK_ROWS", 2), ("GROWTH", 2)):
            patch.setattr(history_blocks, name, value)
        for name in ("ROWS", "REFS"):
            patch.setattr(history, name, 3)
        yield


@st.composite
def arrivals(draw: st.DrawFn) -> list[Step]:
    """Versions of one address in any order: by two authors, some with one version number, some that reissue others,
    some as notices whose content comes later or never."""
    made: list[Envelope] = []
    for number in range(draw(st.integers(1, 18))):
        reissued = draw(st.lists(st.sampled_from(made), max_size=2, unique=True)) if made and number % 3 == 0 else []
        made.append(
            envelope(
                draw(st.integers(1, 9)), content=b"#%d" % number, author=draw(st.sampled_from([AUTHOR, OTHER_AUTHOR])),
                reissues=[each.digest for each in reissued],
            )
        )  # fmt: skip
    items: list[Envelope | Notice] = []
    for item in made:
        how = draw(st.integers(0, 4))
        items += [item] if how > 1 else [item.notice] if how else [item.notice, item]
    return [(item, draw(st.booleans())) for item in draw(st.permutations(items))]


async def _check(store: Store, came: list[Envelope | Notice]) -> None:
    """Everything that a store says of a history is what the list of all versions says."""
    key = came[0].key
    held = {item.digest: item for item in came if isinstance(item, Envelope)}
    by_digest = {item.digest: item for item in came} | held
    in_order = sorted(by_digest.values(), key=order_key)
    outdated = {
        digest for item in in_order for digest in item.reissues
        if digest in by_digest and by_digest[digest].author == item.author
    }  # fmt: skip
    assert await store.count_versions(key) == len(in_order)
    for after in range(len(in_order) + 2):
        for limit in (1, 4, 100):
            page = await store.versions(key, after=after, limit=limit)
            assert [each.digest for each in page] == [item.digest for item in in_order[after : after + limit]]
            assert [each.reissued_as is not None for each in page] == [each.digest in outdated for each in page]
    current = [VersionRef(*order_key(item)) for item in in_order if item.digest not in outdated]
    assert await store.count_versions(key, with_reissued=False) == len(current)
    for is_backwards in (False, True):
        refs = current[:: -1 if is_backwards else 1]
        for number in range(len(refs) + 2):
            found = await store.nth(key, number, is_backwards=is_backwards)
            assert found == (refs[number] if number < len(refs) else None)
        assert await store.walk(key, is_backwards=is_backwards, limit=100) == refs
        for at, ref in enumerate(refs):
            assert await store.walk(key, beyond=ref, is_backwards=is_backwards, limit=4) == refs[at + 1 : at + 5]
    for version in range(11):
        walked = await store.walk(key, beyond=VersionRef(version, "", b""), is_backwards=True, limit=1)
        assert walked == [ref for ref in current if ref.version < version][-1:]
    assert await store.latest_held(key) == next((ref for ref in reversed(current) if ref.digest in held), None)


@pytest.mark.parametrize("kind", STORES)
@settings(max_examples=25, deadline=None)
@given(steps=arrivals())
def test_a_history_is_read_by_number_and_by_place_whatever_came_when(kind: str, steps: list[Step]) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with StoreRig.made(kind, Path(directory)) as rig:
                store = await rig.open()
                batch: list[Incoming] = []
                for at, (item, ends_batch) in enumerate(steps):
                    batch.append(from_peer(item))
                    if ends_batch:
                        await store.merge(batch, now_ms=NOW)
                        batch = []
                        if at % 5 == 0:
                            store = await rig.reopen()
                await store.merge(batch, now_ms=NOW)
                came = [item for item, _ in steps]
                async for each in rig.now_and_after_a_restart(store):
                    await _check(each, came)

    trio.run(check)


@settings(max_examples=12, deadline=None)
@given(steps=arrivals())
def test_a_rebuild_makes_the_blocks_of_a_history_that_it_had(steps: list[Step]) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "store.sqlite3"
            async with StoreRig.made("sqlite", Path(directory)) as rig:
                store = await rig.open()
                for item, _ in steps:
                    await store.merge([from_peer(item)], now_ms=NOW)
            assert check_store(path).faults == ()
            rebuild_store(path)
            assert check_store(path).faults == ()
            async with StoreRig.made("sqlite", Path(directory)) as rig:
                await _check(await rig.open(), [item for item, _ in steps])

    trio.run(check)


@pytest.mark.parametrize("kind", STORES)
async def test_own_writes_that_are_reissued_do_not_count(kind: str, tmp_path: Path) -> None:
    async with StoreRig.made(kind, tmp_path) as rig:
        store = await rig.open()
        ahead = [envelope(100 + number) for number in range(8)]
        await store.merge([from_peer(envelope(number)) for number in range(1, 9)], now_ms=NOW)
        await store.merge([Incoming(item, Origin.LOCAL) for item in ahead], now_ms=NOW)
        mended: list[Envelope | Notice] = []
        for number, item in enumerate(ahead):
            again = envelope(20 + number, content=item.content, reissues=[item.digest])
            mended.append(again)
            await store.reissue(item.digest, again, (), now_ms=NOW)
        async for each in rig.now_and_after_a_restart(store):
            await _check(each, [*(envelope(number) for number in range(1, 9)), *ahead, *mended])
