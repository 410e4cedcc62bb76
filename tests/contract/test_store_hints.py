"""The contract of every store for hints: which holders have which hints, exactly, at once and after a restart."""

import itertools
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from node.store.base import Store
from node.store.hints import Hint, Pending
from node.store.log import Incoming, Merged, Origin
from protocols.errors import NotFound
from tests.contract.stores import (
    ALICE,
    BOB,
    CAROL,
    NOW,
    StoreRig,
    digests,
    envelope,
    from_peer,
    local,
    put,
)  # fmt: skip


async def test_a_write_has_hints_for_its_holders_and_for_no_other_peer(store: Store, rig: StoreRig) -> None:
    one, two = envelope(1), envelope(2)
    await put(store, local(one, ALICE, BOB), now_ms=NOW)
    await put(store, local(two, BOB), now_ms=NOW + 1)
    async for each in rig.now_and_after_a_restart(store):
        assert each.hint_counts() == {ALICE: 1, BOB: 2}
        assert each.pending() == Pending(3, NOW, 0)
        assert each.next_hint_due(BOB) == 0
        assert each.next_hint_due(CAROL) is None
        assert [hint.digest for hint in await each.due_hints(BOB, now_ms=NOW)] == [one.digest, two.digest]
        (hint,) = await each.due_hints(ALICE, now_ms=NOW)
        assert hint == Hint(
            holder=ALICE, sequence=1, digest=one.digest, key=one.key, address=one.address, attempts=0, next_try_ms=0,
            refusal="", is_refused=False, at_ms=NOW,
        )  # fmt: skip
        assert await each.due_hints(CAROL, now_ms=NOW) == []


async def test_totals_have_the_hints_in_quarantine_too(store: Store, rig: StoreRig) -> None:
    await put(store, local(envelope(1), ALICE, BOB), local(envelope(2), BOB))
    await store.quarantine_hint(ALICE, 1, refusal="no")
    await store.quarantine_hint(BOB, 2, refusal="no")
    each = store
    async for each in rig.now_and_after_a_restart(store):
        assert each.hint_counts() == {BOB: 1}
        assert each.hint_totals() == {ALICE: 1, BOB: 2}
    await each.drop_holder(ALICE)
    assert each.hint_totals() == {BOB: 2}


async def test_a_write_of_a_peer_has_no_hints(store: Store) -> None:
    await put(store, Incoming(envelope(1), Origin.PEER, (ALICE,)), Incoming(envelope(2), Origin.SYNC, (ALICE,)))
    assert store.hint_counts() == {}
    assert await store.local_writes(after=0) == []
    assert await store.standing(digest=envelope(1).digest) is None


async def test_due_hints_are_read_in_pages_and_in_order(store: Store) -> None:
    await put(store, *(local(envelope(version), ALICE) for version in range(1, 21)))
    first = await store.due_hints(ALICE, limit=8, now_ms=NOW)
    assert [hint.sequence for hint in first] == list(range(1, 9))
    assert [hint.sequence for hint in await store.due_hints(ALICE, after=8, limit=100, now_ms=NOW)] == list(
        range(9, 21)
    )


async def test_an_acknowledgement_counts_at_once(store: Store, rig: StoreRig) -> None:
    one, two = envelope(1), envelope(2)
    await put(store, local(one, ALICE, BOB), now_ms=NOW)
    await put(store, local(two, ALICE), now_ms=NOW + 7)
    store.acknowledge(ALICE, [1])
    store.acknowledge(ALICE, [1])
    assert store.hint_counts() == {ALICE: 1, BOB: 1}
    assert [hint.sequence for hint in await store.due_hints(ALICE, now_ms=NOW)] == [2]
    store.acknowledge(BOB, iter([1, 2, 99]))
    assert store.hint_counts() == {ALICE: 1}
    assert store.pending() == Pending(1, NOW + 7, 0)
    async for each in rig.now_and_after_a_restart(store):
        standing = await each.standing(digest=one.digest)
        assert standing is not None
        assert (standing.sequence, standing.digest, standing.wanted, standing.at_ms) == (1, one.digest, 2, NOW)
        assert set(standing.acknowledged) == {ALICE, BOB}
        assert await each.standing(sequence=1) is not None
        assert each.hint_counts() == {ALICE: 1}
        assert [hint.sequence for hint in await each.due_hints(ALICE, now_ms=NOW)] == [2]


