"""The cache: bounded, with a time to live, and never with a value from before a change."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from protocols.policy.cache import Cache, CacheLoad

KEYS = (b"a", b"b", b"c")
PARTS = ("head", "first")


def cache(entries_max: int = 100, bytes_max: int = 1_000_000) -> Cache[str]:
    return Cache(entries_max=entries_max, bytes_max=bytes_max)


def put(one: Cache[str], key: bytes, value: str, *, part: str = "head", until: float = 100.0, size: int = 10) -> bool:
    return one.keep(one.begin(key), part, value, since=0.0, until=until, size_bytes=size)


def test_an_entry_is_found_with_its_age_until_its_time_is_over() -> None:
    one = cache()
    put(one, b"a", "x", until=5.0)
    for now in (0.0, 4.9):
        found = one.peek(b"a", "head", now=now)
        assert found is not None
        assert (found.value, found.age_seconds) == ("x", now)
    assert one.peek(b"a", "head", now=5.0) is None


def test_an_entry_older_than_the_caller_accepts_is_not_found() -> None:
    one = cache()
    put(one, b"a", "x")
    assert one.peek(b"a", "head", now=3.0, age_max=2.0) is None
    assert one.peek(b"a", "head", now=3.0, age_max=3.0) is not None


def test_a_caller_that_knows_it_to_be_right_later_makes_it_younger_but_never_lets_it_live_longer() -> None:
    one = cache()
    put(one, b"a", "x", until=5.0)
    found = one.peek(b"a", "head", now=4.0, since=3.5, age_max=1.0)
    assert found is not None
    assert found.age_seconds == 0.5
    assert one.peek(b"a", "head", now=5.0, since=5.0, age_max=1.0) is None


def test_a_load_that_was_under_way_when_its_key_changed_keeps_nothing() -> None:
    one = cache()
    early, other = one.begin(b"a"), one.begin(b"b")
    one.drop(b"a")
    late = one.begin(b"a")
    assert not one.keep(early, "head", "old", since=0.0, until=9.0, size_bytes=1)
    assert one.keep(late, "head", "new", since=0.0, until=9.0, size_bytes=1)
    assert one.keep(other, "head", "other", since=0.0, until=9.0, size_bytes=1)
    found = one.peek(b"a", "head", now=1.0)
    assert found is not None
    assert found.value == "new"


def test_a_change_removes_every_part_of_its_key_and_no_other_key() -> None:
    one = cache()
    for key in KEYS:
        for part in PARTS:
            put(one, key, "x", part=part)
    one.drop(b"a")
    assert [one.peek(b"a", part, now=1.0) for part in PARTS] == [None, None]
    assert all(one.peek(key, part, now=1.0) for key in (b"b", b"c") for part in PARTS)
    assert one.counts.invalidated == 2
    one.clear()
    assert (len(one), one.size_bytes) == (0, 0)


def test_the_least_recently_used_entry_is_evicted() -> None:
    one = cache(entries_max=2)
    put(one, b"a", "x")
    put(one, b"b", "y")
    one.peek(b"a", "head", now=1.0)
    put(one, b"c", "z")
    assert [bool(one.peek(key, "head", now=1.0)) for key in KEYS] == [True, False, True]
    assert one.counts.evicted == 1


def test_a_value_that_never_fits_is_not_kept_and_evicts_nothing() -> None:
    one = cache(bytes_max=100)
    put(one, b"a", "x", size=60)
    assert not put(one, b"b", "huge", size=101)
    assert one.peek(b"a", "head", now=1.0)
    put(one, b"c", "z", size=60)
    assert (len(one), one.size_bytes) == (1, 60)


def test_each_call_is_counted_once() -> None:
    one = cache()
    assert one.peek(b"a", "head", now=0.0) is None
    one.missed(b"a", "head")
    put(one, b"a", "x", until=5.0)
    one.peek(b"a", "head", now=1.0)
    assert one.peek(b"a", "head", now=6.0) is None
    one.missed(b"a", "head")
    counts = one.counts
    assert (counts.hits, counts.misses, counts.expired) == (1, 1, 1)
    assert (counts.entries, counts.size_bytes) == (0, 0)


# -- against a model ------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """The simplest model: a list in the order of use, and the loads that began before a drop."""

    entries_max: int
    bytes_max: int
    kept: list[tuple[bytes, str, int, float, float, int]] = field(default_factory=list)
    stale: set[int] = field(default_factory=set)

    def peek(self, key: bytes, part: str, now: float, age_max: float) -> tuple[int, float] | None:
        for entry in self.kept:
            if entry[:2] == (key, part) and now < entry[4] and now - entry[3] <= age_max:
                self.kept.remove(entry)
                self.kept.append(entry)
                return entry[2], now - entry[3]
        return None

    def keep(self, number: int, key: bytes, part: str, now: float, ttl: float, size: int) -> bool:
        if number in self.stale or size > self.bytes_max:
            return False
        self.kept = [entry for entry in self.kept if entry[:2] != (key, part)]
        self.kept.append((key, part, number, now, now + ttl, size))
        while len(self.kept) > self.entries_max or sum(entry[5] for entry in self.kept) > self.bytes_max:
            del self.kept[0]
        return True


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from(KEYS)),
        st.tuples(st.just("keep"), st.integers(0, 5), st.sampled_from(PARTS), st.integers(1, 9), st.integers(1, 60)),
        st.tuples(st.just("give up"), st.integers(0, 5)),
        st.tuples(st.just("drop"), st.sampled_from(KEYS)),
        st.tuples(st.just("clear")),
        st.tuples(st.just("peek"), st.sampled_from(KEYS), st.sampled_from(PARTS), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.integers(0, 5)),
    ),
    max_size=60,
)


@given(steps=STEPS, entries_max=st.integers(1, 4), bytes_max=st.integers(20, 150))
def test_the_cache_agrees_with_its_model(steps: list[tuple], entries_max: int, bytes_max: int) -> None:  # type: ignore[type-arg]
    one: Cache[int] = Cache(entries_max=entries_max, bytes_max=bytes_max)
    model = Model(entries_max, bytes_max)
    loads: list[tuple[int, bytes, CacheLoad]] = []
    now, begun = 0.0, 0
    for step in steps:
        match step:
            case ("begin", key):
                loads.append((begun, key, one.begin(key)))
                begun += 1
            case ("keep", index, part, ttl, size) if loads:
                number, key, load = loads.pop(index % len(loads))
                expected = model.keep(number, key, part, now, ttl, size)
                assert one.keep(load, part, number, since=now, until=now + ttl, size_bytes=size) is expected
            case ("give up", index) if loads:
                one.give_up(loads.pop(index % len(loads))[2])
            case ("drop", key):
                one.drop(key)
                model.kept = [entry for entry in model.kept if entry[0] != key]
                model.stale |= {number for number, of, _ in loads if of == key}
            case ("clear",):
                one.clear()
                model.kept = []
                model.stale |= {number for number, _, _ in loads}
            case ("peek", key, part, age_max):
                found = one.peek(key, part, now=now, age_max=age_max)
                assert (tuple(found) if found else None) == model.peek(key, part, now, age_max)
            case ("wait", seconds):
                now += seconds
            case _:
                pass
        assert len(one) == len(model.kept) <= entries_max
        assert one.size_bytes == sum(entry[5] for entry in model.kept) <= bytes_max
