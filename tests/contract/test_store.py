"""The contract of every store for merging and the log: run over SQLite and over memory.

Versions, hints, staged envelopes, members and failing disks have files of their own.
"""

import pytest
import trio
import trio.testing

from node.store.base import Store
from node.store.hints import Pending
from node.store.log import Incoming, Merged, Origin
from protocols.envelope import Envelope
from protocols.errors import NotFound
from protocols.log_lineage import LogPosition
from tests.contract.stores import (
    ALICE,
    AUTHOR,
    BOB,
    LOG_ID,
    NOW,
    StoreRig,
    digests,
    envelope,
    from_peer,
    local,
    put,
)  # fmt: skip

# -- merging -----------------------------------------------------------------------------------------------------------


async def test_sequences_start_at_one_and_have_no_gap(store: Store) -> None:
    assert store.last_sequence == 0
    items = [envelope(version, path=f"{version}") for version in range(1, 8)]
    merged = await put(store, *map(from_peer, items))
    assert merged == [Merged(sequence, True) for sequence in range(1, 8)]
    assert store.last_sequence == 7
    changes = await store.log(after=0)
    assert [change.sequence for change in changes] == [1, 2, 3, 4, 5, 6, 7]
    assert [change.digest for change in changes] == [item.digest for item in items]


async def test_a_version_that_is_merged_twice_is_there_once_and_keeps_its_sequence(store: Store) -> None:
    first, second = envelope(1, path="x"), envelope(2, path="y")
    await put(store, from_peer(first), from_peer(second))
    assert await put(store, from_peer(second), from_peer(first)) == [Merged(2, False), Merged(1, False)]
    assert await put(store, from_peer(first), from_peer(first)) == [Merged(1, False)] * 2
    assert store.last_sequence == 2


async def test_a_version_that_is_twice_in_a_batch_is_there_once(store: Store) -> None:
    item = envelope()
    assert await put(store, local(item, ALICE), local(item, BOB), from_peer(item)) == [
        Merged(1, True), Merged(1, False), Merged(1, False),
    ]  # fmt: skip
    assert store.hint_counts() == {ALICE: 1, BOB: 1}


async def test_an_empty_batch_changes_nothing(store: Store) -> None:
    assert await put(store) == []
    assert store.last_sequence == 0


async def test_a_change_names_the_version_and_its_origin(store: Store) -> None:
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
    await put(store, local(first, ALICE, BOB), local(second, BOB), from_peer(known.notice))
    await put(store, local(first, ALICE), from_peer(known))  # a fourth entry: the content of `known`
    assert store.last_sequence == 4
    assert (store.stats().versions, store.stats().at_risk) == (3, 2)
    store.acknowledge(BOB, [1, 2])
    assert store.stats().at_risk == 1
    store.acknowledge(ALICE, [1])
    async for each in rig.now_and_after_a_restart(store):
        assert (each.stats().versions, each.stats().at_risk) == (3, 0)


async def test_reads_of_an_unknown_version_answer_none_or_nothing(store: Store) -> None:
    unknown = envelope()
    assert await store.heads(unknown.key) == ()
    assert await store.by_digest(unknown.digest) is None
    assert await store.versions(unknown.key) == []
    assert await store.count_versions(unknown.key) == 0
    assert await store.idempotent("k") is None
    assert await store.standing(digest=unknown.digest) is None
    assert await store.standing(sequence=1) is None
    assert await store.cursor("reader") == 0
    assert await store.local_writes(after=0) == []
    assert store.latest_version() == 0
    assert store.pending() == Pending(0, None, 0)
    assert (store.stats().versions, store.stats().at_risk) == (0, 0)
    assert store.hint_counts() == {}
    assert store.next_hint_due(ALICE) is None
    with pytest.raises(NotFound):
        await store.replicated(unknown.digest, 1)
    # and the reads left nothing behind
    await put(store, from_peer(unknown))
    assert await digests(store, unknown.key) == [unknown.digest]
    assert await store.count_versions(unknown.key) == 1


