"""The walk to the version that a temporal part names picks the same one as the whole list would."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.reads import temporal_walk
from node.store.memory.store import MemoryStore
from node.store.sqlite.reader import Reader
from protocols.clock import MS_MAX, ms_of, version
from protocols.envelope import Notice, notice_of, order_key
from protocols.errors import OutOfRange
from protocols.header import EMPTY_DIGEST, FORMAT
from protocols.temporal import AsOf, Back, First, Forward, Head, Number, Temporal, parse_temporal
from tests.contract.stores import AUTHOR, LOG_ID, OTHER_AUTHOR, envelope, from_peer, put
from tests.unit.node.store.sqlite.files import opened
from tests.unit.vectors import load


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


MOMENTS = st.integers(0, 9)
PARTS = st.one_of(
    st.just(Head()), st.just(First()), st.builds(Number, st.integers(1, 14)), st.builds(Back, st.integers(0, 14)),
    st.builds(Forward, st.integers(0, 14)), st.builds(AsOf, st.integers(-1, 12)), st.just(AsOf(MS_MAX)),
)  # fmt: skip


@given(st.lists(st.tuples(MOMENTS, st.integers(1, 2), st.booleans()), min_size=1, max_size=12, unique=True), PARTS)
async def test_it_picks_what_the_whole_list_would(versions: list[tuple[int, int, bool]], part: Temporal) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(temporal_walk, "PAGE", 2)
        store = MemoryStore(log_id=LOG_ID)
        items = [envelope(version(ms, n), author=AUTHOR if one else OTHER_AUTHOR) for ms, n, one in versions]
        await put(store, *map(from_peer, items))
        in_order = sorted(items, key=order_key)
        expected = [in_order[index].digest for index in named(part, [ms_of(item.version) for item in in_order])]
        if expected:
            found = await temporal_walk.find(store, items[0].key, part)
            assert [ref.digest for ref in found.versions] == expected
        else:
            with pytest.raises(OutOfRange) as error:
                await temporal_walk.find(store, items[0].key, part)
            assert error.value.details["versions"] == len(items)


def named(part: Temporal, times: Sequence[int]) -> Sequence[int]:
    """The index of the version that a temporal part names, alone in a list; none is out of range."""
    order = range(len(times))
    match part:
        case Head():
            return order[-1:]
        case First():
            return order[:1]
        case Number(n):
            return order[n - 1 : n]
        case Forward(n):
            return order[n : n + 1]
        case Back(n):
            return order[::-1][n : n + 1]
        case AsOf(unix_ms):
            return [index for index in order if times[index] <= unix_ms][-1:]


@pytest.mark.parametrize("part", [Head(), First(), Number(1), Back(0), Forward(0), AsOf(10**12)], ids=str)
async def test_of_no_versions_none_is_found(part: Temporal) -> None:
    with pytest.raises(OutOfRange) as error:
        await temporal_walk.find(MemoryStore(log_id=LOG_ID), envelope().key, part)
    assert error.value.details["versions"] == 0


GOLDEN = load("ucxl")["picks"]


@pytest.mark.parametrize("vector", GOLDEN["of"], ids=lambda vector: vector["temporal"])
async def test_golden_picks(vector: dict[str, Any]) -> None:
    store = MemoryStore(log_id=LOG_ID)
    items = [envelope(version(ms, number)) for number, ms in enumerate(GOLDEN["versions_ms"])]
    await put(store, *map(from_peer, items))
    part = parse_temporal(vector["temporal"])
    if vector["index"] is None:
        with pytest.raises(OutOfRange) as error:
            await temporal_walk.find(store, items[0].key, part)
        assert error.value.details["versions"] == len(items)
    else:
        found = await temporal_walk.find(store, items[0].key, part)
        assert [ref.digest for ref in found.versions] == [items[vector["index"]].digest]


STEPS_MAX = 100_000
"""What a read may cost, in SQLite's own steps: a millisecond."""
LONG = 40_000


async def test_the_cost_does_not_grow_with_the_history(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page at each place of a long history, and each temporal part, takes a few short queries."""
    costs: list[int] = []
    answer_one = Reader._answer_one  # private: the only place where each query has its cost

    def counted(self: Reader, query: Any) -> Any:
        costs.append(0)

        def count() -> None:
            costs[-1] += 1_000

        self._db.set_progress_handler(count, 1_000)
        return answer_one(self, query)

    first = envelope(1)
    notices: list[Notice] = []
    for number in range(LONG):
        parents = [notices[-1].digest] if number else []
        header = msgpack.packb([
            FORMAT, first.address, EMPTY_DIGEST, 0, "text/plain", version(1_000 + number), parents, first.author, {},
            False,
        ])  # fmt: skip
        notices.append(notice_of(header, bytes(64)))  # signing so many would take seconds, and no store checks it
    digests = [notice.digest for notice in notices]
    async with opened(path) as store:
        for start in range(0, LONG, 5_000):
            await store.merge([from_peer(notice) for notice in notices[start : start + 5_000]], now_ms=1)
        monkeypatch.setattr(Reader, "_answer_one", counted)
        for part, number in (
            (Back(1), LONG - 2), (Head(), LONG - 1), (First(), 0), (Number(3), 2), (Forward(500), 500),
            (AsOf(1_000 + LONG // 2), LONG // 2), (AsOf(1_000_000_000), LONG - 1),
            (Back(LONG // 2), LONG // 2 - 1), (Number(LONG // 3), LONG // 3 - 1), (Back(LONG - 1), 0),
        ):  # fmt: skip
            costs.clear()
            found = await temporal_walk.find(store, first.key, part)
            assert [ref.digest for ref in found.versions] == [digests[number]]
            assert sum(costs) <= STEPS_MAX
            assert len(costs) <= 3, part
        for part in (Back(LONG), Number(LONG + 1), AsOf(999)):
            costs.clear()
            with pytest.raises(OutOfRange):
                await temporal_walk.find(store, first.key, part)
            assert sum(costs) <= STEPS_MAX
            assert len(costs) <= 3, part
        for after in (0, LONG // 2, LONG - 10):
            costs.clear()
            page = await store.versions(first.key, after=after, limit=256)
            assert [each.digest for each in page] == digests[after : after + 256]
            assert max(costs) <= STEPS_MAX
            assert len(costs) <= 3
        costs.clear()
        assert await store.missing_parents(first.key) == []
        assert await store.count_versions(first.key) == LONG
        assert max(costs) <= STEPS_MAX
