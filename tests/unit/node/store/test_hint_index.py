"""The hint index, compared with plain sets and dicts."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from node.store.hint_index import CHUNK_BITS, HintIndex, SequenceSet

sequences = st.integers(1, 3 * CHUNK_BITS)
holders = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(st.booleans(), sequences)), sequences)
def test_a_sequence_set_is_a_set_in_order(steps: list[tuple[bool, int]], after: int) -> None:
    kept, plain = SequenceSet(), set[int]()
    for is_add, sequence in steps:
        if is_add:
            assert kept.add(sequence) == (sequence not in plain)
            plain.add(sequence)
        else:
            assert kept.discard(sequence) == (sequence in plain)
            plain.discard(sequence)
    assert list(kept.after(0)) == sorted(plain)
    assert list(kept.after(after)) == sorted(each for each in plain if each > after)
    assert kept.count == len(plain)
    assert kept.first() == min(plain, default=None)
    assert all(each in kept for each in plain)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), holders, st.integers(1, 9)),
        st.tuples(st.just("remove"), holders, st.integers(1, 9)),
        st.tuples(st.just("postpone"), holders, st.integers(1, 9), st.integers(1, 50)),
        st.tuples(st.just("quarantine"), holders, st.integers(1, 9)),
        st.tuples(st.just("retry")),
        st.tuples(st.just("drop_holder"), holders),
        st.tuples(st.just("remove_write"), st.integers(1, 9)),
        st.tuples(st.just("due"), holders, st.integers(0, 50)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(steps)
def test_the_index_says_what_a_table_would_say(steps: list[tuple[object, ...]]) -> None:
    index = HintIndex()
    table: dict[tuple[str, int], int | None] = {}
    """By holder and sequence: when it is due, or None in quarantine."""
    for step in steps:
        match step:
            case ("add", str(holder), int(sequence)):
                assert index.add(holder, sequence) == ((holder, sequence) not in table)
                table.setdefault((holder, sequence), 0)
            case ("remove", str(holder), int(sequence)):
                assert index.remove(holder, sequence) == ((holder, sequence) in table)
                table.pop((holder, sequence), None)
            case ("postpone", str(holder), int(sequence), int(due_at)):
                is_pending = table.get((holder, sequence)) is not None
                assert index.postpone(holder, sequence, due_at) == is_pending
                if is_pending:
                    table[holder, sequence] = due_at
            case ("quarantine", str(holder), int(sequence)):
                is_pending = table.get((holder, sequence)) is not None
                assert index.quarantine(holder, sequence) == is_pending
                if is_pending:
                    table[holder, sequence] = None
            case ("retry",):
                refused = sorted(pair for pair, due in table.items() if due is None)
                assert index.retry_quarantined() == refused
                table.update(dict.fromkeys(refused, 0))
            case ("drop_holder", str(holder)):
                assert index.drop_holder(holder) == sorted(sequence for peer, sequence in table if peer == holder)
                table = {pair: due for pair, due in table.items() if pair[0] != holder}
            case ("remove_write", int(sequence)):
                index.remove_write(sequence)
                table = {pair: due for pair, due in table.items() if pair[1] != sequence}
            case ("due", str(holder), int(now)):
                due_now = sorted(
                    sequence
                    for (peer, sequence), due in table.items()
                    if peer == holder and due is not None and due <= now
                )
                assert index.due(holder, after=2, limit=3, now_ms=now) == [each for each in due_now if each > 2][:3]
                table.update({(holder, sequence): 0 for sequence in due_now})
        pending = {pair: due for pair, due in table.items() if due is not None}
        assert index.pending_count() == len(pending)
        assert index.quarantined_count == len(table) - len(pending)
        assert index.oldest_pending() == min((sequence for _, sequence in pending), default=None)
        for holder in "abc":
            mine = [due for (peer, _), due in pending.items() if peer == holder]
            assert index.pending_by_holder().get(holder, 0) == len(mine)
            assert index.next_due(holder) == min(mine, default=None)
        for sequence in range(1, 10):
            assert sorted(index.holders_of(sequence)) == sorted(peer for peer, each in table if each == sequence)
    assert index.oldest(is_refused=None, limit=99) == sorted((sequence, peer) for peer, sequence in table)
    assert index.oldest(is_refused=True, limit=2) == sorted(
        (sequence, peer) for (peer, sequence), due in table.items() if due is None
    )[:2]  # fmt: skip


def test_many_hints_take_little_memory() -> None:
    tracemalloc.start()
    try:
        index = HintIndex()
        for sequence in range(1, 50_001):
            for holder in ("a", "b", "c", "d"):
                index.add(holder, sequence)
        size_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert index.pending_count() == 200_000
    assert size_bytes < 400_000
