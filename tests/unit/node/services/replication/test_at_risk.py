"""At risk: own writes by hints, what others wrote by what this node feeds; who is replaced does not count."""

from collections.abc import Sequence

import pytest
import trio

from node.services.replication import at_risk
from node.services.replication.at_risk import NONE, AtRisk, RiskMonitor
from node.store.log import Incoming, Origin
from node.store.members import Member
from node.store.memory.store import MemoryStore
from node.swarm.members import Members
from protocols.envelope import Envelope, seal
from protocols.errors import Unavailable
from protocols.keys import PrivateKey
from protocols.replication.feeding import Feeding
from protocols.replication.feeding_events import LiveChanged, LiveMember

AUTHOR = PrivateKey.from_seed(bytes(32))
OWN, *PEERS = (PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(1, 5))
ANN, BEN, CAT = PEERS
NOW = 1_800_000_000_000


def envelope(path: object, version: int = 1) -> Envelope:
    address = f"ucxl://a:r@p:t/*^/{path}"
    return seal(AUTHOR, address=address, content=b"x", content_type="text/plain", version=version, parents=())


def members() -> Members:
    known = [Member(peer=peer, name="", addresses=(), first_seen_ms=0, last_seen_ms=0) for peer in PEERS]
    return Members(OWN, replication=3, members=known)


async def write(store: MemoryStore, path: object, *holders: str, at_ms: int = NOW, version: int = 1) -> None:
    await store.merge([Incoming(envelope(path, version), Origin.LOCAL, holders)], now_ms=at_ms)


async def test_nothing_is_at_risk_in_an_empty_store() -> None:
    assert await RiskMonitor(MemoryStore(log_id="a" * 16), members(), feeding=None).look() == NONE


async def test_own_writes_are_counted_by_address_and_by_how_many_holders_lack_them() -> None:
    store, here = MemoryStore(log_id="a" * 16), members()
    await write(store, "new", ANN)
    await write(store, "old", ANN, BEN, at_ms=NOW - 5000)
    await write(store, "new", ANN, BEN, CAT, version=2)
    await write(store, "safe")
    monitor = RiskMonitor(store, here, feeding=None)
    old = envelope("old").address
    assert await monitor.look() == AtRisk(by_missing={2: 1, 3: 1}, oldest_at_ms=NOW - 5000, oldest_address=old)
    await store.quarantine_hint(ANN, 1, refusal="no")
    store.acknowledge(ANN, [2, 3])
    store.acknowledge(BEN, [2, 3])
    new = envelope("new").address
    assert await monitor.look() == AtRisk(by_missing={1: 1}, oldest_at_ms=NOW, oldest_address=new)


async def test_a_member_that_is_replaced_is_not_waited_for() -> None:
    store, here = MemoryStore(log_id="a" * 16), members()
    await write(store, "x", ANN)
    await write(store, "y", ANN, BEN)
    here.replace([ANN])
    assert (await RiskMonitor(store, here, feeding=None).look()).by_missing == {1: 1}


async def test_what_others_wrote_is_at_risk_until_those_that_this_node_feeds_have_it() -> None:
    store = MemoryStore(log_id="a" * 16)
    await store.merge([Incoming(envelope(number), Origin.PEER) for number in range(60)], now_ms=NOW)
    await write(store, "own")
    feeding = Feeding(OWN, replication=2)
    monitor = RiskMonitor(store, members(), feeding=feeding)
    assert await monitor.look() == NONE, "no other member is known"
    targets = tuple(LiveMember(peer, 0) for peer in PEERS)
    feeding.handle(LiveChanged(targets, 61, {}), 0.0)
    unfed = await monitor.look()
    assert unfed.addresses == 60
    assert set(unfed.by_missing) == {1}
    feeding.handle(LiveChanged(targets, 61, dict.fromkeys(PEERS, 61)), 0.0)
    assert await monitor.look() == NONE


async def test_a_look_is_bounded_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_risk, "ENTRIES_MAX", 20)
    monkeypatch.setattr(at_risk, "PAGE", 10)
    store, here = MemoryStore(log_id="a" * 16), members()
    for number in range(30):
        await write(store, number, ANN)
    risk = await RiskMonitor(store, here, feeding=None).look()
    assert (risk.addresses, risk.is_complete) == (20, False)


async def test_a_store_that_cannot_be_read_for_a_while_keeps_the_last_look(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, here = MemoryStore(log_id="a" * 16), members()
    await write(store, "x", ANN)
    monitor = RiskMonitor(store, here, feeding=None)
    read = store.owed_writes

    async def fail(*, after: int, limit: int = 1000) -> Sequence[object]:
        raise Unavailable("the disk does not answer")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(monitor.run)
        await trio.sleep(1.0)
        store.owed_writes = fail  # type: ignore[assignment, method-assign]
        await trio.sleep(20.0)
        assert monitor.last.addresses == 1
        store.acknowledge(ANN, [1])
        store.owed_writes = read  # type: ignore[method-assign]
        await trio.sleep(20.0)
        assert monitor.last == NONE
        nursery.cancel_scope.cancel()
