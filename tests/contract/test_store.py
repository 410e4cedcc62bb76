"""What every store promises of versions: run over a node's file and over its twin in memory.

The hints are in `test_store_hints.py`, what a failing disk does in `test_store_disks.py`.
"""

import tempfile
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.store.base import Store
from node.store.hints import Pending
from node.store.log import Incoming, Merged, Origin
from node.store.members import Member
from protocols.envelope import Envelope, Notice, order_key
from protocols.errors import NotFound
from protocols.heads import HeadSet
from tests.contract.stores import (
    ALICE,
    AUTHOR,
    BOB,
    CAROL,
    LOG_ID,
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
from tests.notice import notice_of

# -- the one door -----------------------------------------------------------------------------------------------------


async def test_sequences_start_at_one_and_have_no_gap(store: Store) -> None:
    assert store.last_sequence == 0
    items = [envelope(version, path=f"{version}") for version in range(1, 8)]
    merged = await put(store, *map(from_peer, items))
    assert merged == [Merged(sequence, True) for sequence in range(1, 8)]
    assert store.last_sequence == 7
    changes = await store.log(after=0)
    assert [change.sequence for change in changes] == [1, 2, 3, 4, 5, 6, 7]
    assert [change.digest for change in changes] == [item.digest for item in items]


async def test_what_is_merged_twice_is_there_once_and_keeps_its_sequence(store: Store) -> None:
    first, second = envelope(1, path="x"), envelope(2, path="y")
    await put(store, from_peer(first), from_peer(second))
    assert await put(store, from_peer(second), from_peer(first)) == [Merged(2, False), Merged(1, False)]
    assert await put(store, from_peer(first), from_peer(first)) == [Merged(1, False)] * 2
    assert store.last_sequence == 2


async def test_twice_in_one_batch_is_once(store: Store) -> None:
    item = envelope()
    assert await put(store, local(item, ALICE), local(item, BOB), from_peer(item)) == [
        Merged(1, True), Merged(1, False), Merged(1, False),
    ]  # fmt: skip
    assert store.hint_counts() == {ALICE: 1, BOB: 1}


async def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert await put(store) == []
    assert store.last_sequence == 0


async def test_a_change_says_what_and_whence(store: Store) -> None:
    gone = envelope(7, deleted=True)
    await put(store, Incoming(gone, Origin.SYNC), now_ms=NOW + 5)
    (change,) = await store.log(after=0)
    assert change == (1, gone.digest, gone.key, gone.address, 7, AUTHOR.peer_id, True, Origin.SYNC, NOW + 5)


async def test_the_log_is_read_in_pages(store: Store) -> None:
    await put(store, *(from_peer(envelope(version)) for version in range(1, 11)))
    assert [change.sequence for change in await store.log(after=3, limit=4)] == [4, 5, 6, 7]
    assert [change.sequence for change in await store.log(after=8, limit=4)] == [9, 10]
    assert await store.log(after=10) == []


async def test_versions_of_64_bits_keep_their_order(store: Store) -> None:
    items = [envelope(version) for version in (1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)]
    await put(store, *map(from_peer, reversed(items)))
    assert [version.version for version in await store.versions(items[0].key)] == [item.version for item in items]
    assert [head.version for head in await store.heads(items[0].key)] == [item.version for item in reversed(items)]
    assert store.latest_version() == (1 << 64) - 1


async def test_envelopes_come_back_byte_for_byte(store: Store, rig: StoreRig) -> None:
    items = [envelope(1, content=b"\0\xff" * 500), envelope(2, path="big", content=bytes(1_000_000))]
    await put(store, *map(local, items))
    async for each in rig.now_and_after_a_restart(store):
        for item in items:
            found = await each.by_digest(item.digest)
            assert isinstance(found, Envelope)
            assert found.encoded == item.encoded
            assert await digests(each, item.key) == [item.digest]


async def test_versions_and_writes_at_risk_are_measured_as_they_are(store: Store, rig: StoreRig) -> None:
    first, second, known = (envelope(number, path=f"{number}") for number in (1, 2, 3))
    await put(store, local(first, ALICE, BOB), local(second, BOB), from_peer(notice_of(known)))
    await put(store, local(first, ALICE), from_peer(known))  # one was there, the other gets its content: four entries
    assert store.last_sequence == 4
    assert (store.stats().versions, store.stats().at_risk) == (3, 2)
    store.acknowledge(BOB, [1, 2])
    assert store.stats().at_risk == 1
    store.acknowledge(ALICE, [1])
    async for each in rig.now_and_after_a_restart(store):
        assert (each.stats().versions, each.stats().at_risk) == (3, 0)


async def test_what_is_not_there_is_none_or_empty(store: Store) -> None:
    nobody = envelope()
    assert await store.heads(nobody.key) == ()
    assert await store.by_digest(nobody.digest) is None
    assert await store.versions(nobody.key) == []
    assert await store.count_versions(nobody.key) == 0
    assert await store.idempotent("k") is None
    assert await store.standing(digest=nobody.digest) is None
    assert await store.standing(sequence=1) is None
    assert await store.cursor("reader") == 0
    assert await store.local_writes(after=0) == []
    assert store.latest_version() == 0
    assert store.pending() == Pending(0, None, 0)
    assert (store.stats().versions, store.stats().at_risk) == (0, 0)
    assert store.hint_counts() == {}
    assert store.next_hint_due(ALICE) is None
    with pytest.raises(NotFound):
        await store.replicated(nobody.digest, 1)
    # and asking made nothing
    await put(store, from_peer(nobody))
    assert await digests(store, nobody.key) == [nobody.digest]
    assert await store.count_versions(nobody.key) == 1


# -- heads ------------------------------------------------------------------------------------------------------------


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


async def test_two_writers_who_disagree_are_siblings_and_the_later_one_is_first(store: Store) -> None:
    one = envelope(1)
    left = envelope(2, parents=[one.digest], content=b"left")
    right = envelope(3, parents=[one.digest], content=b"right")
    await put(store, from_peer(one), from_peer(right), from_peer(left))
    assert await digests(store, one.key) == [right.digest, left.digest]
    both = envelope(4, parents=[left.digest, right.digest])
    await put(store, from_peer(both))
    assert await digests(store, one.key) == [both.digest]


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


async def test_history_is_in_the_total_order_whatever_the_order_of_arrival(store: Store) -> None:
    items = [envelope(version, author=author) for version in (3, 1, 2) for author in (AUTHOR, OTHER_AUTHOR)]
    await put(store, *map(from_peer, items))
    in_order = sorted(items, key=order_key)
    assert [version.digest for version in await store.versions(items[0].key)] == [item.digest for item in in_order]
    page = await store.versions(items[0].key, after=2, limit=3)
    assert [version.digest for version in page] == [item.digest for item in in_order[2:5]]
    assert await store.count_versions(items[0].key) == 6
    first = page[0]
    assert (first.address, first.content_type, first.size_bytes) == (items[0].address, "text/plain", 1)
    assert first.is_held
    assert first.is_head
    assert first.reissued_as is None


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, Envelope | Notice]]:
    """Versions of two keys by two authors with parents drawn from all of them, some of which reissue another, some
    first as notices (that may lie about the author), in any order."""
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
        items.append(notice_of(item))
    for item in draw(st.lists(st.sampled_from(made), max_size=3)):
        items.append(notice_of(item)._replace(parents=(), author=draw(st.sampled_from([ALICE, item.author]))))
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
                    stand_ins = [
                        item.digest
                        for item in held.values()
                        if version.digest in item.reissues and item.author == version.author
                    ]
                    assert version.reissued_as == min(stand_ins, default=None)
            sequences = [change.sequence for change in await each.log(after=0)]
            assert sequences == list(range(1, each.last_sequence + 1))


