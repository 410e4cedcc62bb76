"""The contract of every store when its disk fails, hangs or is slow, and when many callers write at once."""

import errno
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from node.store.base import Store
from node.store.errors import CommitLate
from node.store.log import Incoming, Merged
from node.store.members import Member
from protocols.envelope import Envelope
from protocols.errors import StorageFull, Unavailable
from tests.contract.stores import ALICE, BOB, CAROL, NOW, StoreRig, digests, envelope, from_peer, local, put
from tests.until import until

Write = Callable[[Store], Awaitable[Any]]


async def put_in_background(store: Store, *incoming: Incoming) -> list[Merged]:
    """Like `put`, through `merge_in_background`."""
    results: list[list[Merged] | BaseException] = []
    is_done = trio.Event()

    def on_done(result: list[Merged] | BaseException) -> None:
        results.append(result)
        is_done.set()

    store.merge_in_background(incoming, now_ms=NOW, peer=ALICE, on_done=on_done)
    await is_done.wait()
    (merged,) = results
    if isinstance(merged, BaseException):
        raise merged
    return merged


WRITES: dict[str, Write] = {
    "merge": lambda store: put(store, local(envelope(9), BOB, key="k9")),
    "merge_in_background": lambda store: put_in_background(store, local(envelope(9), BOB)),
    "reissue": lambda store: store.reissue(envelope(1).digest, envelope(9), (BOB,), now_ms=NOW),
    "quarantine_hint": lambda store: store.quarantine_hint(ALICE, 1, refusal="no"),
    "retry_quarantined": lambda store: store.retry_quarantined(),
    "add_hints": lambda store: store.add_hints([(1, CAROL)]),
    "drop_holder": lambda store: store.drop_holder(ALICE),
    "stage": lambda store: store.stage(envelope(9), idempotency_key="s9", now_ms=NOW),
    "unstage": lambda store: store.unstage(envelope(7).digest),
    "save_member": lambda store: store.save_member(
        Member(peer=BOB, name="b", addresses=(), first_seen_ms=1, last_seen_ms=1)
    ),
    "forget_member": lambda store: store.forget_member(ALICE),
}  # fmt: skip


async def everything(store: Store) -> list[Any]:
    """Everything that a store shows."""
    key = envelope(1).key
    return [
        await store.heads(key), await store.versions(key), await store.log(after=0), await store.local_writes(after=0),
        await store.hints(), store.hint_counts(), store.pending(), store.last_sequence, store.latest_version(),
        await store.standing(sequence=1), await store.standing(digest=envelope(9).digest), await store.idempotent("k9"),
        await store.by_digest(envelope(9).digest), await store.staged_under("s9"),
        await store.staged_under("s7"), store.members(), await store.contents(before=99, limit=99),
        await store.due_hints(ALICE, now_ms=NOW), store.next_hint_due(ALICE), store.next_hint_due(CAROL),
    ]  # fmt: skip


async def furnish(store: Store) -> None:
    await put(store, local(envelope(1), ALICE, CAROL), local(envelope(2), ALICE))
    store.acknowledge(CAROL, [1])
    await store.quarantine_hint(ALICE, 2, refusal="before")
    await store.stage(envelope(7), idempotency_key="s7", now_ms=NOW)
    await store.save_member(Member(peer=ALICE, name="a", addresses=(), first_seen_ms=1, last_seen_ms=1))


async def test_a_store_settles_on_a_full_disk_too(store: Store, rig: StoreRig) -> None:
    rig.break_disk(OSError(errno.ENOSPC, "No space left on device"))
    await store.settled()


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), StorageFull), (OSError(errno.EIO, "broken"), Unavailable)],
    ids=["full", "broken"],
)
async def test_a_write_that_fails_leaves_nothing_and_works_when_the_disk_does(
    name: str, error: OSError, raised: type[Exception], store: Store, rig: StoreRig
) -> None:
    await furnish(store)
    before = await everything(store)
    rig.break_disk(error)
    with pytest.raises(raised) as failed:
        await WRITES[name](store)
    assert str(error.strerror) in failed.value.details["reason"]  # type: ignore[attr-defined]
    assert store.last_failure
    assert await everything(store) == before
    rig.mend_disk()
    await WRITES[name](store)
    assert store.last_failure == ""
    after = await everything(store)
    if name not in ("add_hints",):
        assert after != before
    if rig.kind == "sqlite":
        assert await everything(await rig.reopen()) == after


async def test_a_failed_commit_fails_every_caller_in_it(store: Store, rig: StoreRig) -> None:
    go_on = rig.stall_disk()
    failed: list[int] = []

    async def write(version: int) -> None:
        with pytest.raises(StorageFull):
            await put(store, local(envelope(version), ALICE))
        failed.append(version)

    await put_soon(store, envelope(1), rig)
    async with trio.open_nursery() as nursery:
        for version in range(2, 12):
            nursery.start_soon(write, version)
        await trio.testing.wait_all_tasks_blocked(0.01)
        go_on()
        rig.break_disk(OSError(errno.ENOSPC, "full"))
    assert sorted(failed) == list(range(2, 12))
    rig.mend_disk()
    assert (await put(store, local(envelope(20))))[-1].sequence == 2