async def test_holders_that_have_a_write_get_no_hint_for_it(store: Store) -> None:
    item = envelope(1)
    await put(store, local(item, ALICE, BOB, BOB, acknowledged=(BOB, CAROL)))
    assert store.hint_counts() == {ALICE: 1}
    standing = await store.standing(sequence=1)
    assert standing is not None
    assert set(standing.acknowledged) == {BOB, CAROL}
    assert standing.wanted == 3


async def test_a_local_write_that_is_merged_again_has_hints_for_new_holders_only(store: Store, rig: StoreRig) -> None:
    item = envelope(1)
    await put(store, local(item, ALICE, BOB))
    store.acknowledge(ALICE, [1])
    assert await put(store, local(item, ALICE, BOB, CAROL)) == [Merged(1, False)]
    assert store.hint_counts() == {BOB: 1, CAROL: 1}
    await put(store, local(item, ALICE, acknowledged=(BOB,)))
    async for each in rig.now_and_after_a_restart(store):
        assert each.hint_counts() == {CAROL: 1}
        standing = await each.standing(digest=item.digest)
        assert standing is not None
        assert set(standing.acknowledged) == {ALICE, BOB}
        assert standing.wanted == 3


async def test_a_write_that_a_peer_sent_first_becomes_a_local_one(store: Store, rig: StoreRig) -> None:
    item = envelope(1)
    await put(store, from_peer(item))
    assert await store.standing(digest=item.digest) is None
    assert await put(store, local(item, ALICE, acknowledged=(BOB,))) == [Merged(1, False)]
    async for each in rig.now_and_after_a_restart(store):
        assert each.hint_counts() == {ALICE: 1}
        standing = await each.standing(sequence=1)
        assert standing is not None
        assert (standing.acknowledged, standing.wanted) == ((BOB,), 2)
        assert [change.sequence for change in await each.local_writes(after=0)] == [1]
        assert [hint.digest for hint in await each.due_hints(ALICE, now_ms=NOW)] == [item.digest]


async def test_local_writes_are_the_first_entries_of_versions_written_here(store: Store) -> None:
    items = [envelope(version) for version in range(1, 7)]
    await put(store, *(local(item) if item.version % 2 else from_peer(item) for item in items))
    assert [change.sequence for change in await store.local_writes(after=0)] == [1, 3, 5]
    assert [change.digest for change in await store.local_writes(after=1, limit=1)] == [items[2].digest]


async def test_a_postponed_hint_is_due_at_its_time_and_not_before(store: Store, rig: StoreRig) -> None:
    await put(store, *(local(envelope(version), ALICE) for version in (1, 2)))
    store.postpone_hint(ALICE, 1, next_try_ms=NOW + 500, refusal="your clock is ahead")
    assert [hint.sequence for hint in await store.due_hints(ALICE, now_ms=NOW)] == [2]
    assert store.next_hint_due(ALICE) == 0
    store.acknowledge(ALICE, [2])
    assert store.next_hint_due(ALICE) == NOW + 500
    store.postpone_hint(ALICE, 1, next_try_ms=NOW + 900, refusal="still ahead")
    async for each in rig.now_and_after_a_restart(store):
        assert each.next_hint_due(ALICE) == NOW + 900
        assert each.hint_counts() == {ALICE: 1}
        assert await each.due_hints(ALICE, now_ms=NOW + 899) == []
        (hint,) = await each.hints()
        assert (hint.attempts, hint.next_try_ms, hint.refusal) == (2, NOW + 900, "still ahead")
    (hint,) = await each.due_hints(ALICE, now_ms=NOW + 900)
    assert (hint.sequence, hint.attempts) == (1, 2)
    assert each.pending().count == 1


async def test_postponing_a_hint_that_does_not_exist_does_nothing(store: Store) -> None:
    await put(store, local(envelope(1), ALICE))
    store.postpone_hint(BOB, 1, next_try_ms=NOW, refusal="x")
    store.postpone_hint(ALICE, 2, next_try_ms=NOW, refusal="x")
    store.acknowledge(ALICE, [1])
    store.postpone_hint(ALICE, 1, next_try_ms=NOW, refusal="x")
    await store.quarantine_hint(ALICE, 1, refusal="x")
    assert await store.hints() == []
    assert store.pending() == Pending(0, None, 0)