async def test_once_a_store_has_settled_the_earlier_submissions_are_committed(store: Store, rig: StoreRig) -> None:
    resume_disk = rig.stall_disk()
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
        resume_disk()
        await is_settled.wait()
        assert await store.by_digest(envelope(1).digest) is not None


# -- idempotency, the clock, cursors, waiting --------------------------------------------------------------------------


async def test_an_idempotency_key_finds_the_version_that_was_merged_first_under_it(store: Store, rig: StoreRig) -> None:
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


async def test_each_run_has_a_log_and_the_entries_of_former_ones_keep_their_log(store: Store, rig: StoreRig) -> None:
    assert (store.log_id, store.former_logs) == (LOG_ID, ())
    await put(store, from_peer(envelope(1)), from_peer(envelope(2)))
    assert store.log_of(1) == LOG_ID
    store = await rig.reopen("a" * 16)
    store = await rig.reopen("b" * 16)
    assert (store.log_id, store.former_logs) == ("b" * 16, (LogPosition(LOG_ID, 2), LogPosition("a" * 16, 2)))
    await put(store, from_peer(envelope(3)))
    assert [store.log_of(sequence) for sequence in (1, 2, 3)] == [LOG_ID, LOG_ID, "b" * 16]


async def test_every_task_that_waits_for_the_log_to_grow_is_woken(store: Store) -> None:
    woken: list[tuple[int, int]] = []

    async def wait(after: int) -> None:
        woken.append((after, await store.wait_until_grown(after)))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for after in (0, 0, 1, 2):
                nursery.start_soon(wait, after)
            await trio.testing.wait_all_tasks_blocked()
            await put(store, from_peer(envelope(1)))
            await put(store, from_peer(envelope(2)), from_peer(envelope(3)))
    assert sorted(after for after, _ in woken) == [0, 0, 1, 2]
    assert all(last > after for after, last in woken)
    assert await store.wait_until_grown(2) == 3


async def test_a_version_that_is_merged_again_wakes_no_task(store: Store) -> None:
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


async def test_a_cursor_that_was_dropped_begins_anew(store: Store, rig: StoreRig) -> None:
    for name in ("owed/1", "owed/2", "watch"):
        await store.set_cursor(name, 5)
    store = await rig.reopen()
    await store.set_cursor("owed/3", 1)
    for name in ("owed/1", "owed/3", "owed/4"):
        await store.drop_cursor(name)
    async for each in rig.now_and_after_a_restart(store):
        assert sorted(each.cursor_names("owed/")) == ["owed/2"]
        assert [await each.cursor(name) for name in ("owed/1", "owed/2", "owed/3", "watch")] == [0, 5, 0, 5]
        store = each
    await store.drop_cursor("owed/2")
    await store.set_cursor("owed/2", 7)
    assert await (await rig.reopen()).cursor("owed/2") == 7


# -- change listeners --------------------------------------------------------------------------------------------------


async def test_a_listener_gets_each_key_that_changed_before_the_merge_returns(store: Store) -> None:
    keys: list[bytes] = []
    one, other = envelope(1, path="x"), envelope(2, path="y")
    child = envelope(3, path="x", parents=(one.digest,))
    with store.change_listeners.subscribed(keys.append):
        await put(store, from_peer(child), local(other, ALICE))
        assert set(keys) == {one.key, other.key}
        keys.clear()
        await put(store, from_peer(one))
        assert set(keys) == {one.key}, "not a head, but a new version"
        keys.clear()
        await put(store, from_peer(one), local(other, BOB))
        assert keys == [], "no reader could see a difference"
    await put(store, from_peer(envelope(4, path="x")))
    assert keys == [], "it is not subscribed any more"


async def test_a_listener_gets_the_key_when_content_comes_and_when_a_version_is_reissued(store: Store) -> None:
    keys: list[bytes] = []
    item, wrong = envelope(1, path="x"), envelope(5, path="y")
    await put(store, from_peer(item.notice), local(wrong, ALICE))
    with store.change_listeners.subscribed(keys.append):
        await put(store, from_peer(item))
        assert set(keys) == {item.key}
        keys.clear()
        await store.reissue(wrong.digest, envelope(2, path="y"), (ALICE,), now_ms=NOW)
        assert set(keys) == {wrong.key}