async def put_soon(store: Store, item: Envelope, rig: StoreRig) -> None:
    """Submit a write, and go on when its commit hangs on the stalled disk."""

    async def write() -> None:
        await put(store, local(item))

    rig.nursery.start_soon(write)
    await until(lambda: rig.is_stalled)


async def test_acknowledgements_are_not_lost_by_a_commit_that_fails(store: Store, rig: StoreRig) -> None:
    await put(store, local(envelope(1), ALICE, BOB))
    rig.break_disk(OSError(errno.ENOSPC, "full"))
    store.acknowledge(ALICE, [1])
    store.postpone_hint(BOB, 1, next_try_ms=NOW + 5, refusal="later")
    await store.set_cursor("reader", 1)
    with pytest.raises(StorageFull):
        await put(store, local(envelope(2), ALICE))
    assert store.hint_counts() == {BOB: 1}
    rig.mend_disk()
    await put(store, local(envelope(3)))
    store = await rig.reopen()
    assert store.hint_counts() == {BOB: 1}
    assert store.next_hint_due(BOB) == NOW + 5
    assert await store.cursor("reader") == 1
    standing = await store.standing(sequence=1)
    assert standing is not None
    assert standing.acknowledged == (ALICE,)


async def test_nothing_is_seen_before_it_is_committed_and_reads_go_on_meanwhile(store: Store, rig: StoreRig) -> None:
    base = envelope(1)
    await put(store, local(base, ALICE))
    before = await everything(store)
    go_on = rig.stall_disk()
    child = envelope(9, parents=[base.digest])
    await put_soon(store, child, rig)
    assert await everything(store) == before
    assert [hint.sequence for hint in await store.due_hints(ALICE, now_ms=NOW)] == [1]
    store.acknowledge(ALICE, [1])
    assert store.hint_counts() == {}
    go_on()
    assert await store.wait_until_grown(1) == 2
    assert await digests(store, base.key) == [child.digest]


async def test_a_merge_that_is_late_raises_at_its_deadline_and_may_still_appear(store: Store, rig: StoreRig) -> None:
    go_on = rig.stall_disk()
    started, late = trio.current_time(), envelope(1)

    async def write(item: Envelope, seconds: float) -> None:
        with pytest.raises(CommitLate):
            await store.merge([local(item)], now_ms=NOW, deadline=started + seconds)
        assert trio.current_time() >= started + seconds

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, late, 0.1)
        nursery.start_soon(write, envelope(2), 0.05)  # the earlier deadline comes second
    assert store.last_sequence == 0
    go_on()
    await until(lambda: store.last_sequence == 2)
    assert (await store.merge([local(late)], now_ms=NOW, deadline=trio.current_time() + 30.0))[0].is_new is False


async def test_a_cancelled_waiter_does_not_affect_the_others(store: Store, rig: StoreRig) -> None:
    go_on = rig.stall_disk()
    await put_soon(store, envelope(1), rig)
    merged: dict[int, Merged] = {}

    async def write(version: int) -> None:
        (merged[version],) = await put(store, local(envelope(version), ALICE))

    async with trio.open_nursery() as nursery:
        for version in (2, 3):
            nursery.start_soon(write, version)
        with trio.move_on_after(0.02):
            await write(4)
        for version in (5, 6):
            nursery.start_soon(write, version)
        await trio.testing.wait_all_tasks_blocked(0.01)
        go_on()
    assert sorted(merged) == [2, 3, 5, 6]
    for version, (sequence, is_new) in merged.items():
        assert is_new
        (change,) = await store.log(after=sequence - 1, limit=1)
        assert change.version == version
    sequences = [change.sequence for change in await store.log(after=0)]
    assert sequences == list(range(1, store.last_sequence + 1)), "the cancelled one may be there, or not"


async def test_many_writers_at_once_get_a_sequence_each(store: Store) -> None:
    got: list[int] = []

    async def write(number: int) -> None:
        for version in range(1, 6):
            ((sequence, _),) = await put(store, local(envelope(version, path=f"{number}"), ALICE))
            got.append(sequence)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(write, number)
    assert sorted(got) == list(range(1, 201))
    assert store.hint_counts() == {ALICE: 200}


async def test_writes_submitted_before_the_end_are_committed(store: Store, rig: StoreRig) -> None:
    merged: list[Merged] = []

    async def write() -> None:
        merged.extend(await put(store, local(envelope(1), ALICE)))
        store.acknowledge(ALICE, [1])

    rig.nursery.start_soon(write)
    await trio.testing.wait_all_tasks_blocked()
    await until(lambda: merged)
    store = await rig.reopen()
    assert store.last_sequence == 1
    assert store.hint_counts() == {}


async def test_a_reader_never_sees_a_key_go_back(store: Store, rig: StoreRig) -> None:
    """Promise 4: readers and writers of one key at once, its heads are not in memory at first."""
    key = envelope(1).key
    await put(store, from_peer(envelope(1)))
    store = await rig.reopen()
    stop = trio.Event()

    async def read() -> None:
        latest = 0
        while not stop.is_set():
            (head,) = await store.heads(key)
            assert head.version >= latest
            latest = head.version
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(read)
        parent = envelope(1)
        for version in range(2, 60):
            child = envelope(version, parents=[parent.digest])
            await put(store, from_peer(child))
            assert await digests(store, key) == [child.digest], "a caller whose write is confirmed reads it"
            parent = child
        stop.set()