async def test_what_its_author_reissued_is_no_head_whichever_is_later_and_comes_first(
    store: Store, rig: StoreRig
) -> None:
    """Somebody took a version of a clock that ran ahead, and the one that stands in for it."""
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
        assert await each.by_digest(ahead.digest) == ahead, "it stays"
    store = await rig.reopen()
    await put(store, from_peer(twice))
    assert await store.latest_reissue(ahead.digest) == twice.digest
    assert await store.latest_reissue(b"?" * 32) == b"?" * 32
    assert await digests(store, ahead.key) == [twice.digest]


async def test_nobody_reissues_what_another_wrote(store: Store, rig: StoreRig) -> None:
    theirs = envelope(1)
    mine = envelope(2, author=OTHER_AUTHOR, reissues=[theirs.digest])
    elsewhere = envelope(2, path="elsewhere", reissues=[theirs.digest])
    await put(store, from_peer(theirs), from_peer(mine), from_peer(elsewhere))
    async for each in rig.now_and_after_a_restart(store):
        assert await digests(each, theirs.key) == [mine.digest, theirs.digest]
        assert await each.latest_reissue(theirs.digest) == theirs.digest


# -- notices ----------------------------------------------------------------------------------------------------------


async def test_a_notice_is_a_version_whose_content_is_elsewhere(store: Store, rig: StoreRig) -> None:
    item = envelope(3, parents=[b"p" * 32])
    notice = notice_of(item)
    await put(store, from_peer(notice))
    async for each in rig.now_and_after_a_restart(store):
        assert await each.heads(item.key) == (notice,)
        assert await each.by_digest(item.digest) == notice
        (version,) = await each.versions(item.key)
        assert not version.is_held
        assert version.is_head
        assert version.parents == (b"p" * 32,)


