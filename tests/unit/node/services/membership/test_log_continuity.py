"""Log continuity: a loss of a peer or of this node itself is noticed at a hello, said once, and acted upon."""

import pytest
import trio

from node.services.membership.log_continuity import LogContinuity, compare_with_last_run
from node.store.log import Incoming, Origin
from node.store.marks import LOST_MARK, RECONCILED_MARK, UNPROVED_MARK
from node.store.members import Member
from node.store.memory.store import MemoryStore
from node.swarm.members import Members
from node.swarm.reconciliation import Reconciliation
from protocols.envelope import seal
from protocols.errors import StorageFull
from protocols.keys import PrivateKey
from protocols.log_lineage import LogPosition
from protocols.messages import Hello
from tests.until import until

AUTHOR = PrivateKey.from_seed(bytes(32))
ANN, BOB = (PrivateKey.from_seed(seed * 32).peer_id for seed in (b"\1", b"\2"))


def hello(log_id: str, **fields: object) -> Hello:
    return Hello("bzzz", "ann", log_id, 0, ())._replace(**fields)  # type: ignore[arg-type]  # fields of a hello


class Here:
    """A node with one member and one write, which that member has acknowledged."""

    def __init__(self) -> None:
        self.store = MemoryStore(log_id="b" * 16)
        ann = Member(peer=ANN, name="ann", addresses=(), first_seen_ms=5, last_seen_ms=5)
        self.members = Members(AUTHOR.peer_id, replication=20, members=[ann])
        self.continuity = LogContinuity(self.store, self.members, now_ms=lambda: 9)

    async def write(self) -> None:
        written = seal(
            AUTHOR, address="ucxl://a:r@p:t/*^/x", content=b"x", content_type="text/plain", version=1, parents=()
        )  # fmt: skip
        await self.store.merge([Incoming(written, Origin.LOCAL, (ANN,))], now_ms=1)
        self.store.acknowledge(ANN, (1,))

    async def acknowledged(self) -> tuple[str, ...]:
        standing = await self.store.standing(sequence=1)
        assert standing is not None
        return standing.acknowledged


async def test_a_peer_that_lost_what_it_acknowledged_is_owed_it_like_a_new_member(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = Here()
    await here.write()
    here.continuity.greeted(ANN, hello("a1"))
    here.continuity.heard(ANN, 30)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.continuity.run)
        here.continuity.greeted(ANN, hello("a2", former_logs=(LogPosition("a1", 12),)))
        here.continuity.heard(ANN, 12)
        await until(lambda: not here.continuity.has_lost(ANN))
        nursery.cancel_scope.cancel()
    assert await here.acknowledged() == ()
    assert [member.first_seen_ms for member in here.store.members()] == [9]
    assert here.store.member_log(ANN) == LogPosition("a2", 12)
    assert "which lacks entry 30 of its log a1" in caplog.text
    assert "1 writes that it had are sent to it again" in caplog.text


async def test_a_peer_whose_log_goes_on_is_owed_nothing() -> None:
    here = Here()
    await here.write()
    here.continuity.greeted(ANN, hello("a1"))
    here.continuity.heard(ANN, 30)
    here.continuity.greeted(ANN, hello("a2", former_logs=(LogPosition("a1", 30),)))
    assert not here.continuity.has_lost(ANN)
    assert await here.acknowledged() == (ANN,)


async def test_when_the_disk_is_full_it_is_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    here = Here()
    await here.write()
    tries = []

    async def full(holder: str) -> int:
        tries.append(holder)
        raise StorageFull("full")

    forget, here.store.forget_acknowledged = here.store.forget_acknowledged, full  # type: ignore[method-assign]
    here.continuity.greeted(ANN, hello("a1"))
    here.continuity.heard(ANN, 30)
    here.continuity.greeted(ANN, hello("a2"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.continuity.run)
        here.continuity.heard(ANN, 1)
        await until(lambda: bool(tries))
        here.store.forget_acknowledged = forget  # type: ignore[method-assign]
        while here.continuity.has_lost(ANN):
            here.continuity.heard(ANN, 1)
            await trio.sleep(1.0)
        nursery.cancel_scope.cancel()
    assert await here.acknowledged() == ()


async def test_an_entry_of_this_nodes_log_that_only_a_peer_has_is_a_loss_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = Here()
    await here.write()
    here.store.begin_log("c" * 16)
    here.continuity.greeted(ANN, hello("a1", known_log=LogPosition("b" * 16, 1)))
    assert not here.members.reconciliation.why
    for _ in range(2):
        here.continuity.greeted(ANN, hello("a1", known_log=LogPosition("b" * 16, 2)))
    assert caplog.text.count("ann knows entry 2 of this node's log bbbbbbbbbbbbbbbb, which is not in this store") == 1
    assert here.members.reconciliation.round == 1
    assert here.store.mark(LOST_MARK) == here.members.reconciliation.why
    assert here.store.mark(RECONCILED_MARK) == "0"
    here.continuity.greeted(ANN, hello("a1", known_log=LogPosition("b" * 16, 3)))
    assert here.members.reconciliation.round == 2, "it knows of a further loss"


async def test_a_peer_that_comes_with_another_log_each_time_costs_little(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    here = Here()
    await here.write()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.continuity.run)
        for number in range(200):
            here.continuity.greeted(ANN, hello(f"a{number}", known_log=LogPosition("x" * 16, number + 1)))
            here.continuity.heard(ANN, 1)
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert here.continuity.has_lost(ANN)
    assert 1 <= caplog.text.count("sent to it again") <= 3
    assert 1 <= caplog.text.count("not in this store") <= 3


def test_a_store_without_the_last_run_that_the_audit_log_names_lost_it(caplog: pytest.LogCaptureFixture) -> None:
    store, reconciliation = MemoryStore(log_id="b" * 16), Reconciliation()
    compare_with_last_run(store, reconciliation, "c" * 16)
    assert "the audit log names the run cccccccccccccccc of this node" in caplog.text
    assert reconciliation.in_words(others=0) == reconciliation.why == store.mark(LOST_MARK)
    assert reconciliation.must_ask(b"/ucxl/key")
    assert store.mark(RECONCILED_MARK) == "0"


def test_a_store_that_had_the_last_run_lost_nothing() -> None:
    store, reconciliation = MemoryStore(log_id="a" * 16), Reconciliation()
    store.begin_log("b" * 16)
    for last_log in ("", "a" * 16, "b" * 16):
        compare_with_last_run(store, reconciliation, last_log)
    assert not reconciliation.why


def test_a_loss_that_the_store_says_itself_is_not_said_twice() -> None:
    store, reconciliation = MemoryStore(log_id="b" * 16), Reconciliation("it is missing", is_new=True)
    store.damage.lost = "it is missing"
    compare_with_last_run(store, reconciliation, "c" * 16)
    assert reconciliation.why == "it is missing"


async def test_a_store_is_known_to_be_whole_once_every_member_was_heard() -> None:
    here = Here()
    here.store.set_mark(UNPROVED_MARK, "1")
    here.members.reconciliation = Reconciliation(unheard=(ANN, BOB))
    here.continuity.greeted(ANN, hello("a1"))
    assert here.store.mark(UNPROVED_MARK), "bob may know more"
    here.continuity.forget(BOB)
    assert not here.store.mark(UNPROVED_MARK)
    assert not here.members.reconciliation.must_ask(b"/ucxl/key")
