"""The flags in force: changed whole or not at all, in the log first, told to all, found again, and ended in time."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from node.config.changes import read_change
from node.config.file import ConfigError
from node.config.flags import Flags, Force
from node.config.load import load
from node.config.settings import Settings
from node.services.control.audit import Audit
from node.services.control.audit_file import MemoryAuditStorage
from node.services.control.config_reload import ConfigReload
from node.services.control.flag_store import FlagStore
from node.swarm.peer_policy import PeerPolicy
from protocols.audit_log import read
from protocols.errors import InvalidPayload, StorageFull
from protocols.keys import PrivateKey

KEY = PrivateKey.from_seed(b"\x05" * 32)
START_MS = 1_700_000_000_000


class FullJournal(MemoryAuditStorage):
    is_full = False

    async def append(self, line: bytes) -> None:
        if self.is_full:
            raise StorageFull("the disk is full")
        await super().append(line)


def now_ms() -> int:
    return START_MS + int(trio.current_time() * 1000)


def store(
    journal: MemoryAuditStorage | None = None,
    settings: Settings | None = None,
    refuse: Callable[[Flags], None] = lambda _: None,
) -> FlagStore:
    audit = Audit(journal or MemoryAuditStorage(), KEY, now_ms=now_ms)
    return FlagStore(settings or Settings(name="n1"), audit, now_ms=now_ms, refuse=refuse)


async def change(flags: FlagStore, **told: object) -> None:
    await flags.change(read_change(told, author="ada"))


async def acts(journal: MemoryAuditStorage) -> list[str]:
    return [read(line).act for line in await journal.lines(limit=100)]


# -- changes ----------------------------------------------------------------------------------------------------------


async def test_a_change_is_written_down_then_in_force_and_told() -> None:
    journal = MemoryAuditStorage()
    flags = store(journal)
    seen: list[tuple[str, str, int]] = []
    flags.subscribe(lambda before, after: seen.append((before.in_force, after.in_force, journal.count)))
    await flags.begin()
    await change(flags, backend="mock", threshold_errors=5, reason="trying")
    assert seen == [("hybrid", "mock", 2)]
    assert (flags.current.in_force, flags.current.threshold_errors, flags.revision) == ("mock", 5, 1)
    entry = read((await journal.lines(limit=10))[1])
    assert (entry.act, entry.author, entry.reason) == ("flags.changed", "ada", "trying")
    assert entry.details["changes"]["backend"] == {"before": "hybrid", "after": "mock"}
    assert flags.origins()["backend"] == "run time, by ada"
    assert flags.origins()["backoff_ms"] == "default"


async def test_a_change_of_which_one_part_is_impossible_changes_nothing() -> None:
    journal = MemoryAuditStorage()

    def refuse(flags: Flags) -> None:
        if flags.backend == "real":
            raise InvalidPayload("not here", field="backend")

    flags = store(journal, Settings(replication=3), refuse)
    for told in ({"deadline_ms": 5, "backend": "real"}, {"deadline_ms": 5, "write_quorum": 4}):
        with pytest.raises(InvalidPayload):
            await change(flags, **told)
    assert flags.current == Flags()
    assert (journal.count, flags.revision) == (0, 0)


async def test_what_cannot_be_written_down_is_not_done() -> None:
    journal = FullJournal()
    flags = store(journal)
    journal.is_full = True
    with pytest.raises(StorageFull):
        await change(flags, backend="mock")
    assert flags.current.backend == "hybrid"
    assert "the disk is full" in flags.faults
    journal.is_full = False
    await change(flags, backend="mock")
    assert flags.current.backend == "mock"
    assert not list(flags.faults)


async def test_what_is_unset_is_what_is_configured() -> None:
    flags = store(settings=Settings(name="n", deadline_ms=70, origins={"deadline_ms": "file x: deadline_ms"}))
    await change(flags, deadline_ms=50, backend="mock")
    assert "waits beneath" in flags.notes()[0]
    await change(flags, deadline_ms=None)
    assert (flags.current.deadline_ms, flags.current.backend) == (70, "mock")
    assert flags.origins()["deadline_ms"] == "file x: deadline_ms"


async def test_a_change_to_what_is_already_so_pins_it_and_is_told_nobody() -> None:
    journal = MemoryAuditStorage()
    flags = store(journal)
    flags.subscribe(lambda *_: pytest.fail("nothing changed"))
    await change(flags, backend="hybrid")
    assert (flags.revision, journal.count) == (0, 1)
    await change(flags, backend="hybrid")
    assert journal.count == 1, "nor is the same said twice"


async def test_changes_at_one_time_are_made_one_after_another(autojump_clock: trio.testing.MockClock) -> None:
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


async def test_what_was_set_at_run_time_is_found_again_after_a_restart(autojump_clock: trio.testing.MockClock) -> None:
    journal = MemoryAuditStorage()
    flags = store(journal)
    await change(flags, rollout_percent=25, reason="slowly")
    await change(flags, override="open", reason="works", expires_in="1h")
    again = store(journal)
    assert again.current == flags.current
    assert again.current.override is not None
    assert again.current.override.force is Force.OPEN
    assert again.origins()["rollout_percent"] == "run time, by ada"
    await trio.sleep(3601)
    late = store(journal)
    await late.begin()
    assert late.current.override is None, "its time was over while nobody ran"
    assert late.current.rollout_percent == 25
    assert (await acts(journal))[-2:] == ["node.started", "override.expired"]


async def test_what_was_set_and_is_impossible_since_is_told_and_not_in_force() -> None:
    journal = MemoryAuditStorage()
    await change(store(journal), write_quorum=5)
    flags = store(journal, Settings(name="n", replication=3))
    assert flags.current.write_quorum is None
    assert "not in force" in flags.faults[0]
    await change(flags, backend="mock")
    assert flags.faults == ()


# -- overrides --------------------------------------------------------------------------------------------------------


async def test_an_override_ends_by_itself_though_that_cannot_be_written_down(
    autojump_clock: trio.testing.MockClock,
) -> None:
    journal = FullJournal()
    flags = store(journal)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flags.run)
        await change(flags, override="mock", reason="works", expires_in="90s")
        assert flags.current.in_force == "mock"
        await trio.sleep(89.5)
        assert flags.current.in_force == "mock"
        await trio.sleep(1)
        assert flags.current.override is None
        assert await acts(journal) == ["flags.changed", "override.expired"]
        await change(flags, override="closed", reason="works", expires_in="90s")
        journal.is_full = True
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


# -- the configuration ------------------------------------------------------------------------------------------------


class Configured:
    """A configuration file, and a reloader over it; real files, virtual seconds."""

    def __init__(self, folder: Path, text: str = "bzzz: {dht: {backend: hybrid}}\n") -> None:
        self.path = folder / "node.yaml"
        self.path.write_text(text, encoding="utf-8")
        self.journal = MemoryAuditStorage()
        audit = Audit(self.journal, KEY, now_ms=now_ms)
        settings = self.again()
        self.flags = FlagStore(settings, audit, now_ms=now_ms, refuse=lambda _: None)
        self.peer_policy = PeerPolicy()
        self.reloader = ConfigReload(settings, self.again, flags=self.flags, peer_policy=self.peer_policy, audit=audit)

    def again(self) -> Settings:
        return load({"config": str(self.path)}, {})

    async def edit(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")
        await self.looked()

    async def looked(self) -> None:
        """Wait until what is there now was looked at twice and read."""
        until = self.reloader.looks + 4
        while self.reloader.looks < until:
            await trio.sleep(0.1)


async def test_an_edit_of_the_file_is_taken_up_and_a_wrong_one_is_not(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    at = Configured(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at.reloader.run)
        await at.looked()
        assert at.journal.count == 0, "nothing has changed"
        await at.edit("bzzz: {dht: {backend: mock}, deadline_ms: 70}\n")
        assert (at.flags.current.backend, at.flags.current.deadline_ms) == ("mock", 70)
        assert at.flags.origins()["backend"] == f"file {at.path}: dht.backend"
        for text, part in (
            ("bzzz: {dht: {backend: reel}}\n", "'reel' is not one of mock, real, hybrid"),
            ("bzzz: {dht: {bakend: real}}\n", "did you mean dht.backend?"),
            ("bzzz:\n  dht:\n    backend: real\n    fallb", "node.yaml"),
            ("bzzz:\n  dht:\n    backend: real", "cut off"),
            ("bzzz:\n  dht:\n", "'dht:' is empty"),
            ("", "is empty"),
            ("bzzz: {dht_backend: real, dht: {backend: hybrid}}\n", "set the same thing"),
            ("bzzz: {replication: 2, write_quorum: 3, dht: {backend: hybrid}}\n", "never reached"),
        ):
            await at.edit(text)
            assert part in at.flags.faults[0]
            assert at.flags.current.backend == "mock", "the old configuration goes on"
        at.path.unlink()
        await at.looked()
        assert "No such file" in at.flags.faults[0]
        assert at.flags.current.backend == "mock"
        await at.edit("bzzz: {dht: {backend: real}}\n")
        assert (at.flags.current.backend, at.flags.faults) == ("real", ())
        assert await acts(at.journal) == ["configuration.read"] * 2
        nursery.cancel_scope.cancel()


async def test_a_file_that_is_still_being_written_is_waited_for(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    at = Configured(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at.reloader.run)
        await at.looked()
        text = "bzzz:\n  dht:\n    backend: mock\n    fallback:\n      threshold_errors: 7\n"
        for end in range(0, len(text), 5):
            at.path.write_text(text[:end], encoding="utf-8")
            await trio.sleep(0.3)
        at.path.write_text(text, encoding="utf-8")
        await at.looked()
        assert (at.flags.current.backend, at.flags.current.threshold_errors) == ("mock", 7)
        assert (await acts(at.journal), at.flags.revision) == (["configuration.read"], 1)
        nursery.cancel_scope.cancel()


async def test_what_was_set_at_run_time_lies_over_the_file_and_that_is_told(tmp_path: Path) -> None:
    at = Configured(tmp_path)
    await change(at.flags, backend="mock")
    at.path.write_text("bzzz: {dht: {backend: real}, network: other}\n", encoding="utf-8")
    await at.reloader.reload("SIGHUP")
    assert at.flags.current.backend == "mock"
    assert any("waits beneath" in note for note in at.flags.notes())
    assert any(note.startswith("network: changed in the configuration") for note in at.flags.notes())
    await change(at.flags, backend=None)
    assert at.flags.current.backend == "real"


async def test_the_lists_of_whom_a_node_deals_with_follow_the_file_and_that_is_written_down(tmp_path: Path) -> None:
    at = Configured(tmp_path)
    at.path.write_text(f"bzzz: {{deny: [{KEY.peer_id}], dht: {{backend: hybrid}}}}\n", encoding="utf-8")
    await at.reloader.reload("SIGHUP")
    assert at.peer_policy.deny == (KEY.peer_id,)
    assert "lists.changed" in await acts(at.journal)


async def test_a_reload_that_the_node_cannot_follow_is_refused_whole(tmp_path: Path) -> None:
    at = Configured(tmp_path, "bzzz: {dht: {backend: mock}}\n")

    def refuse(flags: Flags) -> None:
        if flags.backend != "mock":
            raise InvalidPayload("it has no host", field="backend")

    at.flags._refuse = refuse
    at.path.write_text("bzzz: {dht: {backend: hybrid}, deadline_ms: 70}\n", encoding="utf-8")
    await at.reloader.reload("SIGHUP")
    assert at.flags.faults == ("it has no host",)
    assert (at.flags.current.backend, at.flags.current.deadline_ms) == ("mock", 100)


def test_a_configuration_error_is_what_a_start_would_say(tmp_path: Path) -> None:
    at = Configured(tmp_path)
    at.path.write_text("bzzz: {apy: x}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean api"):
        at.again()