async def test_content_that_comes_later_fills_a_notice_in_with_an_entry_of_its_own(store: Store, rig: StoreRig) -> None:
    item, other = envelope(3), envelope(1, path="other")
    await put(store, from_peer(notice_of(item)), from_peer(other), now_ms=NOW)
    assert await put(store, Incoming(item, Origin.SYNC), now_ms=NOW + 1) == [Merged(1, True)]
    assert store.last_sequence == 3
    assert await put(store, from_peer(item), from_peer(notice_of(item))) == [Merged(1, False)] * 2
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


async def test_parents_that_were_unknown_end_heads_when_they_become_known(store: Store) -> None:
    one = envelope(1)
    two = envelope(2, parents=[one.digest])
    await put(store, from_peer(one), from_peer(notice_of(two)._replace(parents=())))
    assert await digests(store, one.key) == [two.digest, one.digest]
    await put(store, from_peer(notice_of(two)))
    assert await store.heads(one.key) == (notice_of(two),)
    assert await put(store, from_peer(notice_of(two)._replace(parents=()))) == [Merged(2, False)]
    await put(store, from_peer(two))
    assert await store.heads(one.key) == (two,)


async def test_a_notice_that_lied_is_set_right_by_the_content(store: Store, rig: StoreRig) -> None:
    victim, liked = envelope(1), envelope(1, path="liked")
    real = envelope(2, path="liked", parents=[liked.digest])
    child = envelope(3, path="liked", parents=[real.digest])
    lie = notice_of(real)._replace(
        address=victim.address, key=victim.key, version=9, parents=(victim.digest,), author="12D3KooWLiar", deleted=True
    )  # fmt: skip
    await put(store, from_peer(victim), from_peer(liked), from_peer(lie), from_peer(child))
    assert await digests(store, victim.key) == [real.digest]
    assert set(await digests(store, liked.key)) == {child.digest, liked.digest}
    await put(store, from_peer(real))
    async for each in rig.now_and_after_a_restart(store):
        assert await digests(each, victim.key) == [victim.digest]
        assert await digests(each, liked.key) == [child.digest]
        assert await each.count_versions(victim.key) == 1
        versions = await each.versions(liked.key)
        assert [version.digest for version in versions] == [liked.digest, real.digest, child.digest]
        assert versions[1].author == AUTHOR.peer_id
        assert not versions[1].deleted


# -- names, clocks, cursors, waiting ----------------------------------------------------------------------------------


async def test_an_idempotency_key_leads_to_what_was_merged_first_under_it(store: Store, rig: StoreRig) -> None:
    one, two = envelope(1), envelope(2)
    await put(store, local(one, key="request-7"))
    await put(store, local(two, key="request-7"))
    async for each in rig.now_and_after_a_restart(store):
        assert await each.idempotent("request-7") == one.digest


async def test_an_idempotency_key_is_forgotten_after_a_day_and_not_before(store: Store) -> None:
    hour = 3600 * 1000
    await put(store, local(envelope(1), key="old"), now_ms=NOW)
    await put(store, local(envelope(2), key="newer"), now_ms=NOW + 2 * hour)
    assert await store.idempotent("old") is not None
    await put(store, local(envelope(3), key="newest"), now_ms=NOW + 25 * hour)
    assert await store.idempotent("old") is None
    assert await store.idempotent("newer") is not None