async def test_a_hint_in_quarantine_is_shown_and_kept_and_not_due(store: Store, rig: StoreRig) -> None:
    await put(store, local(envelope(1), ALICE, BOB), local(envelope(2), ALICE))
    store.postpone_hint(ALICE, 1, next_try_ms=NOW + 1, refusal="first")
    await store.quarantine_hint(ALICE, 1, refusal="the signature is wrong")
    async for each in rig.now_and_after_a_restart(store):
        assert each.pending() == Pending(2, NOW, 1)
        assert each.hint_counts() == {ALICE: 1, BOB: 1}
        assert [hint.sequence for hint in await each.due_hints(ALICE, now_ms=NOW + 10)] == [2]
        (hint,) = await each.hints(is_refused=True)
        assert (hint.holder, hint.sequence, hint.attempts, hint.refusal) == (ALICE, 1, 2, "the signature is wrong")
        assert hint.is_refused
        assert [(hint.sequence, hint.holder) for hint in await each.hints(is_refused=False)] == [(1, BOB), (2, ALICE)]
        assert len(await each.hints()) == 3
        standing = await each.standing(sequence=1)
        assert standing is not None
        assert standing.wanted == 2
    assert await each.retry_quarantined() == 1
    assert await each.retry_quarantined() == 0
    assert each.pending() == Pending(3, NOW, 0)
    assert [hint.sequence for hint in await each.due_hints(ALICE, now_ms=NOW)] == [1, 2]
    assert [hint.sequence for hint in await (await rig.reopen()).due_hints(ALICE, now_ms=NOW)] == [1, 2]


async def test_an_acknowledgement_takes_a_hint_out_of_quarantine(store: Store) -> None:
    await put(store, local(envelope(1), ALICE))
    await store.quarantine_hint(ALICE, 1, refusal="no")
    store.acknowledge(ALICE, [1])
    assert store.pending() == Pending(0, None, 0)
    standing = await store.standing(sequence=1)
    assert standing is not None
    assert standing.acknowledged == (ALICE,)


async def test_hints_are_listed_oldest_first_up_to_a_limit(store: Store) -> None:
    await put(store, *(local(envelope(version), BOB, ALICE) for version in range(1, 6)))
    listed = [(hint.sequence, hint.holder) for hint in await store.hints(limit=3)]
    assert listed == [(1, ALICE), (1, BOB), (2, ALICE)]


async def test_hints_can_be_added_to_local_writes(store: Store, rig: StoreRig) -> None:
    await put(store, local(envelope(1), ALICE), local(envelope(2)), from_peer(envelope(3)), now_ms=NOW)
    store.acknowledge(ALICE, [1])
    hints = [(1, ALICE), (1, BOB), (2, BOB), (2, BOB), (3, BOB), (9, BOB)]
    assert await store.add_hints(hints) == 2
    assert await store.add_hints(hints) == 0
    async for each in rig.now_and_after_a_restart(store):
        assert each.hint_counts() == {BOB: 2}
        assert each.pending() == Pending(2, NOW, 0)
        assert [hint.sequence for hint in await each.due_hints(BOB, now_ms=NOW)] == [1, 2]
        standing = await each.standing(sequence=1)
        assert standing is not None
        assert (standing.acknowledged, standing.wanted) == ((ALICE,), 2)


async def test_a_forgotten_holder_has_no_hints_and_is_not_wanted(store: Store, rig: StoreRig) -> None:
    await put(store, *(local(envelope(version), ALICE, BOB) for version in (1, 2, 3, 4)))
    store.acknowledge(ALICE, [2])
    store.postpone_hint(ALICE, 3, next_try_ms=NOW + 9, refusal="busy")
    await store.quarantine_hint(ALICE, 4, refusal="no")
    assert await store.drop_holder(ALICE) == [1, 3, 4]
    assert await store.drop_holder(ALICE) == []
    async for each in rig.now_and_after_a_restart(store):
        assert each.hint_counts() == {BOB: 4}
        assert each.pending().refused == 0
        assert [hint.holder for hint in await each.hints()] == [BOB] * 4
        wanted = {sequence: await each.standing(sequence=sequence) for sequence in (1, 2)}
        assert wanted[1] is not None
        assert (wanted[1].acknowledged, wanted[1].wanted) == ((), 1)
        assert wanted[2] is not None
        assert (wanted[2].acknowledged, wanted[2].wanted) == ((ALICE,), 2)
    assert await each.add_hints([(1, ALICE)]) == 1


