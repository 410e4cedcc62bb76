"""Hint assignment: what is kept for a member goes with it."""

import pytest
import trio

from node.services.writes.hint_assignment import HintAssignment
from node.store.log import Incoming, Origin
from node.store.members import Member
from node.store.memory.store import MemoryStore
from node.swarm.members import Members
from protocols.envelope import seal
from protocols.keys import PrivateKey
from tests.until import until

AUTHOR = PrivateKey.from_seed(bytes(32))
ANN, BEN = (PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))


def member(peer: str, first_seen_ms: int) -> Member:
    return Member(peer=peer, name="", addresses=(), first_seen_ms=first_seen_ms, last_seen_ms=first_seen_ms)


async def test_the_cursor_of_a_member_is_deleted_with_it(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore(log_id="a" * 16)
    written = seal(
        AUTHOR, address="ucxl://a:r@p:t/*^/x", content=b"x", content_type="text/plain", version=1, parents=()
    )
    await store.merge([Incoming(written, Origin.LOCAL)], now_ms=1)
    await store.set_cursor(
        "owed/12D3KooWGone/3", 1
    )  # of an earlier build, or of a member forgotten while this was down
    await store.set_cursor("another", 1)
    members = Members(AUTHOR.peer_id, replication=20, members=[member(ANN, 5), member(BEN, 6)])
    assignment = HintAssignment(store, members, on_hints_added=lambda _: None, on_forgotten=lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(assignment.run)
        await until(lambda: set(store.cursor_names("owed/")) == {f"owed/{ANN}/5", f"owed/{BEN}/6"})
        members.put(member(BEN, 7))  # it lost what it had, and is owed all of it again
        members.forget(ANN)
        await until(lambda: store.cursor_names("owed/") == [f"owed/{BEN}/7"])
        nursery.cancel_scope.cancel()
    assert await store.cursor("another") == 1


@pytest.mark.parametrize("first_seen_ms", [5, 9])
async def test_a_member_that_was_forgotten_and_comes_back_gets_hints_for_all_writes(
    autojump_clock: trio.testing.MockClock, first_seen_ms: int
) -> None:
    store = MemoryStore(log_id="a" * 16)
    written = seal(
        AUTHOR, address="ucxl://a:r@p:t/*^/x", content=b"x", content_type="text/plain", version=1, parents=()
    )
    await store.merge([Incoming(written, Origin.LOCAL)], now_ms=1)
    members = Members(AUTHOR.peer_id, replication=20, members=[member(ANN, 5)])
    assignment = HintAssignment(store, members, on_hints_added=lambda _: None, on_forgotten=lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(assignment.run)
        await until(lambda: store.hint_counts() == {ANN: 1})
        members.forget(ANN)
        await until(lambda: not store.hint_counts() and not store.cursor_names("owed/"))
        members.put(member(ANN, first_seen_ms))
        await until(lambda: store.hint_counts() == {ANN: 1})
        nursery.cancel_scope.cancel()


async def test_members_that_hold_for_one_that_is_gone_get_hints_and_its_own_are_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore(log_id="a" * 16)
    addresses = [f"ucxl://a:r@p:t/*^/{number}" for number in range(8)]
    members = Members(AUTHOR.peer_id, replication=1, members=[member(ANN, 5), member(BEN, 6)])
    later: list[str] = []

    async def write(*written: str) -> None:
        sealed = [
            seal(AUTHOR, address=address, content=b"x", content_type="text/plain", version=1, parents=())
            for address in written
        ]
        await store.merge([Incoming(each, Origin.LOCAL, members.wanted(each.key)) for each in sealed], now_ms=1)

    await write(*addresses)
    of_ann = store.hint_counts()[ANN]
    assert 0 < of_ann < 8
    assignment = HintAssignment(store, members, on_hints_added=later.append, on_forgotten=lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(assignment.run)
        await until(lambda: assignment.has_assigned(ANN) and assignment.has_assigned(BEN))
        members.replace([ANN])
        assert not assignment.has_assigned(ANN), "what it lacks is not known while it is away"
        await until(lambda: store.hint_counts() == {ANN: of_ann, BEN: 8})
        assert BEN in later
        await write(*[f"{address}/later" for address in addresses])
        assert store.hint_counts() == {ANN: of_ann, BEN: 16}
        members.replace([])
        assert not assignment.has_assigned(ANN)
        await until(lambda: assignment.has_assigned(ANN))
        assert store.hint_counts()[ANN] > of_ann, "it is back, and gets what was written meanwhile"
        nursery.cancel_scope.cancel()