async def test_the_latest_version_outlives_a_restart(store: Store, rig: StoreRig) -> None:
    await put(store, from_peer(envelope(1 << 50)), from_peer(envelope(1 << 40, path="other")))
    assert store.latest_version() == 1 << 50
    assert (await rig.reopen()).latest_version() == 1 << 50


async def test_the_log_id_is_the_one_it_was_made_with(store: Store, rig: StoreRig) -> None:
    assert store.log_id == LOG_ID
    assert (await rig.reopen()).log_id == LOG_ID


async def test_everybody_who_waits_for_the_log_to_grow_is_woken(store: Store) -> None:
    wait_until_grown: list[tuple[int, int]] = []

    async def wait(after: int) -> None:
        wait_until_grown.append((after, await store.wait_until_grown(after)))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for after in (0, 0, 1, 2):
                nursery.start_soon(wait, after)
            await trio.testing.wait_all_tasks_blocked()
            await put(store, from_peer(envelope(1)))
            await put(store, from_peer(envelope(2)), from_peer(envelope(3)))
    assert sorted(after for after, _ in wait_until_grown) == [0, 0, 1, 2]
    assert all(last > after for after, last in wait_until_grown)
    assert await store.wait_until_grown(2) == 3


async def test_what_is_merged_again_wakes_nobody(store: Store) -> None:
    await put(store, from_peer(envelope(1)))
    with trio.move_on_after(0.05) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.wait_until_grown, 1)
            await put(store, from_peer(envelope(1)))
    assert scope.cancelled_caught


async def test_cursors_are_kept_by_name(store: Store, rig: StoreRig) -> None:
    await store.set_cursor("index", 5)
    await store.set_cursor("watch", 2)
    await store.set_cursor("index", 9)
    assert await store.cursor("index") == 9
    store = await rig.reopen()
    assert [await store.cursor(name) for name in ("index", "watch", "other")] == [9, 2, 0]


# -- staged envelopes -------------------------------------------------------------------------------------------------


async def test_a_staged_envelope_is_kept_and_is_no_version(store: Store, rig: StoreRig) -> None:
    item = envelope(1)
    await store.stage(item, idempotency_key="wish", now_ms=NOW)
    await store.stage(item, idempotency_key="wish", now_ms=NOW)
    async for each in rig.now_and_after_a_restart(store):
        staged = await each.staged_under("wish")
        assert staged is not None
        assert staged.encoded == item.encoded
        assert await each.heads(item.key) == ()
        assert await each.by_digest(item.digest) is None
        assert await each.versions(item.key) == []
        assert each.last_sequence == 0
        assert each.latest_version() == 0


async def test_a_staged_envelope_that_is_merged_is_staged_no_longer(store: Store, rig: StoreRig) -> None:
    one, two, three = envelope(1), envelope(2), envelope(3)
    for item in (one, two, three):
        await store.stage(item, idempotency_key=str(item.version), now_ms=NOW)
    await put(store, local(one), from_peer(notice_of(three)))
    await store.unstage(two.digest)
    assert await store.staged_under("3") is not None, "a notice does not bring its content"
    await put(store, from_peer(three))
    await store.stage(one, idempotency_key="1", now_ms=NOW)
    async for each in rig.now_and_after_a_restart(store):
        assert [await each.staged_under(key) for key in "123"] == [None, None, None]


async def test_a_staged_envelope_is_found_by_its_idempotency_key(store: Store, rig: StoreRig) -> None:
    wish, other = envelope(1), envelope(2)
    await store.stage(wish, idempotency_key="wish", now_ms=NOW)
    await store.stage(other, now_ms=NOW)
    async for each in rig.now_and_after_a_restart(store):
        assert await each.staged_under("wish") == wish
        assert await each.staged_under("another") is None
        assert await each.idempotent("wish") is None, "nothing was merged under it"
    store = await rig.reopen()
    await put(store, local(wish, key="wish"))
    assert await store.staged_under("wish") is None
    assert await store.idempotent("wish") == wish.digest


