"""Configuration reload: a complete and valid edit is put in force, anything else is refused and changes nothing."""

from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest
import trio
import trio.testing

from node.config.changes import read_change
from node.config.file import ConfigError
from node.config.flags import Flags
from node.config.load import load
from node.config.settings import Settings
from node.services.control.audit import Audit
from node.services.control.audit_file import MemoryAuditStorage
from node.services.control.capability_store import CapabilityStore
from node.services.control.config_reload import ConfigReload, Stamp
from node.services.control.flag_store import FlagStore
from node.store.memory.store import MemoryStore
from node.swarm.peer_policy import PeerPolicy
from protocols.audit_log import read
from protocols.errors import InvalidPayload
from protocols.keys import PrivateKey
from tests.until import until

KEY = PrivateKey.from_seed(b"\x05" * 32)
START_MS = 1_700_000_000_000


def now_ms() -> int:
    return START_MS + int(trio.current_time() * 1000)


async def change(flags: FlagStore, **data: object) -> None:
    await flags.change(read_change(data, author="ada"))


async def acts(storage: MemoryAuditStorage) -> list[str]:
    return [read(line).act for line in await storage.lines(limit=100)]


class Configured:
    """A configuration file, and the reload of it; real files, virtual seconds."""

    def __init__(
        self,
        folder: Path,
        text: str = "bzzz: {dht: {backend: hybrid}}\n",
        refuse: Callable[[Flags], None] = lambda _: None,
    ) -> None:
        self.path = folder / "node.yaml"
        self.path.write_text(text, encoding="utf-8")
        self.audit_storage = MemoryAuditStorage()
        audit = Audit(self.audit_storage, KEY, now_ms=now_ms)
        settings = self.load()
        self.flags = FlagStore(settings, audit, now_ms=now_ms, refuse=refuse)
        self.peer_policy = PeerPolicy()
        self.capabilities = CapabilityStore(settings.capabilities, audit, MemoryStore(log_id="ab" * 8))
        self.reload = ConfigReload(
            settings,
            self.load,
            flags=self.flags,
            peer_policy=self.peer_policy,
            audit=audit,
            capabilities=self.capabilities,
        )
        self.look_count = 0
        # Private: nothing else shows that the files were looked at, and a virtual clock does not wait for the thread
        # that looks at them.
        self._look = self.reload._stamps
        self.reload._stamps = self._count_look  # type: ignore[method-assign]

    async def _count_look(self) -> tuple[Stamp, ...]:
        stamps = await self._look()
        self.look_count += 1
        return stamps

    def load(self) -> Settings:
        return load({"config": str(self.path)}, {})

    async def edit(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")
        await self.looked()

    async def looked(self) -> None:
        """Wait until the present file was looked at twice and read."""
        enough = self.look_count + 4
        # Without a limit: virtual seconds pass as fast as they like while a thread looks at the files.
        await until(lambda: self.look_count >= enough, seconds=inf, what="the files are looked at")


async def test_a_valid_edit_of_the_file_is_put_in_force_and_a_wrong_one_is_not(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    configured = Configured(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(configured.reload.run)
        await configured.looked()
        assert configured.audit_storage.count == 0, "nothing has changed"
        await configured.edit("bzzz: {dht: {backend: mock}, deadline_ms: 70}\n")
        assert (configured.flags.current.backend, configured.flags.current.deadline_ms) == ("mock", 70)
        assert configured.flags.origins()["backend"] == f"file {configured.path}: dht.backend"
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
            await configured.edit(text)
            assert part in configured.flags.faults[0]
            assert configured.flags.current.backend == "mock", "the old configuration goes on"
        configured.path.unlink()
        await configured.looked()
        assert "No such file" in configured.flags.faults[0]
        assert configured.flags.current.backend == "mock"
        await configured.edit("bzzz: {dht: {backend: real}}\n")
        assert (configured.flags.current.backend, configured.flags.faults) == ("real", ())
        assert await acts(configured.audit_storage) == ["configuration.read"] * 2
        nursery.cancel_scope.cancel()


async def test_a_file_is_read_only_when_it_is_written_completely(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    configured = Configured(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(configured.reload.run)
        await configured.looked()
        text = "bzzz:\n  dht:\n    backend: mock\n    fallback:\n      threshold_errors: 7\n"
        for end in range(0, len(text), 5):
            configured.path.write_text(text[:end], encoding="utf-8")
            await trio.sleep(0.3)
        configured.path.write_text(text, encoding="utf-8")
        await configured.looked()
        assert (configured.flags.current.backend, configured.flags.current.threshold_errors) == ("mock", 7)
        assert (await acts(configured.audit_storage), configured.flags.revision) == (["configuration.read"], 1)
        nursery.cancel_scope.cancel()


async def test_a_flag_set_at_run_time_outranks_the_file_and_a_note_says_so(tmp_path: Path) -> None:
    configured = Configured(tmp_path)
    await change(configured.flags, backend="mock")
    configured.path.write_text("bzzz: {dht: {backend: real}, network: other}\n", encoding="utf-8")
    await configured.reload.reload("SIGHUP")
    assert configured.flags.current.backend == "mock"
    assert any("waits beneath" in note for note in configured.flags.notes())
    assert any(note.startswith("network: changed in the configuration") for note in configured.flags.notes())
    await change(configured.flags, backend=None)
    assert configured.flags.current.backend == "real"


async def test_allow_and_deny_lists_follow_the_file_and_that_is_audited(tmp_path: Path) -> None:
    configured = Configured(tmp_path)
    configured.path.write_text(f"bzzz: {{deny: [{KEY.peer_id}], dht: {{backend: hybrid}}}}\n", encoding="utf-8")
    await configured.reload.reload("SIGHUP")
    assert configured.peer_policy.deny == (KEY.peer_id,)
    assert "lists.changed" in await acts(configured.audit_storage)


async def test_capabilities_follow_the_file(tmp_path: Path) -> None:
    configured = Configured(tmp_path)
    configured.path.write_text("bzzz: {capabilities: ['role:planner', 'label:gpu=a100']}\n", encoding="utf-8")
    await configured.reload.reload("SIGHUP")
    assert configured.capabilities.texts == ("label:gpu=a100", "role:planner")
    assert configured.flags.notes() == [], "no start is needed for that"
    configured.path.write_text("bzzz: {capabilities: ['power:planner']}\n", encoding="utf-8")
    await configured.reload.reload("SIGHUP")
    assert configured.capabilities.texts == ("label:gpu=a100", "role:planner")
    assert any("power:planner" in fault for fault in configured.flags.faults)


async def test_a_configuration_that_the_node_cannot_follow_is_refused_whole(tmp_path: Path) -> None:
    def refuse(flags: Flags) -> None:
        if flags.backend != "mock":
            raise InvalidPayload("it has no host", field="backend")

    configured = Configured(tmp_path, "bzzz: {dht: {backend: mock}}\n", refuse)
    configured.path.write_text("bzzz: {dht: {backend: hybrid}, deadline_ms: 70}\n", encoding="utf-8")
    await configured.reload.reload("SIGHUP")
    assert configured.flags.faults == ("it has no host",)
    assert (configured.flags.current.backend, configured.flags.current.deadline_ms) == ("mock", 100)


def test_a_configuration_error_is_the_same_as_at_a_start(tmp_path: Path) -> None:
    configured = Configured(tmp_path)
    configured.path.write_text("bzzz: {apy: x}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean api"):
        configured.load()
