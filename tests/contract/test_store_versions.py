"""The contract of every store for versions: heads, histories, reissues and notices."""

import tempfile
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.store.base import Store
from node.store.log import Incoming, Merged, Origin
from node.store.versions import HeldContent
from protocols.envelope import Envelope, Notice, notice_of, order_key, verify
from protocols.header import DOMAIN
from protocols.heads import HeadSet
from tests.contract.stores import (
    AUTHOR,
    NOW,
    OTHER_AUTHOR,
    STORES,
    StoreRig,
    digests,
    envelope,
    from_peer,
    local,
    put,
)  # fmt: skip

# -- heads -------------------------------------------------------------------------------------------------------------


async def test_a_child_replaces_its_parent(store: Store) -> None:
    one = envelope(1)
    two = envelope(2, parents=[one.digest])
    three = envelope(3, parents=[two.digest])
    await put(store, from_peer(one))
    assert await digests(store, one.key) == [one.digest]
    await put(store, from_peer(two), from_peer(three))
    assert await digests(store, one.key) == [three.digest]
    assert [(version.version, version.is_head) for version in await store.versions(one.key)] == [
        (1, False), (2, False), (3, True),
    ]  # fmt: skip


async def test_versions_of_two_writers_who_disagree_are_siblings_and_the_later_one_is_first(store: Store) -> None:
    one = envelope(1)
    left = envelope(2, parents=[one.digest], content=b"left")
    right = envelope(3, parents=[one.digest], content=b"right")
    await put(store, from_peer(one), from_peer(right), from_peer(left))
    assert await digests(store, one.key) == [right.digest, left.digest]
    merged = envelope(4, parents=[left.digest, right.digest])
    await put(store, from_peer(merged))
    assert await digests(store, one.key) == [merged.digest]


async def test_a_parent_that_comes_late_is_no_head(store: Store) -> None:
    one = envelope(1)
    two = envelope(2, parents=[one.digest])
    await put(store, from_peer(two))
    await put(store, from_peer(one))
    assert await digests(store, one.key) == [two.digest]


async def test_a_parent_that_is_not_earlier_than_its_child_stays_a_head(store: Store) -> None:
    parent, same = envelope(5), envelope(5, content=b"same")
    child = envelope(5, parents=sorted([parent.digest, same.digest]), content=b"child")
    await put(store, from_peer(parent), from_peer(child), from_peer(same))
    assert set(await digests(store, parent.key)) == {parent.digest, same.digest, child.digest}


async def test_a_version_of_another_address_ends_no_head_here(store: Store) -> None:
    here, late = envelope(1), envelope(2, content=b"late")
    elsewhere = envelope(9, path="elsewhere", parents=[here.digest, late.digest])
    await put(store, from_peer(here), from_peer(elsewhere), from_peer(late))
    assert set(await digests(store, here.key)) == {here.digest, late.digest}
    assert await digests(store, elsewhere.key) == [elsewhere.digest]


async def test_a_tombstone_is_a_head_like_any_other(store: Store) -> None:
    one = envelope(1)
    gone = envelope(2, parents=[one.digest], deleted=True)
    await put(store, from_peer(one), from_peer(gone))
    (head,) = await store.heads(one.key)
    assert head.digest == gone.digest
    assert head.deleted


async def test_unknown_digests_are_those_of_no_version(store: Store, rig: StoreRig) -> None:
    items = [envelope(version) for version in range(1, 6)]
    await put(store, *map(from_peer, items[:3]), from_peer(items[3].notice))
    async for each in rig.now_and_after_a_restart(store):
        assert await each.unknown([bytes(32), *(item.digest for item in items)]) == [bytes(32), items[4].digest]
        assert await each.unknown([]) == []


async def test_versions_without_content_are_those_that_are_not_known_or_by_their_notice_alone(
    store: Store, rig: StoreRig
) -> None:
    items = [envelope(version) for version in range(1, 6)]
    await put(store, *map(from_peer, items[:3]), from_peer(items[3].notice))
    lacking = [bytes(32), items[3].digest, items[4].digest]
    async for each in rig.now_and_after_a_restart(store):
        assert await each.without_content([bytes(32), *(item.digest for item in items)]) == lacking
        assert await each.without_content([]) == []
    await put(each, from_peer(items[3]))
    assert await each.without_content(lacking) == [bytes(32), items[4].digest]


