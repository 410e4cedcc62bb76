"""The contract of every store for members."""

from node.store.base import Store
from node.store.members import Member
from protocols.log_lineage import LogPosition
from tests.contract.stores import (
    ALICE,
    BOB,
    CAROL,
    StoreRig,
)  # fmt: skip


async def test_members_are_remembered_by_peer_id(store: Store, rig: StoreRig) -> None:
    bob = Member(
        peer=BOB, name="bob", addresses=("/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"), first_seen_ms=1,
        last_seen_ms=2, labels={"zone": "west", "gpu": "2"},
    )  # fmt: skip
    alice = Member(peer=ALICE, name="alice", addresses=(), first_seen_ms=3, last_seen_ms=4)
    await store.save_member(bob)
    await store.save_member(alice)
    await store.save_member(Member(peer=CAROL, name="c", addresses=(), first_seen_ms=1, last_seen_ms=1))
    later = Member(peer=ALICE, name="alice 2", addresses=("/ip4/127.0.0.1/tcp/3",), first_seen_ms=3, last_seen_ms=9)
    await store.save_member(later)
    await store.forget_member(CAROL)
    await store.forget_member("12D3KooWNobody")
    async for each in rig.now_and_after_a_restart(store):
        assert each.members() == (later, bob)


async def test_what_is_known_of_a_members_log_is_remembered_until_it_is_forgotten(store: Store, rig: StoreRig) -> None:
    assert store.member_log(BOB) is None
    for position in (LogPosition("b1", 4), LogPosition("b1", 9)):
        store.set_member_log(BOB, position)
    store.set_member_log(ALICE, LogPosition("a1", 2))
    await store.save_member(Member(peer=ALICE, name="a", addresses=(), first_seen_ms=1, last_seen_ms=1))
    async for each in rig.now_and_after_a_restart(store):
        assert each.member_log(BOB) == LogPosition("b1", 9)
        assert each.member_log(ALICE) == LogPosition("a1", 2)
        store = each
    store.set_member_log(ALICE, LogPosition("a1", 3))
    await store.forget_member(ALICE)
    async for each in rig.now_and_after_a_restart(store):
        assert (each.member_log(ALICE), each.member_log(BOB)) == (None, LogPosition("b1", 9))
