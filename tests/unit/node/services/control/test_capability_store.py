"""The capability store: what is in force, what survives a restart, and what is refused."""

import json

import pytest

from node.services.control.audit import Audit
from node.services.control.audit_file import MemoryAuditStorage
from node.services.control.capability_store import MARK, CapabilityStore
from node.store.memory.store import MemoryStore
from protocols.audit_log import read
from protocols.errors import BzzzError, Conflict, InvalidPayload, StorageFull
from protocols.keys import PrivateKey

CONFIGURED = ("label:gpu=a100", "role:planner")


class Storage(MemoryAuditStorage):
    """Of an audit log whose disk may be full."""

    is_full = False

    async def append(self, line: bytes) -> None:
        if self.is_full:
            raise StorageFull("the disk is full")
        await super().append(line)


class Kept:
    """What stays over restarts of a node."""

    def __init__(self) -> None:
        self.storage = Storage()
        self.marks = MemoryStore(log_id="ab" * 8)

    def start(self, *configured: str) -> CapabilityStore:
        audit = Audit(self.storage, PrivateKey.from_seed(bytes(32)), now_ms=lambda: 0)
        return CapabilityStore(configured or CONFIGURED, audit, self.marks)


async def set_(store: CapabilityStore, *texts: str, revision: str = "") -> None:
    await store.change(texts, author="ada", reason="new", revision=revision)


async def test_what_is_set_replaces_the_configured_ones_and_survives_a_restart() -> None:
    kept = Kept()
    store = kept.start()
    assert (store.texts, store.is_set_here) == (CONFIGURED, False)
    await set_(store, "role:critic", "model:llama3@70b")
    for each in (store, kept.start(), kept.start("role:other")):
        assert (each.texts, each.is_set_here) == (("model:llama3@70b", "role:critic"), True)
    await store.change(None, author="ada", reason="")
    for each in (store, kept.start()):
        assert (each.texts, each.is_set_here) == (CONFIGURED, False)


async def test_offering_nothing_survives_a_restart_too() -> None:
    kept = Kept()
    await set_(kept.start())
    assert kept.start().texts == ()


async def test_listeners_hear_of_changes_alone() -> None:
    store = Kept().start()
    heard: list[tuple[str, ...]] = []
    store.subscribe(lambda: heard.append(store.texts))
    await set_(store, "role:critic")
    await set_(store, "role:critic")
    await store.reload(["role:other"], author="file")
    assert heard == [("role:critic",)]
    await store.change(None, author="ada", reason="")
    await store.reload(["role:third"], author="file")
    assert heard == [("role:critic",), ("role:other",), ("role:third",)]


async def test_each_change_is_in_the_audit_log() -> None:
    kept = Kept()
    store = kept.start()
    await set_(store, "role:critic")
    await store.change(None, author="bob", reason="")
    await store.reload(["role:other"], author="file a.yaml")
    entries = [read(line) for line in await kept.storage.lines(limit=10)]
    assert [(e.act, e.author, e.reason, e.details) for e in entries] == [
        ("capabilities.changed", "ada", "new", {"capabilities": ["role:critic"]}),
        ("capabilities.changed", "bob", "", {"capabilities": None}),
        ("capabilities.changed", "file a.yaml", "", {"configured": ["role:other"]}),
    ]


async def test_a_change_that_cannot_be_audited_is_none() -> None:
    kept = Kept()
    store = kept.start()
    kept.storage.is_full = True
    for change in (set_(store, "role:critic"), store.reload(["role:other"], author="file")):
        with pytest.raises(StorageFull):
            await change
    assert store.texts == kept.start().texts == CONFIGURED


async def test_a_change_of_a_list_that_was_changed_since_is_refused() -> None:
    store = Kept().start()
    seen = store.revision
    await set_(store, "role:critic", revision=seen)
    with pytest.raises(Conflict, match="read them again"):
        await set_(store, "role:other", revision=seen)
    await set_(store, "role:other", revision=store.revision)
    assert store.texts == ("role:other",)


@pytest.mark.parametrize("texts", [["power:x"], ["label:a=\x1b[2J"], [f"role:r{n}" for n in range(10_000)]], ids=len)
async def test_what_no_node_may_offer_is_refused_whole(texts: list[str]) -> None:
    store = Kept().start()
    with pytest.raises(InvalidPayload):
        await set_(store, "role:critic", *texts)
    assert store.texts == CONFIGURED


@pytest.mark.parametrize("text", ["", "{", "{}", "5", "[5]", '["power:x"]', "[[]]", json.dumps(["role:x"] * 3)])
def test_a_damaged_mark_does_not_keep_a_node_from_starting(text: str) -> None:
    kept = Kept()
    kept.marks.set_mark(MARK, text)
    try:
        assert kept.start().texts in (CONFIGURED, (), ("role:x",))
    except BzzzError as error:
        pytest.fail(f"{error}")