async def test_missing_parents_are_those_that_no_version_has_come_for(store: Store, rig: StoreRig) -> None:
    one, two, elsewhere = envelope(1), envelope(2), envelope(1, path="elsewhere")
    child = envelope(3, parents=sorted([one.digest, two.digest, elsewhere.digest]))
    await put(store, from_peer(child), from_peer(elsewhere))
    async for each in rig.now_and_after_a_restart(store):
        assert set(await each.missing_parents(child.key)) >= {one.digest, two.digest}
        assert await each.missing_parents(child.key, limit=1) == [min(one.digest, two.digest)]
        assert await each.missing_parents(elsewhere.key) == []
    await put(each, from_peer(two), from_peer(one.notice))
    assert await each.missing_parents(child.key) == []


async def test_history_is_in_the_total_order_whatever_the_order_of_arrival(store: Store) -> None:
    items = [envelope(version, author=author) for version in (3, 1, 2) for author in (AUTHOR, OTHER_AUTHOR)]
    await put(store, *map(from_peer, items))
    in_order = sorted(items, key=order_key)
    assert [version.digest for version in await store.versions(items[0].key)] == [item.digest for item in in_order]
    page = await store.versions(items[0].key, after=2, limit=3)
    assert [version.digest for version in page] == [item.digest for item in in_order[2:5]]
    for past_the_end in (6, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        assert await store.versions(items[0].key, after=past_the_end, limit=3) == []
    assert await store.count_versions(items[0].key) == 6
    first = page[0]
    assert first.notice == in_order[2].notice
    assert first.is_held
    assert first.is_head
    assert first.reissued_as is None


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, Envelope | Notice]]:
    """Versions of two keys by two authors, in any order. Their parents are any of them, some reissue another, and some
    come as notices as well, first or later."""
    made: list[Envelope] = []
    for number in range(draw(st.integers(1, 9))):
        parents = draw(st.lists(st.sampled_from(made), max_size=3, unique=True)) if made else []
        reissued = draw(st.lists(st.sampled_from(made), max_size=2, unique=True)) if made else []
        made.append(
            envelope(
                draw(st.integers(1, 5)), path=draw(st.sampled_from(["x", "x", "y"])), content=b"#%d" % number,
                parents=[parent.digest for parent in parents],
                author=draw(st.sampled_from([AUTHOR, AUTHOR, OTHER_AUTHOR])),
                reissues=[one.digest for one in reissued],
            )
        )  # fmt: skip
    items: list[Envelope | Notice] = list(made)
    for item in draw(st.lists(st.sampled_from(made), max_size=4)):
        items.append(item.notice)
    order = draw(st.permutations(items))
    return [(draw(st.integers(0, 2)), item) for item in order]


@pytest.mark.parametrize("kind", STORES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories())
async def test_the_same_versions_give_the_same_heads_in_any_order_and_any_batches(
    kind: str, history: list[tuple[int, Envelope | Notice]], tmp_path: Path
) -> None:
    async with StoreRig.made(kind, Path(tempfile.mkdtemp(dir=tmp_path))) as rig:
        store = await rig.open()
        batch: list[Incoming] = []
        for ends_batch, item in history:
            batch.append(from_peer(item))
            if ends_batch == 0:
                await store.merge(batch, now_ms=NOW)
                batch = []
        await store.merge(batch, now_ms=NOW)

        async for each in rig.now_and_after_a_restart(store):
            for key in {item.key for _, item in history}:
                lineage = HeadSet()
                held = {item.digest: item for _, item in history if item.key == key and isinstance(item, Envelope)}
                for item in held.values():
                    lineage.add(item.digest, item.version, item.parents, author=item.author, reissues=item.reissues)
                heads = sorted((held[digest] for digest in lineage.heads()), key=order_key, reverse=True)
                assert list(await each.heads(key)) == heads
                versions = await each.versions(key)
                assert [version.digest for version in versions] == [
                    item.digest for item in sorted(held.values(), key=order_key)
                ]  # fmt: skip
                assert {version.digest for version in versions if version.is_head} == {head.digest for head in heads}
                assert all(version.is_held for version in versions)
                for version in versions:
                    reissues = [
                        item.digest
                        for item in held.values()
                        if version.digest in item.reissues and item.author == version.author
                    ]
                    assert version.reissued_as == min(reissues, default=None)
            sequences = [change.sequence for change in await each.log(after=0)]
            assert sequences == list(range(1, each.last_sequence + 1))


