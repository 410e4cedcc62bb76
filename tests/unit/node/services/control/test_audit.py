"""The audit log: entries are read again, and every change of a line is found and named."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.services.control.audit import Audit
from node.services.control.audit_file import AuditFile, AuditFileRefused, AuditStorage, MemoryAuditStorage, read_lines
from protocols.audit_log import GENESIS, check, hash_of, read
from protocols.errors import StorageFull, Unavailable
from protocols.keys import PrivateKey
from tests.until import until

KEY = PrivateKey.from_seed(b"\x05" * 32)
OTHER = PrivateKey.from_seed(b"\x06" * 32)


def audit(storage: AuditStorage, key: PrivateKey = KEY) -> Audit:
    return Audit(storage, key, now_ms=lambda: 1_700_000_000_000)


async def log_of(count: int, key: PrivateKey = KEY) -> list[bytes]:
    written = audit(MemoryAuditStorage(), key)
    for number in range(count):
        await written.append("flags.changed", author="ada", reason=f"{number}: because ä", details={"n": number})
    return await written.lines()


# -- the chain --------------------------------------------------------------------------------------------------------


async def test_written_entries_are_read_again_and_verify() -> None:
    lines = await log_of(5)
    verdict = check(lines)
    assert (verdict.good, verdict.broken, verdict.node) == (5, None, KEY.peer_id)
    assert verdict.head == hash_of(lines[-1])
    entry = read(lines[2])
    assert (entry.sequence, entry.act, entry.author) == (3, "flags.changed", "ada")
    assert (entry.reason, entry.details) == ("2: because ä", {"n": 2})
    assert entry.previous == hash_of(lines[1])
    assert read(lines[0]).previous == GENESIS
    assert check([]).head == GENESIS


LINES: list[bytes] = []


@given(at=st.integers(0, 4), data=st.data())
async def test_any_changed_byte_breaks_its_line_and_no_earlier_one(at: int, data: st.DataObject) -> None:
    lines = LINES or await log_of(5)
    LINES[:] = lines
    position = data.draw(st.integers(0, len(lines[at]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != lines[at][position] and b != 10))
    changed = list(lines)
    changed[at] = lines[at][:position] + bytes([byte]) + lines[at][position + 1 :]
    verdict = check(changed)
    assert (verdict.broken, verdict.good) == (at + 1, at)
    assert verdict.why


@pytest.mark.parametrize(
    ("tamper", "broken", "why"),
    [
        (lambda lines: lines[:2] + lines[3:], 3, "lines are missing"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2, "moved"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3, "inserted"),
        (lambda lines: lines[1:], 1, "lines are missing"),
        (lambda lines: [*lines[:2], b"", *lines[2:]], 3, "not an entry"),
        (lambda lines: [*lines[:2], b"{}", *lines[2:]], 3, "not an entry"),
        (lambda lines: [*lines[:2], b"[" * 100_000, *lines[2:]], 3, "not an entry"),
        (lambda lines: [*lines[:2], lines[2] + b" ", *lines[3:]], 3, "not written as the node writes"),
        (lambda lines: [*lines[:2], lines[2].replace(b"\\u00e4", "ä".encode()), *lines[3:]], 3, "not written as"),
    ],
)
async def test_lines_taken_out_moved_put_in_or_rewritten_are_named(
    tamper: Callable[[list[bytes]], list[bytes]], broken: int, why: str
) -> None:
    verdict = check(tamper(await log_of(5)))
    assert verdict.broken == broken
    assert why in verdict.why


async def test_a_line_of_another_node_does_not_fit_though_it_is_signed() -> None:
    ours, theirs = await log_of(3), await log_of(3, OTHER)
    assert check([ours[0], theirs[1], ours[2]]).broken == 2
    assert check(theirs).broken is None
    verdict = check(theirs, node=KEY.peer_id)
    assert (verdict.broken, "another node" in verdict.why) == (1, True)


async def test_an_entry_signed_with_another_key_is_named_however_well_it_chains() -> None:
    """A line that is not signed with the key of the node is found, however well it chains."""
    storage = MemoryAuditStorage()
    for line in await log_of(2):
        await storage.append(line)
    forged = audit(storage, OTHER)
    await forged.append("flags.changed", author="mallory", reason="nothing to see")
    assert check(await forged.lines()).broken == 3


# -- the file ---------------------------------------------------------------------------------------------------------


async def test_a_file_continues_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    first = AuditFile(path)
    log = audit(first)
    for number in range(3):
        await log.append("act", author="a", details={"n": number}, state={"n": number})
    first.close()
    again = AuditFile(path)
    log = audit(again)
    assert (log.sequence, log.state, log.faults) == (3, {"n": 2}, ())
    await log.append("act", author="a")
    assert log.state == {"n": 2}, "the state stays until another act gives one"
    assert check(read_lines(path, 0, 100)).good == 4
    assert [read(line).sequence for line in await log.lines(after=1, limit=2)] == [2, 3]
    assert path.stat().st_mode & 0o777 == 0o600
    again.close()


async def test_an_unfinished_last_line_is_cut_off_and_the_lines_before_it_stay(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    storage = AuditFile(path)
    await audit(storage).append("act", author="a")
    await audit(storage).append("act", author="a")
    storage.close()
    whole = path.read_bytes()
    for cut in range(1, len(whole) - whole.index(b"\n")):
        path.write_bytes(whole[:-cut])
        storage = AuditFile(path)
        log = audit(storage)
        await log.append("act", author="b")
        storage.close()
        assert check(read_lines(path, 0, 100)).good == 2
        if cut > 3:
            break


async def test_an_entry_that_cannot_be_written_is_an_error_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.log"
    storage = AuditFile(path)
    log = audit(storage)
    await log.append("act", author="a")
    write = os.write

    def half(file: int, data: bytes) -> int:
        return write(file, data[: len(data) // 2])

    monkeypatch.setattr("node.services.control.audit_file.os.write", half)
    with pytest.raises(StorageFull, match="nothing is changed"):
        await log.append("act", author="a")
    assert "cannot be written" in log.faults[0]

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("node.services.control.audit_file.os.write", write)
    fsync = os.fsync
    monkeypatch.setattr("node.services.control.audit_file.os.fsync", broken)
    with pytest.raises(Unavailable, match="Input/output error"):
        await log.append("act", author="a")
    monkeypatch.setattr("node.services.control.audit_file.os.fsync", fsync)
    await log.append("act", author="a")
    assert log.sequence == 2
    assert not list(log.faults)
    assert check(read_lines(path, 0, 100)).good == 2
    storage.close()


def _cut(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))


def _add(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"a line of another program\n")


def _take_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _replace(path: Path) -> None:
    path.with_name("copy").write_bytes(path.read_bytes())
    path.with_name("copy").rename(path)


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("mischief", "words"),
    [
        (_cut, "was changed by another program"),
        (_add, "was changed by another program"),
        (_take_away, "was removed"),
        (_replace, "was replaced by another file"),
        (_replace_by_link, "was replaced by another file"),
    ],
)
async def test_a_file_that_another_program_changed_or_removed_is_not_written_and_that_is_reported(
    mischief: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "audit.log"
    storage = AuditFile(path)
    log = audit(storage)
    for _ in range(3):
        await log.append("act", author="a")
    mischief(path)
    left = path.read_bytes() if path.exists() else None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.guard_file)
        with trio.fail_after(30):
            await until(lambda: log.is_lost)
        nursery.cancel_scope.cancel()
    assert words in log.faults[0]
    with pytest.raises(Unavailable, match=words):
        await log.append("act", author="a")
    assert (path.read_bytes() if path.exists() else None) == left
    assert log.sequence == 3
    storage.close()


async def test_a_file_that_comes_back_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    storage = AuditFile(path)
    log = audit(storage)
    await log.append("act", author="a")
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        await log.append("act", author="a")
    (tmp_path / "elsewhere").rename(path)
    await log.append("act", author="a")
    assert log.faults == ()
    assert check(read_lines(path, 0, 100)).good == 2
    storage.close()


async def test_a_tampered_last_line_is_a_fault_and_its_state_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    storage = AuditFile(path)
    await audit(storage).append("act", author="a", state={"x": 1})
    storage.close()
    path.write_bytes(path.read_bytes().replace(b'"x":1', b'"x":2'))
    storage = AuditFile(path)
    log = audit(storage)
    assert log.state == {}
    assert "line of the audit log (1) cannot be trusted" in log.faults[0]
    await log.append("act", author="a")
    assert check(read_lines(path, 0, 100)).broken == 1
    storage.close()


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit.log").mkdir()
    with pytest.raises(AuditFileRefused, match="does not start without it"):
        AuditFile(tmp_path / "audit.log")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditFileRefused, match="it is a symbolic link"):
        AuditFile(tmp_path / "link")
