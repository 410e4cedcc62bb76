"""The flag store: changes are made whole or not at all, audited first, reported to all, and restored at a restart."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from node.config.changes import read_change
from node.config.flags import Flags, Force
from node.config.settings import Settings
from node.services.control.audit import Audit
from node.services.control.audit_file import MemoryAuditStorage
from node.services.control.flag_store import FlagStore
from protocols.audit_log import read
from protocols.errors import InvalidPayload, StorageFull
from protocols.keys import PrivateKey

KEY = PrivateKey.from_seed(b"\x05" * 32)
START_MS = 1_700_000_000_000


class FullStorage(MemoryAuditStorage):
    is_full = False

    async def append(self, line: bytes) -> None:
        if self.is_full:
            raise StorageFull("the disk is full")
        await super().append(line)


def now_ms() -> int:
    return START_MS + int(trio.current_time() * 1000)


def store(
    audit_storage: MemoryAuditStorage | None = None,
    settings: Settings | None = None,
    refuse: Callable[[Flags], None] = lambda _: None,
) -> FlagStore:
    audit = Audit(audit_storage or MemoryAuditStorage(), KEY, now_ms=now_ms)
    return FlagStore(settings or Settings(name="n1"), audit, now_ms=now_ms, refuse=refuse)


async def change(flags: FlagStore, **data: object) -> None:
    await flags.change(read_change(data, author="ada"))


async def acts(audit_storage: MemoryAuditStorage) -> list[str]:
    return [read(line).act for line in await audit_storage.lines(limit=100)]


# -- changes ----------------------------------------------------------------------------------------------------------


async def test_a_change_is_audited_then_in_force_and_reported() -> None:
    audit_storage = MemoryAuditStorage()
    flags = store(audit_storage)
    seen: list[tuple[str, str, int]] = []
    flags.subscribe(lambda before, after: seen.append((before.in_force, after.in_force, audit_storage.count)))
    await flags.begin()
    await change(flags, backend="mock", threshold_errors=5, reason="trying")
    assert seen == [("hybrid", "mock", 2)]
    assert (flags.current.in_force, flags.current.threshold_errors, flags.revision) == ("mock", 5, 1)
    entry = read((await audit_storage.lines(limit=10))[1])
    assert (entry.act, entry.author, entry.reason) == ("flags.changed", "ada", "trying")
    assert entry.details["changes"]["backend"] == {"before": "hybrid", "after": "mock"}
    assert flags.origins()["backend"] == "run time, by ada"
    assert flags.origins()["backoff_ms"] == "default"


async def test_a_change_with_one_impossible_part_changes_nothing() -> None:
    audit_storage = MemoryAuditStorage()

    def refuse(flags: Flags) -> None:
        if flags.backend == "real":
            raise InvalidPayload("not here", field="backend")

    flags = store(audit_storage, Settings(replication=3), refuse)
    for data in ({"deadline_ms": 5, "backend": "real"}, {"deadline_ms": 5, "write_quorum": 4}):
        with pytest.raises(InvalidPayload):
            await change(flags, **data)
    assert flags.current == Flags()
    assert (audit_storage.count, flags.revision) == (0, 0)


async def test_a_change_that_cannot_be_audited_is_not_made() -> None:
    audit_storage = FullStorage()
    flags = store(audit_storage)
    audit_storage.is_full = True
    with pytest.raises(StorageFull):
        await change(flags, backend="mock")
    assert flags.current.backend == "hybrid"
    assert "the disk is full" in flags.faults
    audit_storage.is_full = False
    await change(flags, backend="mock")
    assert flags.current.backend == "mock"
    assert not list(flags.faults)


async def test_a_flag_that_is_unset_has_its_configured_value() -> None:
    flags = store(settings=Settings(name="n", deadline_ms=70, origins={"deadline_ms": "file x: deadline_ms"}))
    await change(flags, deadline_ms=50, backend="mock")
    assert "waits beneath" in flags.notes()[0]
    await change(flags, deadline_ms=None)
    assert (flags.current.deadline_ms, flags.current.backend) == (70, "mock")
    assert flags.origins()["deadline_ms"] == "file x: deadline_ms"


async def test_a_change_to_the_present_value_pins_it_and_is_not_reported() -> None:
    audit_storage = MemoryAuditStorage()
    flags = store(audit_storage)
    flags.subscribe(lambda *_: pytest.fail("nothing changed"))
    await change(flags, backend="hybrid")
    assert (flags.revision, audit_storage.count) == (0, 1)
    await change(flags, backend="hybrid")
    assert audit_storage.count == 1, "the same change again is not audited"


async def test_concurrent_changes_are_made_one_after_another(autojump_clock: trio.testing.MockClock) -> None:
    class Slow(MemoryAuditStorage):
        async def append(self, line: bytes) -> None:
            await trio.sleep(1)
            await super().append(line)

    flags = store(Slow())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: change(flags, deadline_ms=50))
        nursery.start_soon(lambda: change(flags, real_deadline_ms=700))
        nursery.start_soon(lambda: change(flags, backoff_ms=9))
    assert (flags.current.deadline_ms, flags.current.real_deadline_ms, flags.current.backoff_ms) == (50, 700, 9)


# -- a restart --------------------------------------------------------------------------------------------------------


async def test_flags_set_at_run_time_are_restored_after_a_restart(autojump_clock: trio.testing.MockClock) -> None:
    audit_storage = MemoryAuditStorage()
    flags = store(audit_storage)
    await change(flags, rollout_percent=25, reason="slowly")
    await change(flags, override="open", reason="works", expires_in="1h")
    restarted = store(audit_storage)
    assert restarted.current == flags.current
    assert restarted.current.override is not None
    assert restarted.current.override.force is Force.OPEN
    assert restarted.origins()["rollout_percent"] == "run time, by ada"
    await trio.sleep(3601)
    late = store(audit_storage)
    await late.begin()
    assert late.current.override is None, "it expired while the node was off"
    assert late.current.rollout_percent == 25
    assert (await acts(audit_storage))[-2:] == ["node.started", "override.expired"]


async def test_a_flag_that_became_impossible_is_reported_and_not_in_force() -> None:
    audit_storage = MemoryAuditStorage()
    await change(store(audit_storage), write_quorum=5)
    flags = store(audit_storage, Settings(name="n", replication=3))
    assert flags.current.write_quorum is None
    assert "not in force" in flags.faults[0]
    await change(flags, backend="mock")
    assert flags.faults == ()


# -- overrides --------------------------------------------------------------------------------------------------------


async def test_an_override_ends_by_itself_even_if_that_cannot_be_audited(
    autojump_clock: trio.testing.MockClock,
) -> None:
    audit_storage = FullStorage()
    flags = store(audit_storage)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flags.run)
        await change(flags, override="mock", reason="works", expires_in="90s")
        assert flags.current.in_force == "mock"
        await trio.sleep(89.5)
        assert flags.current.in_force == "mock"
        await trio.sleep(1)
        assert flags.current.override is None
        assert await acts(audit_storage) == ["flags.changed", "override.expired"]
        await change(flags, override="closed", reason="works", expires_in="90s")
        audit_storage.is_full = True
        await trio.sleep(91)
        assert flags.current.override is None
        nursery.cancel_scope.cancel()


async def test_an_override_is_replaced_and_ended_by_hand() -> None:
    flags = store()
    await change(flags, override="mock", reason="one")
    await change(flags, override="open", reason="two")
    assert flags.current.override is not None
    assert (flags.current.override.force, flags.current.override.reason) == (Force.OPEN, "two")
    await change(flags, override=None)
    assert flags.current.override is None