@st.composite
def reissued_histories(draw: st.DrawFn) -> tuple[list[tuple[Envelope, bytes | None]], list[Envelope]]:
    """What one node writes and learns, in order, each with the digest of its own write that it replaces, if any; and
    all of these versions in another order."""
    steps: list[tuple[Envelope, bytes | None]] = []
    current: list[Envelope] = []
    for number in range(draw(st.integers(1, 9))):
        made = [item for item, _ in steps]
        parents = draw(st.lists(st.sampled_from(made), max_size=3, unique=True)) if made else []
        old = draw(st.sampled_from([*current, None]))
        item = envelope(
            draw(st.integers(1, 5)), content=b"#%d" % number, parents=[parent.digest for parent in parents],
            author=AUTHOR if old is not None else draw(st.sampled_from([AUTHOR, OTHER_AUTHOR])),
            reissues=(old.digest, *old.reissues) if old is not None else (),
        )  # fmt: skip
        steps.append((item, old.digest if old is not None else None))
        current = [each for each in current if each is not old] + ([item] if item.author == AUTHOR.peer_id else [])
    arrival: list[tuple[Envelope, bytes | None]] = [step for step in steps if step[0].author == OTHER_AUTHOR.peer_id]
    own = [step for step in steps if step not in arrival]
    for step in arrival:
        own.insert(draw(st.integers(0, len(own))), step)
    return own, draw(st.permutations([item for item, _ in steps]))


@pytest.mark.parametrize("kind", STORES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=reissued_histories())
async def test_the_author_of_reissued_versions_and_its_peers_have_the_same_heads(
    kind: str, history: tuple[list[tuple[Envelope, bytes | None]], list[Envelope]], tmp_path: Path
) -> None:
    steps, arrival = history
    async with (
        StoreRig.made(kind, Path(tempfile.mkdtemp(dir=tmp_path))) as authors,
        StoreRig.made(kind, Path(tempfile.mkdtemp(dir=tmp_path))) as peers,
    ):
        author, peer = await authors.open(), await peers.open()
        for item, replaces in steps:
            if replaces is not None:
                await author.reissue(replaces, item, (), now_ms=NOW)
            else:
                await put(author, local(item) if item.author == AUTHOR.peer_id else from_peer(item))
        for item in arrival:
            await put(peer, from_peer(item))
        key = arrival[0].key
        expected = await peer.heads(key)
        async for each in authors.now_and_after_a_restart(author):
            assert await each.heads(key) == expected


async def test_a_version_that_its_author_reissued_is_no_head_in_either_order_of_arrival(
    store: Store, rig: StoreRig
) -> None:
    """A peer accepted a version from a clock that ran ahead, and its reissue."""
    ahead = envelope(1 << 60)
    mended = envelope(5, reissues=[ahead.digest])
    twice = envelope(6, reissues=[mended.digest])
    other = envelope(1 << 60, path="other")
    await put(store, from_peer(ahead))
    await put(store, from_peer(mended))
    other_mended = envelope(5, path="other", reissues=[other.digest])
    await put(store, from_peer(other_mended))
    await put(store, from_peer(other))
    async for each in rig.now_and_after_a_restart(store):
        assert await digests(each, ahead.key) == [mended.digest]
        assert await digests(each, other.key) == [other_mended.digest]
        assert await each.latest_reissue(ahead.digest) == mended.digest
        assert await each.by_digest(ahead.digest) == ahead, "the history keeps it"
    store = await rig.reopen()
    await put(store, from_peer(twice))
    assert await store.latest_reissue(ahead.digest) == twice.digest
    assert await store.latest_reissue(b"?" * 32) == b"?" * 32
    assert await digests(store, ahead.key) == [twice.digest]