async def test_what_was_staged_is_forgotten_after_a_day_and_not_before(store: Store, rig: StoreRig) -> None:
    hour = 3600 * 1000
    for number, hours in ((1, 0), (2, 2), (3, 25)):
        await store.stage(envelope(number), idempotency_key=str(number), now_ms=NOW + hours * hour)
        assert await store.staged_under(str(number)) is not None
    async for each in rig.now_and_after_a_restart(store):
        assert [await each.staged_under(key) is not None for key in "123"] == [False, True, True]


async def test_once_a_store_has_settled_what_was_handed_in_before_is_committed(store: Store, rig: StoreRig) -> None:
    turn_disk = rig.stall_disk()
    is_settled = trio.Event()

    async def settle() -> None:
        await store.settled()
        is_settled.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, store, local(envelope(1)))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(settle)
        await trio.testing.wait_all_tasks_blocked()
        assert not is_settled.is_set()
        turn_disk()
        await is_settled.wait()
        assert await store.by_digest(envelope(1).digest) is not None


# -- members and providers --------------------------------------------------------------------------------------------


async def test_members_are_remembered_by_peer_id(store: Store, rig: StoreRig) -> None:
    bob = Member(
        peer=BOB, name="bob", addresses=("/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"), first_seen_ms=1,
        last_seen_ms=2, labels={"zone": "west", "gpu": "2"},
    )  # fmt: skip
    alice = Member(peer=ALICE, name="alice", addresses=(), first_seen_ms=3, last_seen_ms=4)
    await store.save_member(bob)
    await store.save_member(alice)
    await store.save_member(Member(peer=CAROL, name="c", addresses=(), first_seen_ms=1, last_seen_ms=1))
    later = Member(peer=ALICE, name="alice 2", addresses=("/ip4/127.0.0.1/tcp/3",), first_seen_ms=3, last_seen_ms=9)
    await store.save_member(later)
    await store.forget_member(CAROL)
    await store.forget_member("12D3KooWNobody")
    async for each in rig.now_and_after_a_restart(store):
        assert each.members() == (later, bob)


async def test_providers_are_remembered_until_they_expire(store: Store, rig: StoreRig) -> None:
    key, other = envelope(1).key, envelope(1, path="other").key
    await store.provide(key, BOB, expires_ms=NOW + 10)
    await store.provide(key, ALICE, expires_ms=NOW + 20)
    await store.provide(other, CAROL, expires_ms=NOW + 20)
    await store.provide(key, BOB, expires_ms=NOW + 15)
    async for each in rig.now_and_after_a_restart(store):
        assert await each.providers(key, now_ms=NOW + 14) == [ALICE, BOB]
        assert await each.providers(key, now_ms=NOW + 15) == [ALICE]
        assert await each.providers(key, now_ms=NOW + 20) == []


# -- who is told at once ----------------------------------------------------------------------------------------------


async def test_a_follower_is_told_of_each_key_that_changed_before_the_merge_returns(store: Store) -> None:
    told: list[bytes] = []
    one, other = envelope(1, path="x"), envelope(2, path="y")
    child = envelope(3, path="x", parents=(one.digest,))
    with store.change_listeners.subscribed(told.append):
        await put(store, from_peer(child), local(other, ALICE))
        assert set(told) == {one.key, other.key}
        told.clear()
        await put(store, from_peer(one))
        assert set(told) == {one.key}, "no head, and still a version that was not there"
        told.clear()
        await put(store, from_peer(one), local(other, BOB))
        assert told == [], "nothing that a reader could see is other"
    await put(store, from_peer(envelope(4, path="x")))
    assert told == [], "who has left is told nothing"


async def test_a_follower_is_told_when_more_is_known_of_a_version_and_when_one_is_replaced(store: Store) -> None:
    told: list[bytes] = []
    item, wrong = envelope(1, path="x"), envelope(5, path="y")
    await put(store, from_peer(notice_of(item)), local(wrong, ALICE))
    with store.change_listeners.subscribed(told.append):
        await put(store, from_peer(item))
        assert set(told) == {item.key}
        told.clear()
        await store.reissue(wrong.digest, envelope(2, path="y"), (ALICE,), now_ms=NOW)
        assert set(told) == {wrong.key}