async def test_waiting_for_replication_ends_with_the_acknowledgement_that_completes_it(store: Store) -> None:
    item = envelope(1)
    await put(store, local(item, ALICE, BOB))
    done = trio.Event()

    async def wait() -> None:
        standing = await store.replicated(item.digest, 2)
        assert set(standing.acknowledged) == {ALICE, BOB}
        done.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            store.acknowledge(ALICE, [1])
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set()
            store.acknowledge(BOB, [1])
        assert (await store.replicated(item.digest, 2)).sequence == 1
        assert (await store.replicated(item.digest, 0)).wanted == 2


async def test_waiting_for_the_replication_of_an_old_write_works_after_a_restart(store: Store, rig: StoreRig) -> None:
    item = envelope(1)
    await put(store, local(item, ALICE, BOB))
    store.acknowledge(ALICE, [1])
    store = await rig.reopen()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.replicated, item.digest, 2)
            await trio.testing.wait_all_tasks_blocked()
            store.acknowledge(BOB, [1])


# -- reissuing --------------------------------------------------------------------------------------------------------


async def test_a_reissue_replaces_a_local_write(store: Store, rig: StoreRig) -> None:
    base = envelope(1)
    wrong = envelope(1 << 60, parents=[base.digest])
    right = envelope(5, parents=[base.digest], content=b"again")
    await put(store, from_peer(base), local(wrong, ALICE, BOB))
    store.acknowledge(BOB, [2])
    assert await store.reissue(wrong.digest, right, (ALICE, CAROL), now_ms=NOW + 3) == Merged(3, True)
    assert await store.reissue(wrong.digest, right, (ALICE, CAROL), now_ms=NOW + 4) == Merged(3, False)
    async for each in rig.now_and_after_a_restart(store):
        assert await digests(each, base.key) == [right.digest]
        assert each.hint_counts() == {ALICE: 1, CAROL: 1}
        assert each.latest_version() == 5
        versions = {version.digest: version for version in await each.versions(base.key)}
        assert versions[wrong.digest].reissued_as == right.digest
        assert not versions[wrong.digest].is_head
        for standing in (await each.standing(digest=wrong.digest), await each.standing(sequence=2)):
            assert standing is not None
            assert (standing.sequence, standing.digest, standing.acknowledged, standing.wanted) == (
                3, right.digest, (), 2
            )  # fmt: skip
        assert [change.digest for change in await each.local_writes(after=0)] == [right.digest]
        assert [change.digest for change in await each.log(after=0)] == [base.digest, wrong.digest, right.digest]


async def test_a_reissued_write_is_no_head_and_its_parents_are_none_as_where_it_came_from_a_peer(
    store: Store, rig: StoreRig
) -> None:
    base, late = envelope(1), envelope(2, content=b"late")
    wrong = envelope(1 << 60, parents=sorted([base.digest, late.digest]))
    await put(store, from_peer(base), local(wrong))
    right = envelope(5, parents=[base.digest])
    await store.reissue(wrong.digest, right, (), now_ms=NOW)
    await put(store, from_peer(late), local(wrong, ALICE))
    async for each in rig.now_and_after_a_restart(store):
        assert await digests(each, base.key) == [right.digest]
        assert each.hint_counts() == {}


async def test_waiting_for_a_reissued_write_waits_for_its_reissue(store: Store) -> None:
    wrong, right = envelope(1 << 60), envelope(5)
    await put(store, local(wrong, ALICE))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.replicated, wrong.digest, 1)
            await trio.testing.wait_all_tasks_blocked()
            await store.reissue(wrong.digest, right, (ALICE,), now_ms=NOW)
            await trio.testing.wait_all_tasks_blocked()
            store.acknowledge(ALICE, [2])