async def test_a_reissue_by_another_author_or_of_another_key_has_no_effect(store: Store, rig: StoreRig) -> None:
    theirs = envelope(1)
    mine = envelope(2, author=OTHER_AUTHOR, reissues=[theirs.digest])
    elsewhere = envelope(2, path="elsewhere", reissues=[theirs.digest])
    await put(store, from_peer(theirs), from_peer(mine), from_peer(elsewhere))
    async for each in rig.now_and_after_a_restart(store):
        assert await digests(each, theirs.key) == [mine.digest, theirs.digest]
        assert await each.latest_reissue(theirs.digest) == theirs.digest


# -- notices -----------------------------------------------------------------------------------------------------------


async def test_a_notice_is_a_version_whose_content_is_elsewhere(store: Store, rig: StoreRig) -> None:
    item = envelope(3, parents=[b"p" * 32])
    notice = item.notice
    await put(store, from_peer(notice))
    async for each in rig.now_and_after_a_restart(store):
        assert await each.heads(item.key) == (notice,)
        assert await each.by_digest(item.digest) == notice
        (version,) = await each.versions(item.key)
        assert not version.is_held
        assert version.is_head
        assert version.notice.parents == (b"p" * 32,)


async def test_content_that_comes_after_its_notice_gets_a_log_entry_of_its_own(store: Store, rig: StoreRig) -> None:
    item, other = envelope(3), envelope(1, path="other")
    await put(store, from_peer(item.notice), from_peer(other), now_ms=NOW)
    assert await put(store, Incoming(item, Origin.SYNC), now_ms=NOW + 1) == [Merged(1, True)]
    assert store.last_sequence == 3
    assert await put(store, from_peer(item), from_peer(item.notice)) == [Merged(1, False)] * 2
    async for each in rig.now_and_after_a_restart(store):
        assert each.last_sequence == 3
        (head,) = await each.heads(item.key)
        assert isinstance(head, Envelope)
        assert head.encoded == item.encoded
        changes = await each.log(after=0)
        assert [(change.digest, change.origin) for change in changes] == [
            (item.digest, Origin.PEER), (other.digest, Origin.PEER), (item.digest, Origin.SYNC),
        ]  # fmt: skip
        assert changes[2].at_ms == NOW + 1
        (version,) = await each.versions(item.key)
        assert version.is_held


async def test_a_notice_says_all_but_the_content(store: Store, rig: StoreRig) -> None:
    item = envelope(3, content=b"elsewhere", reissues=[b"r" * 32])
    await put(store, from_peer(item.notice))
    async for each in rig.now_and_after_a_restart(store):
        (version,) = await each.versions(item.key)
        assert version.notice == item.notice
        assert version.notice.encoded == item.notice.encoded
        assert (version.notice.content_size, version.notice.content_type) == (9, "text/plain")
        assert version.notice.content_digest == item.content_digest


async def test_content_is_found_by_its_digest(store: Store, rig: StoreRig) -> None:
    one, two = envelope(1, content=b"same"), envelope(2, path="other", content=b"same")
    late, never, gone = envelope(3, content=b"late"), envelope(4, content=b"never"), envelope(5, deleted=True)
    await put(store, *(from_peer(item) for item in (one, two, late.notice, never.notice, gone)))
    assert await store.by_content(late.content_digest) is None
    await put(store, from_peer(late))
    async for each in rig.now_and_after_a_restart(store):
        assert await each.by_content(one.content_digest) == one, "the first version that had it"
        assert await each.by_content(late.content_digest) == late
        assert await each.by_content(never.content_digest) is None
        assert await each.by_content(b"?" * 32) is None
        assert await each.by_content(gone.content_digest) == gone
        for item in (one, two, late, gone):
            assert await each.by_digest(item.digest) == item


