"""Debts, against plain sets."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from node.store.hint_index import CHUNK_BITS, HintIndex, SequenceSet

sequences = st.integers(1, 3 * CHUNK_BITS)
holders = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(st.booleans(), sequences)), sequences)
def test_sequences_are_a_set_in_order(steps: list[tuple[bool, int]], after: int) -> None:
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
    assert len(kept) == len(plain)
    assert kept.first() == min(plain, default=None)
    assert all(each in kept for each in plain)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), holders, st.integers(1, 9)),
        st.tuples(st.just("remove"), holders, st.integers(1, 9)),
        st.tuples(st.just("park"), holders, st.integers(1, 9), st.integers(1, 50)),
        st.tuples(st.just("refuse"), holders, st.integers(1, 9)),
        st.tuples(st.just("retry")),
        st.tuples(st.just("release"), holders),
        st.tuples(st.just("remove_all"), st.integers(1, 9)),
        st.tuples(st.just("pick"), holders, st.integers(0, 50)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(steps)
def test_debts_are_what_a_table_would_say(steps: list[tuple[object, ...]]) -> None:
    debts = HintIndex()
    table: dict[tuple[str, int], int | None] = {}
    """By holder and sequence: when it is due, or None in quarantine."""
    for step in steps:
        match step:
            case ("add", str(holder), int(sequence)):
                assert debts.add(holder, sequence) == ((holder, sequence) not in table)
                table.setdefault((holder, sequence), 0)
            case ("remove", str(holder), int(sequence)):
                assert debts.remove(holder, sequence) == ((holder, sequence) in table)
                table.pop((holder, sequence), None)
            case ("park", str(holder), int(sequence), int(due)):
                is_payable = table.get((holder, sequence)) is not None
                assert debts.park(holder, sequence, due) == is_payable
                if is_payable:
                    table[holder, sequence] = due
            case ("refuse", str(holder), int(sequence)):
                is_payable = table.get((holder, sequence)) is not None
                assert debts.refuse(holder, sequence) == is_payable
                if is_payable:
                    table[holder, sequence] = None
            case ("retry",):
                refused = sorted(pair for pair, due in table.items() if due is None)
                assert debts.retry_quarantined() == refused
                table.update(dict.fromkeys(refused, 0))
            case ("release", str(holder)):
                assert debts.release(holder) == sorted(sequence for who, sequence in table if who == holder)
                table = {pair: due for pair, due in table.items() if pair[0] != holder}
            case ("remove_all", int(sequence)):
                assert debts.remove_all(sequence) == sorted(who for who, each in table if each == sequence)
                table = {pair: due for pair, due in table.items() if pair[1] != sequence}
            case ("pick", str(holder), int(now)):
                due_now = sorted(
                    sequence
                    for (who, sequence), due in table.items()
                    if who == holder and due is not None and due <= now
                )
                assert debts.pick(holder, after=2, limit=3, now_ms=now) == [each for each in due_now if each > 2][:3]
                table.update({(holder, sequence): 0 for sequence in due_now})
        payable = {pair: due for pair, due in table.items() if due is not None}
        assert debts.count() == len(payable)
        assert debts.refused == len(table) - len(payable)
        assert debts.oldest() == min((sequence for _, sequence in payable), default=None)
        for holder in "abc":
            mine = [due for (who, _), due in payable.items() if who == holder]
            assert debts.hint_counts().get(holder, 0) == len(mine)
            assert debts.next_due(holder) == min(mine, default=None)
        for sequence in range(1, 10):
            assert sorted(debts.holders_of(sequence)) == sorted(who for who, each in table if each == sequence)
    assert debts.listed(is_refused=None, limit=99) == sorted((sequence, who) for who, sequence in table)
    assert debts.listed(is_refused=True, limit=2) == sorted(
        (sequence, who) for (who, sequence), due in table.items() if due is None
    )[:2]  # fmt: skip


def test_many_debts_take_little_memory() -> None:
    tracemalloc.start()
    try:
        debts = HintIndex()
        for sequence in range(1, 50_001):
            for holder in ("a", "b", "c", "d"):
                debts.add(holder, sequence)
        size_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert debts.count() == 200_000
    assert size_bytes < 400_000