async def test_only_local_writes_are_reissued(store: Store) -> None:
    theirs, unknown = envelope(1), envelope(2)
    await put(store, from_peer(theirs))
    for item in (theirs, unknown):
        with pytest.raises(NotFound):
            await store.reissue(item.digest, envelope(9), (), now_ms=NOW)
    assert store.last_sequence == 1


async def test_the_hints_are_those_added_less_those_acknowledged_or_dropped(store: Store, rig: StoreRig) -> None:
    """Every operation in turn, with restarts, compared with the same rule over a set."""
    expected: set[tuple[int, str]] = set()
    operations: Sequence[str] = ["merge", "acknowledge", "add", "drop", "merge", "quarantine", "retry", "postpone"]
    for step, operation in enumerate(itertools.islice(itertools.cycle(operations), 64)):
        last = store.last_sequence
        holder = (ALICE, BOB, CAROL)[step % 3]
        match operation:
            case "merge":
                sequence = (await put(store, local(envelope(step + 1), ALICE, BOB)))[-1].sequence
                expected |= {(sequence, ALICE), (sequence, BOB)}
            case "acknowledge":
                store.acknowledge(holder, [last, last - 1])
                expected -= {(last, holder), (last - 1, holder)}
            case "add":
                await store.add_hints([(1, CAROL), (last, CAROL)])
                for sequence in (1, last):
                    standing = await store.standing(sequence=sequence)
                    assert standing is not None
                    if CAROL not in standing.acknowledged:
                        expected.add((sequence, CAROL))
            case "drop":
                assert await store.drop_holder(holder) == sorted(
                    sequence for sequence, peer in expected if peer == holder
                )
                expected = {(sequence, peer) for sequence, peer in expected if peer != holder}
            case "quarantine":
                await store.quarantine_hint(holder, last, refusal="no")
            case "retry":
                await store.retry_quarantined()
            case "postpone":
                store.postpone_hint(holder, last, next_try_ms=NOW + step, refusal="later")
            case _:
                raise AssertionError(operation)
        if step % 13 == 7:
            store = await rig.reopen()
        assert {(hint.sequence, hint.holder) for hint in await store.hints()} == expected
    assert expected


async def test_acknowledgements_that_are_forgotten_can_be_owed_again(store: Store, rig: StoreRig) -> None:
    await put(store, local(envelope(1), ALICE, BOB), local(envelope(2), ALICE))
    store.acknowledge(ALICE, (1, 2))
    store.acknowledge(BOB, (1,))
    await store.settled()
    assert await store.forget_acknowledged(ALICE) == 2
    assert await store.forget_acknowledged(ALICE) == 0
    async for each in rig.now_and_after_a_restart(store):
        standings = [await each.standing(sequence=sequence) for sequence in (1, 2)]
        assert [(s.acknowledged, s.wanted) for s in standings if s] == [((BOB,), 1), ((), 0)]
        store = each
    assert await store.add_hints([(1, ALICE), (2, ALICE), (1, BOB)]) == 2
    assert store.hint_counts() == {ALICE: 2}


async def test_owed_writes_are_those_with_a_hint_in_their_order_with_their_holders(store: Store, rig: StoreRig) -> None:
    items = [envelope(number, path=str(number)) for number in range(1, 5)]
    await put(store, local(items[0], ALICE, BOB), local(items[1]), from_peer(items[2]), local(items[3], BOB))
    await store.quarantine_hint(BOB, 1, refusal="no")
    store.postpone_hint(BOB, 4, next_try_ms=NOW + 1000, refusal="not now")
    each = store
    async for each in rig.now_and_after_a_restart(store):
        owed = await each.owed_writes(after=0)
        assert [(one.sequence, one.key, set(one.holders)) for one in owed] == [
            (1, items[0].key, {ALICE, BOB}), (4, items[3].key, {BOB}),
        ]  # fmt: skip
        assert (owed[0].address, owed[0].at_ms) == (items[0].address, NOW)
        assert await each.owed_writes(after=0, limit=1) == owed[:1]
        assert await each.owed_writes(after=1) == owed[1:]
        assert await each.owed_writes(after=4) == []
    each.acknowledge(ALICE, [1])
    each.acknowledge(BOB, [4])
    assert [one.holders for one in await each.owed_writes(after=0)] == [(BOB,)]