async def test_many_versions_with_one_content_are_read_as_they_were_written(store: Store, rig: StoreRig) -> None:
    items = [envelope(number, path=str(number), content=b"same") for number in range(1, 101)]
    for start in range(0, 100, 20):
        await put(store, *map(from_peer, items[start : start + 20]))
    async for each in rig.now_and_after_a_restart(store):
        for item in items:
            assert await each.by_digest(item.digest) == item
            assert await each.heads(item.key) == (item,)


async def test_a_reissue_that_came_as_a_notice_ends_what_it_replaces(store: Store, rig: StoreRig) -> None:
    ahead = envelope(1 << 60)
    mended = envelope(5, reissues=[ahead.digest])
    await put(store, from_peer(ahead), from_peer(mended.notice))
    async for each in rig.now_and_after_a_restart(store):
        assert await digests(each, ahead.key) == [mended.digest]
        assert await each.latest_reissue(ahead.digest) == mended.digest
    store = await rig.reopen()
    await put(store, from_peer(mended))
    assert await store.heads(ahead.key) == (mended,)


async def test_a_notice_whose_content_another_version_has_is_an_envelope_at_once(store: Store, rig: StoreRig) -> None:
    one, two = envelope(1, content=b"same"), envelope(2, path="other", content=b"same")
    known, first = envelope(3, path="known", content=b"late"), envelope(4, path="first", content=b"late")
    await put(store, from_peer(one), from_peer(known.notice))
    assert await store.heads(known.key) == (known.notice,)
    assert await put(store, from_peer(two.notice)) == [Merged(3, True)]
    assert await put(store, from_peer(first), from_peer(known.notice)) == [Merged(4, True), Merged(2, True)]
    async for each in rig.now_and_after_a_restart(store):
        for item in (one, two, known, first):
            assert await each.by_digest(item.digest) == item
            assert await each.heads(item.key) == (item,)
            (version,) = await each.versions(item.key)
            assert version.is_held
        assert [change.digest for change in await each.log(after=0)] == [
            item.digest for item in (one, known, two, first, known)
        ]  # fmt: skip
        assert each.stats().versions == 4


async def test_a_notice_with_the_content_of_another_and_another_size_stays_a_notice(
    store: Store, rig: StoreRig
) -> None:
    """Its author signed a size that the content does not have: no content can be that of this version."""
    one = envelope(1, content=b"same")
    header = msgpack.packb((
        [2, 0], "ucxl://a:r@p:t/*^/other", one.content_digest, 5, "text/plain", 2, [], AUTHOR.peer_id, {}, False,
    ))  # fmt: skip
    wrong = notice_of(header, AUTHOR.sign(DOMAIN + header))
    verify(wrong)
    await put(store, from_peer(one), from_peer(wrong))
    async for each in rig.now_and_after_a_restart(store):
        assert await each.by_digest(wrong.digest) == wrong
        assert await each.heads(wrong.key) == (wrong,)
    store = await rig.reopen()
    assert await put(store, from_peer(wrong)) == [Merged(2, False)]


async def test_contents_are_listed_once_each_the_latest_first(store: Store, rig: StoreRig) -> None:
    one, same = envelope(1, content=b"same"), envelope(2, content=b"same", path="other")
    late, never = envelope(3, content=b"late", path="late"), envelope(4, content=b"never", path="never")
    await put(store, local(one), local(same))
    await put(store, from_peer(late.notice), from_peer(never.notice))
    await put(store, from_peer(envelope(5, content=b"last", path="last")), from_peer(late))
    async for each in rig.now_and_after_a_restart(store):
        listed = await each.contents(before=99, limit=99)
        assert [(one.sequence, one.is_local) for one in listed] == [(6, False), (5, False), (1, True)]
        assert listed[0] == HeldContent(6, late.content_digest, late.key, False)
        assert listed[2] == HeldContent(1, one.content_digest, one.key, True)
        assert await each.contents(before=6, limit=1) == listed[1:2]
        assert await each.contents(before=1, limit=9) == []
        assert [await each.has_content(e.content_digest) for e in (one, late, never)] == [True, True, False]
