"""Heads: whatever the order of arrival, the same versions give the same heads."""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from protocols.heads import AddedVersion, HeadSet


class Seen(NamedTuple):
    digest: bytes
    version: int
    parents: tuple[bytes, ...]
    author: str = ""
    reissues: tuple[bytes, ...] = ()


def digest(name: int | str) -> bytes:
    return sha256(str(name).encode()).digest()


@st.composite
def histories(draw: st.DrawFn) -> list[Seen]:
    """Versions of one key by writers of whom some lie: few version numbers, so that many are shared (equivocation);
    parents of any age, so that edges are void, go in circles or name what nobody holds."""
    count = draw(st.integers(1, 8))
    edges = st.lists(st.integers(0, count + 1), max_size=3, unique=True)
    return [
        Seen(
            digest(name), draw(st.integers(1, 4)), tuple(map(digest, draw(edges))), draw(st.sampled_from("ab")),
            tuple(map(digest, draw(st.lists(st.integers(0, count + 1).filter(name.__ne__), max_size=2, unique=True)))),
        )
        for name in range(count)
    ]  # fmt: skip


def add(lineage: HeadSet, seen: Seen) -> AddedVersion:
    return lineage.add(seen.digest, seen.version, seen.parents, author=seen.author, reissues=seen.reissues)


def merged(*parts: Iterable[Seen]) -> HeadSet:
    lineage = HeadSet()
    for part in parts:
        for seen in part:
            add(lineage, seen)
    return lineage


def heads_by_the_rule(history: list[Seen]) -> set[bytes]:
    """The rule of `docs/protocol.md` as it is written, and that of reissues, over everything at once."""
    return {
        one.digest
        for one in history
        if not any(one.digest in other.parents and other.version > one.version for other in history)
        and not any(one.digest in other.reissues and other.author == one.author for other in history)
    }


@given(histories())
def test_heads_are_the_versions_that_no_later_one_names(history: list[Seen]) -> None:
    assert set(merged(history).heads()) == heads_by_the_rule(history)


@given(st.data(), histories())
def test_merge_is_commutative(data: st.DataObject, history: list[Seen]) -> None:
    shuffled = data.draw(st.permutations(history))
    assert merged(shuffled).heads() == merged(history).heads()


@given(st.data(), histories())
def test_merge_is_associative_over_overlapping_parts(data: st.DataObject, history: list[Seen]) -> None:
    """Three nodes hold a part each, and exchange their versions in one grouping or the other."""
    holders = data.draw(st.lists(st.integers(1, 7), min_size=len(history), max_size=len(history)))
    a, b, c = ([seen for seen, held in zip(history, holders, strict=True) if held & 1 << bit] for bit in range(3))
    ab, bc = [*a, *b], [*b, *c]
    assert merged(ab, c).heads() == merged(a, bc).heads() == merged(c, b, a).heads() == merged(history).heads()


@given(st.data(), histories())
def test_merge_is_idempotent(data: st.DataObject, history: list[Seen]) -> None:
    lineage = merged(history)
    before = lineage.heads()
    for seen in data.draw(st.lists(st.sampled_from(history))):
        assert add(lineage, seen) == AddedVersion(is_new=False, is_head=seen.digest in before, superseded=())
    assert lineage.heads() == before


@given(st.data(), histories())
def test_a_notice_without_parents_first_changes_nothing_in_the_end(data: st.DataObject, history: list[Seen]) -> None:
    """Parents may be unknown until the envelope itself comes, which may be at any time."""
    notices = [seen._replace(parents=(), reissues=()) for seen in history]
    assert merged(data.draw(st.permutations([*notices, *history]))).heads() == merged(history).heads()


@given(histories())
def test_each_addition_reports_how_the_heads_changed(history: list[Seen]) -> None:
    lineage, heads = HeadSet(), set[bytes]()
    for seen in history:
        added = add(lineage, seen)
        assert added.is_new
        assert set(added.superseded) <= heads
        heads = heads - set(added.superseded) | ({seen.digest} if added.is_head else set())
        assert set(lineage.heads()) == heads
        assert all(lineage.is_head(head) for head in heads)


@given(histories())
def test_where_versions_are_held_there_is_a_head(history: list[Seen]) -> None:
    history = [seen._replace(reissues=()) for seen in history]
    latest = max(seen.version for seen in history)
    heads = merged(history).heads()
    assert all(seen.digest in heads for seen in history if seen.version == latest)


def test_a_chain_has_one_head_and_siblings_two_until_they_are_merged() -> None:
    lineage = HeadSet()
    assert lineage.heads() == ()
    assert lineage.add(digest("a"), 1, ()) == AddedVersion(True, True, ())
    assert lineage.add(digest("b"), 2, [digest("a")]) == AddedVersion(True, True, (digest("a"),))
    assert lineage.add(digest("c"), 3, [digest("a")]) == AddedVersion(True, True, ())
    assert lineage.heads() == (digest("b"), digest("c"))
    assert set(lineage.add(digest("d"), 4, [digest("b"), digest("c")]).superseded) == {digest("b"), digest("c")}
    assert lineage.heads() == (digest("d"),)


def test_a_parent_that_comes_after_its_child_is_no_head() -> None:
    lineage = HeadSet()
    lineage.add(digest("child"), 2, [digest("parent")])
    assert lineage.add(digest("parent"), 1, ()) == AddedVersion(is_new=True, is_head=False, superseded=())


def test_both_contents_of_an_equivocating_author_stay() -> None:
    lineage = merged([Seen(digest("one"), 7, ()), Seen(digest("other"), 7, ())])
    assert set(lineage.heads()) == {digest("one"), digest("other")}


def test_an_edge_to_a_parent_that_is_not_earlier_is_void_and_its_child_is_kept() -> None:
    early_liar, same_liar = Seen(digest("early"), 4, (digest("x"),)), Seen(digest("same"), 5, (digest("x"),))
    held = Seen(digest("x"), 5, ())
    for order in ([early_liar, same_liar, held], [held, same_liar, early_liar]):
        assert set(merged(order).heads()) == {digest("early"), digest("same"), digest("x")}


def test_naming_itself_supersedes_nothing() -> None:
    assert HeadSet().add(digest("a"), 1, [digest("a")]) == AddedVersion(True, True, ())


def test_a_version_that_its_author_reissued_is_no_head_in_any_order() -> None:
    ahead, mended = Seen(digest("ahead"), 9, (), "a"), Seen(digest("mended"), 2, (), "a", (digest("ahead"),))
    assert merged([ahead, mended]).heads() == merged([mended, ahead]).heads() == (digest("mended"),)
    assert add(merged([ahead]), mended) == AddedVersion(True, True, (digest("ahead"),))
    assert add(merged([mended]), ahead) == AddedVersion(is_new=True, is_head=False, superseded=())


def test_only_the_author_can_reissue_a_version() -> None:
    theirs, mine = Seen(digest("theirs"), 1, (), "a"), Seen(digest("mine"), 2, (), "b", (digest("theirs"),))
    assert merged([theirs, mine]).heads() == merged([mine, theirs]).heads() == (digest("theirs"), digest("mine"))
