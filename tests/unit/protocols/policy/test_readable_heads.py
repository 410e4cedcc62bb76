"""Readable heads: the walk gives what the definition gives over the whole history, and its work is bounded."""

from hypothesis import given
from hypothesis import strategies as st
from pytest import MonkeyPatch

from protocols.heads import HeadSet
from protocols.policy import readable_heads
from protocols.policy.readable_heads import ReadableWalk


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


Row = tuple[int, tuple[int, ...], bool]
"""The version, the parents by their numbers (any: an edge to a later one is void), and whether it is held."""

ROWS = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(0, 11), max_size=3).map(tuple), st.booleans()),
    min_size=1,
    max_size=10,
)


def walked(rows: list[Row]) -> ReadableWalk:
    heads = HeadSet()
    for number, (version, parents, _) in enumerate(rows):
        heads.add(digest(number), version, map(digest, parents))
    walk = ReadableWalk(heads.heads())
    for number, (version, parents, is_held) in sorted(
        enumerate(rows), key=lambda row: (row[1][0], row[0]), reverse=True
    ):
        if not walk.is_done:
            walk.visit(digest(number), version, map(digest, parents), is_held=is_held)
    return walk


def covered(rows: list[Row]) -> set[int]:
    """The versions that a held version descends from."""
    found: set[int] = set()
    for start, (_, _, is_held) in enumerate(rows):
        ways = [start] if is_held else []
        while ways:
            version, parents, _ = rows[ways.pop()]
            for parent in parents:
                if parent < len(rows) and rows[parent][0] < version and parent not in found:
                    found.add(parent)
                    ways.append(parent)
    return found


@given(ROWS)
def test_the_walk_gives_what_the_definition_gives(rows: list[Row]) -> None:
    walk, ended = walked(rows), covered(rows)
    in_order = sorted(range(len(rows)), key=lambda number: (rows[number][0], number), reverse=True)
    assert walk.readable == [digest(n) for n in in_order if rows[n][2] and n not in ended]
    lost = [digest(n) for n in in_order if not rows[n][2] and n not in ended]
    assert walk.missing == lost[: len(walk.missing)], "the walk may end before it has seen all of them"


def test_where_everything_is_held_the_readable_heads_are_the_heads() -> None:
    walk = walked([(1, (), True), (2, (0,), True), (3, (0,), True)])
    assert walk.readable == [digest(2), digest(1)]
    assert walk.missing == []


def test_a_version_without_content_hides_nothing_until_one_with_content_is_on_top_of_it() -> None:
    rows: list[Row] = [(1, (), True), (2, (0,), True), (3, (1,), False), (4, (2,), False)]
    assert walked(rows).readable == [digest(1)]
    assert walked(rows).missing == [digest(3), digest(2)]
    assert walked([*rows, (5, (1,), True)]).readable == [digest(4)], "a sibling of the one without content"
    assert walked([*rows, (5, (3,), True)]).readable == [digest(4)]
    assert walked([*rows, (5, (3,), True)]).missing == []


def test_a_long_chain_without_content_ends_with_the_latest_held_version() -> None:
    rows: list[Row] = [(1, (), True), (2, (0,), True)]
    rows += [(number + 1, (number - 1,), False) for number in range(2, 3_000)]
    walk = walked(rows)
    assert walk.readable == [digest(1)]
    assert len(walk.missing) == readable_heads.MISSING_MAX


def test_parents_that_no_node_knows_are_followed_only_so_far(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(readable_heads, "PARENTS_MAX", 100)
    rows: list[Row] = [(1, (), True), *((2 + n, tuple(range(1_000 * n, 1_000 * n + 30)), False) for n in range(1, 9))]
    walk = ReadableWalk([digest(number) for number in range(1, 9)])
    for number in range(8, -1, -1):
        version, parents, is_held = rows[number]
        walk.visit(digest(number), version, map(digest, parents), is_held=is_held)
    assert walk.readable == [digest(0)]
    assert walk.is_done
