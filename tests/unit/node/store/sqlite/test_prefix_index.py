"""The prefix indexes find every row of the tables, and nothing else, whatever is in memory and whatever on the disk."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.store.log import Incoming, Merged, Origin
from node.store.sqlite import prefix_index, queries, schema
from node.store.sqlite.deferred_writes import DeferredWrites
from node.store.sqlite.merge import MergeRequest
from node.store.sqlite.prefix_index import PrefixIndex
from node.store.sqlite.transaction import Transaction
from protocols.envelope import Envelope, seal
from protocols.keys import PrivateKey

KEY = PrivateKey.from_seed(b"\7" * 32)
FULL, FLUSHED = 8, 2
_MADE: list[Envelope] = []


def envelope(number: int) -> Envelope:
    """Each has an address and a content of its own. Made once, because signing is slow."""
    while len(_MADE) <= number:
        _MADE.append(
            seal(
                KEY, address=f"ucxl://a:b@c:d/*^/{len(_MADE)}", content=b"%d" % len(_MADE), content_type="text/plain",
                version=len(_MADE) + 1, parents=(),
            )
        )  # fmt: skip
    return _MADE[number]


class Failed(Exception):
    pass


class Tables:
    """A transaction that is opened, written to, made to fail and opened again; and a reader next to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fails = False
        self.open()

    def open(self) -> None:
        self.writer, self.reader, *_ = schema.open_connections(self.path, log_id="0" * 16)
        self.transaction = Transaction(self.writer, self.path, before_commit=self._fail)

    def close(self) -> None:
        self.writer.close()
        self.reader.close()

    def _fail(self) -> None:
        if self.fails:
            raise Failed

    def write(self, *numbers: int) -> list[Merged]:
        merge = MergeRequest([Incoming(envelope(number), Origin.PEER) for number in numbers], 0)
        (placed,) = self.transaction.commit([merge], DeferredWrites())
        return [Merged(each.sequence, each.is_new) for each in placed]

    def has(self, number: int) -> bool:
        """Whether a version is found, by its digest, by its key and by its content."""
        one = envelope(number)
        found = queries.by_digest(self.reader, self.transaction.prefixes, one.digest, 1 << 40)
        assert queries.heads(self.reader, self.transaction.prefixes, one.key) == ((one,) if found else ())
        assert queries.by_content(self.reader, self.transaction.prefixes, one.content_digest, 1 << 40) == found
        return found is not None

    def on_disk(self) -> list[int]:
        """How many entries of each index are on the disk."""
        return [self.reader.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in INDEXES]


INDEXES = ("digest_prefixes", "key_prefixes", "content_prefixes")


@pytest.fixture(autouse=True)
def small_memtables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_index, "MEMTABLE_ROWS_MAX", FULL)
    monkeypatch.setattr(prefix_index, "FLUSH_ROWS_MIN", FLUSHED)


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    with contextlib.closing(Tables(tmp_path / "store.sqlite3")) as made:
        yield made


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "fail"]), st.lists(st.integers(0, 80), min_size=1, max_size=12)),
        st.tuples(st.just("reopen"), st.just([])),
    ),
    max_size=40,
)


@given(steps)
def test_committed_rows_are_found_and_nothing_else(history: list[tuple[str, list[int]]]) -> None:
    written: set[int] = set()
    with TemporaryDirectory() as folder, contextlib.closing(Tables(Path(folder) / "store.sqlite3")) as tables:
        for step, numbers in history:
            if step == "reopen":
                tables.close()
                tables.open()
            elif step == "fail":
                tables.fails = True
                with pytest.raises(Failed):
                    tables.write(*numbers)
                tables.fails = False
            else:
                new = [merged.is_new for merged in tables.write(*numbers)]
                assert new == [n not in written and n not in numbers[:at] for at, n in enumerate(numbers)]
                written.update(numbers)
            assert {number for number in range(81) if tables.has(number)} == written


def test_the_newest_entries_are_in_memory_and_a_full_memtable_is_flushed_a_few_with_each_commit(tables: Tables) -> None:
    for number in range(FULL):
        tables.write(number)
    assert tables.on_disk() == [0] * 3
    tables.write(FULL)
    flushed = FLUSHED + 2
    assert tables.on_disk() == [flushed] * 3
    tables.write(FULL + 1)
    assert tables.on_disk() == [FULL] * 3
    tables.write(FULL + 2)
    assert tables.on_disk() == [FULL] * 3, "the next flush begins when the newest memtable is full"
    tables.close()
    tables.open()
    assert all(tables.has(number) for number in range(FULL + 3))
    # Private: the answers are the same whether few or all rows were read.
    assert tables.transaction.prefixes.digests._newest_count == 3, "only the rows that are not flushed are read"


