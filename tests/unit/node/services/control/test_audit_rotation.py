"""Rotation of the audit log, and lines that were removed before a start: the chain goes on, or is seen to be broken."""

from collections.abc import Callable
from pathlib import Path

import pytest

from node.services.control.audit import Audit
from node.services.control.audit_file import AuditFile, MemoryAuditStorage, read_lines
from node.store.memory.store import MemoryStore
from protocols.audit_log import check, read
from protocols.errors import Conflict
from protocols.keys import PrivateKey

KEY = PrivateKey.from_seed(b"\x05" * 32)
OTHER = PrivateKey.from_seed(b"\x06" * 32)


def _opened(path: Path, store: MemoryStore | None = None) -> tuple[Audit, AuditFile]:
    storage = AuditFile(path)
    return Audit(storage, KEY, now_ms=lambda: 1, marks=store), storage


async def _write(log: Audit, count: int) -> None:
    for _ in range(count):
        await log.append("act", author="a", state={"n": log.sequence + 1})


# -- rotation ---------------------------------------------------------------------------------------------------------


async def test_the_chain_goes_on_across_rotated_files_and_restarts(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log, storage = _opened(path)
    await _write(log, 3)
    assert await log.rotate(author="ada", reason="monthly") == "audit.1-3.log"
    await _write(log, 2)
    assert await log.rotate(author="ada") == "audit.4-6.log"
    await _write(log, 1)
    everything = await log.lines()
    storage.close()
    log, storage = _opened(path)
    assert await log.lines() == everything
    assert (await log.lines(after=2, limit=3)) == everything[2:5]
    assert (log.sequence, log.state, log.faults) == (8, {"n": 8}, ())
    assert [read(line).sequence for line in everything] == list(range(1, 9))
    assert [read(line).act for line in everything][3] == "log.rotated"
    verdict = check(everything)
    assert (verdict.good, verdict.broken, verdict.first, verdict.last) == (8, None, 1, 8)
    alone = check(read_lines(tmp_path / "audit.4-6.log", 0, 100))
    assert (alone.good, alone.broken, alone.first, alone.last) == (3, None, 4, 6)
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}
    storage.close()


async def test_the_first_rotated_files_may_be_moved_elsewhere_and_none_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log, storage = _opened(path)
    names = []
    for _ in range(3):
        await _write(log, 2)
        names.append(await log.rotate(author="ada"))
    storage.close()
    assert names == ["audit.1-2.log", "audit.3-5.log", "audit.6-8.log"]
    (tmp_path / names[0]).unlink()
    log, storage = _opened(path)
    assert log.faults == ()
    assert (await log.append("act", author="a")).sequence == 10
    assert check(await log.lines()).broken is None
    storage.close()
    (tmp_path / names[2]).unlink()
    log, storage = _opened(path)
    assert "entries 6 to 8 of the audit log are missing before those of audit.log" in log.faults[0]
    storage.close()


async def test_a_large_file_is_rotated_by_itself(tmp_path: Path) -> None:
    storage = AuditFile(tmp_path / "audit.log")
    log = Audit(storage, KEY, now_ms=lambda: 1, rotate_bytes=2000)
    await _write(log, 20)
    assert len(list(tmp_path.iterdir())) > 2
    assert all(path.stat().st_size < 3000 for path in tmp_path.iterdir())
    assert check(await log.lines()).broken is None
    storage.close()


async def test_an_empty_file_is_not_rotated(tmp_path: Path) -> None:
    log, storage = _opened(tmp_path / "audit.log")
    with pytest.raises(Conflict):
        await log.rotate(author="a")
    storage.close()


async def test_a_crash_between_the_two_steps_of_a_rotation_leaves_a_whole_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log, storage = _opened(path)
    await _write(log, 3)
    storage.close()
    path.rename(tmp_path / "audit.1-3.log")
    log, storage = _opened(path)
    assert (log.sequence, log.state, log.faults) == (3, {"n": 3}, ())
    await log.append("act", author="a")
    assert [read(line).act for line in read_lines(path, 0, 9)] == ["log.rotated", "act"]
    assert check(await log.lines()).good == 5
    storage.close()


async def test_a_rotation_that_another_node_wrote_begins_no_chain() -> None:
    log = Audit(MemoryAuditStorage(), OTHER, now_ms=lambda: 1)
    await _write(log, 1)
    await log.rotate(author="a")
    lines = await log.lines()
    assert check(lines[1:]).broken is None
    assert check(lines[1:], node=KEY.peer_id).broken == 1


# -- what the store knows of the log ----------------------------------------------------------------------------------


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut_lines(count: int) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-count]))

    return cut


def _cut_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(
    ("damage", "missing"),
    [(Path.unlink, 4), (_empty, 4), (_cut_lines(1), 1), (_cut_bytes, 1), (_cut_lines(2), 2)],
    ids=["removed", "emptied", "last line cut", "last bytes cut", "two lines cut"],
)
async def test_lines_that_were_removed_before_a_start_are_noticed_and_their_state_stays(
    damage: Callable[[Path], None], missing: int, tmp_path: Path
) -> None:
    path, store = tmp_path / "audit.log", MemoryStore(log_id="0" * 16)
    log, storage = _opened(path, store)
    await _write(log, 4)
    storage.close()
    log, storage = _opened(path, store)
    assert log.faults == ()
    storage.close()
    damage(path)
    log, storage = _opened(path, store)
    assert f"lacks its last {missing} of 4 entries" in log.faults[0]
    assert (log.sequence, log.state) == (4, {"n": 4})
    assert (await log.append("act", author="a")).sequence == 5
    verdict = check(await log.lines())
    assert verdict.broken == 5 - missing
    assert "lines are missing" in verdict.why
    storage.close()
    log, storage = _opened(path, store)
    assert "entries" in log.faults[0]
    assert "are missing" in log.faults[0]
    storage.close()


async def test_an_older_copy_of_the_log_is_noticed_though_it_is_whole(tmp_path: Path) -> None:
    path, store = tmp_path / "audit.log", MemoryStore(log_id="0" * 16)
    log, storage = _opened(path, store)
    await _write(log, 2)
    copy = path.read_bytes()
    await _write(log, 1)
    storage.close()
    path.write_bytes(copy)
    log, storage = _opened(path, store)
    assert "lacks its last 1 of 3 entries" in log.faults[0]
    storage.close()


async def test_a_mark_of_another_node_says_nothing(tmp_path: Path) -> None:
    store = MemoryStore(log_id="0" * 16)
    other = AuditFile(tmp_path / "other.log")
    await _write(Audit(other, OTHER, now_ms=lambda: 1, marks=store), 9)
    other.close()
    log, storage = _opened(tmp_path / "audit.log", store)
    assert (log.faults, log.sequence, log.state) == ((), 0, {})
    storage.close()