def test_a_reader_finds_entries_that_are_being_flushed(tables: Tables) -> None:
    """It looks into memory first: an entry that is flushed after that is found on the disk."""
    for number in range(FULL):
        tables.write(number)
    before = [tables.transaction.prefixes.digest_parameters(envelope(number).digest) for number in range(FULL)]
    for number in range(FULL, 3 * FULL):
        tables.write(number)
    after = [tables.transaction.prefixes.digest_parameters(envelope(number).digest) for number in range(FULL)]
    assert all(asked["digests_in_memory"] != "[]" for asked in before)
    assert all(asked["digests_in_memory"] == "[]" for asked in after)
    for asked in before + after:
        query = f"SELECT v.digest FROM versions v WHERE {prefix_index.DIGEST_IS}"
        assert tables.reader.execute(query, asked).fetchall() == [(asked["digest"],)]


def test_a_reader_misses_nothing_while_a_commit_is_rolled_back(tables: Tables) -> None:
    for number in range(FULL // 2):
        tables.write(number)
    answers: list[bool] = []

    def ask(statement: str) -> None:  # called before each statement of the writer
        try:
            answers.append(all(tables.has(number) for number in range(FULL // 2)))
        except AssertionError:  # found by one index and not by the other; SQLite ignores errors of this callback
            answers.append(False)

    tables.writer.set_trace_callback(ask)
    tables.fails = True
    with pytest.raises(Failed):
        tables.write(FULL // 2)
    tables.writer.set_trace_callback(None)
    assert all(answers)
    assert len(answers) > 10


def in_memory(tables: Tables) -> int:
    """The entries in memory. Private: no answer depends on their number."""
    digests = tables.transaction.prefixes.digests
    return sum(map(len, digests._memtables))


def test_memory_is_bounded_when_every_second_transaction_fails(tables: Tables) -> None:
    for number in range(4 * FULL):
        tables.fails = True
        with pytest.raises(Failed):
            tables.write(number, 80)
        tables.fails = False
        tables.write(number)
        assert in_memory(tables) <= 2 * FULL
    assert min(tables.on_disk()) >= 2 * FULL
    assert all(tables.has(number) for number in range(4 * FULL))
    assert not tables.has(80)


def test_a_failed_transaction_does_not_read_known_rows_again(tables: Tables) -> None:
    for number in range(FULL // 2):
        tables.write(number)
    statements: list[str] = []
    tables.writer.set_trace_callback(statements.append)
    tables.fails = True
    with pytest.raises(Failed):
        tables.write(FULL // 2)
    tables.writer.set_trace_callback(None)
    assert not [each for each in statements if each.endswith(("sequence > 0", "id > 0"))]
    assert in_memory(tables) == FULL // 2


def test_a_flush_that_was_cut_short_is_finished_at_the_next_opening(tables: Tables) -> None:
    number = 0
    for _ in range(4):
        for _ in range(FULL):
            tables.write(number)
            number += 1
        tables.close()
        tables.open()
        assert in_memory(tables) < FULL
        assert all(tables.has(each) for each in range(number))


def test_entries_with_the_same_prefix_are_all_found() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE things (prefix BLOB, id INTEGER PRIMARY KEY)")
        db.execute("CREATE TABLE some_prefixes (prefix BLOB, id INTEGER, PRIMARY KEY (prefix, id))")
        db.execute("CREATE TABLE prefixes_until (name TEXT, id INTEGER)")
        db.execute("INSERT INTO prefixes_until VALUES ('some_prefixes', 0)")
        index = PrefixIndex("some_prefixes", "SELECT prefix, id FROM things WHERE id > ?")
        index.load(db)
        for number in range(1, 3 * FULL):
            prefix = b"same" if number % 3 else b"%d" % number
            db.execute("INSERT INTO things VALUES (?, ?)", (prefix, number))
            index.add([(prefix, number)])
            index.flush(db)
            index.committed()
            assert sorted(index.find(db, [b"same"])) == [n for n in range(1, number + 1) if n % 3]
        again = PrefixIndex("some_prefixes", "SELECT prefix, id FROM things WHERE id > ?")
        again.load(db)
        assert sorted(again.find(db, [b"same", b"3"])) == [n for n in range(1, 3 * FULL) if n % 3 or n == 3]
